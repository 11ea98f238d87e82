"""Run ``.tflite`` files with LiteRT: the smallest engine, and the fastest on integer networks.

On the CPU its interpreter runs them; GPUs (through WebGPU, which comes in the same wheel) and NPUs
are reached by its compiled models, which give the CPU's numbers no faster.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab.errors import MissingExtraError, ModelError
from deeplab.runtimes.answers import is_aligned, last_line
from deeplab.runtimes.devices import CPU, Device, Place, cannot_run
from deeplab.runtimes.network import CardNetwork, Float32, Frame, UInt8
from deeplab.runtimes.tflite_network import TfliteNetwork, understand
from deeplab.tflite import file as tflite_file
from deeplab.tflite.file import DTYPES
from deeplab.tflite.smallest import SMALLEST_SHAPE, make_smallest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deeplab.runtimes.network import Told


def describe(
    path: str | PathLike[str], *, whole: bool = False, **told: Unpack[Told]
) -> TfliteNetwork:
    """Find out how a DeepLab ``.tflite`` is run.

    Args:
        path: the file.
        whole: compute and return what the file gives, even where a finer answer lies inside it
            (see :mod:`deeplab.runtimes.tflite_network`).
        **told: see :class:`~deeplab.runtimes.network.Told`.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: not a TFLite model, or not a DeepLab.
        InputError: what was told does not fit the file.
    """
    return understand(tflite_file.read(path), whole=whole, **told)


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: TfliteNetwork | None = None,
    whole: bool = False,
    device: Device = CPU,
    **told: Unpack[Told],
) -> LiteRTNetwork | CompiledNetwork:
    """Open a DeepLab ``.tflite``.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        card: what :func:`describe` found; None asks it.
        whole: see :func:`describe`.
        device: the CPU, "gpu" or "npu".
        **told: likewise.

    Raises:
        ModelError: LiteRT cannot run it; and as :func:`describe`.
    """
    card = card or describe(path, whole=whole, **told)
    if device == CPU:
        return LiteRTNetwork(card, threads=threads)
    return CompiledNetwork(card, device)


def find_places() -> list[Place]:
    """Return the devices that LiteRT knows; only a trial tells whether a GPU or NPU is here."""
    return [
        Place(device=CPU, name="XNNPACK", here=True),
        Place(
            device=Device("gpu"),
            name="WebGPU",
            here=None,
            cure="a GPU whose driver has Vulkan (Linux; of Mesa a version above 22), Direct3D 12 "
            "(Windows) or Metal (macOS)",
        ),
        Place(
            device=Device("npu"),
            name="the vendor's dispatch library",
            here=None,
            cure="an NPU and LiteRT's package of its vendor (Intel, Qualcomm, MediaTek, Google)",
        ),
    ]


class LiteRTNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in LiteRT."""

    def __init__(self, network: TfliteNetwork, *, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError(
                "Running .tflite files", package="ai-edge-litert", extra="litert"
            ) from error
        try:
            self._interpreter = Interpreter(model_content=network.content, num_threads=threads)
            self._input = self._interpreter.get_input_details()[0]["index"]
            if network.any_size:
                self._interpreter.resize_tensor_input(self._input, network.input_shape)
            self._interpreter.allocate_tensors()
            self._output = _find_output(self._interpreter, network)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{network.file.name}: LiteRT cannot run this model: {last_line(error)}"
            ) from error
        if network.any_size:  # only now is it known how large the answer is
            frame = network.spec.height, network.spec.width
            grid = network.reading.grid_of(self._interpreter.get_tensor(self._output).shape)
            network = dataclasses.replace(network, align_corners=is_aligned(frame, grid))
        super().__init__(network)
        self.network = network

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        network = self.network
        if network.input_tensor.type == "FLOAT32" and not network.channels_first:
            network.feed(frame, out=self._interpreter.tensor(self._input)())
        else:
            self._interpreter.set_tensor(self._input, network.feed(frame))
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{network.file.name}: LiteRT cannot run this model: {last_line(error)}"
            ) from error
        return network.answer(self._interpreter.get_tensor(self._output))


class CompiledNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` on a GPU or an NPU.

    The device is asked for alone: given the CPU beside it, LiteRT runs there without a word what
    the device cannot, all of it where there is no such device.
    """

    def __init__(self, network: TfliteNetwork, device: Device) -> None:
        self._name, self._device = network.file.name, device
        dtype, shape = network.output_tensor.type, network.output_tensor.shape
        try:
            with _lock:
                self._model = _compile(network.content, device)
            if network.any_size:
                self._model.resize_input_tensor(0, network.input_shape)
                signature = self._model.get_signature_by_index(0)["key"]
                (details,) = self._model.get_output_tensor_details(signature).values()
                shape = tuple(details["shape"])
            self._inputs = self._model.create_input_buffers(0)
            self._outputs = self._model.create_output_buffers(0)
        except (ValueError, RuntimeError, KeyError) as error:
            raise self._refusal(error) from error
        if network.any_size:
            frame = network.spec.height, network.spec.width
            corners = is_aligned(frame, network.reading.grid_of(shape))
            network = dataclasses.replace(network, align_corners=corners)
        super().__init__(network)
        self.network = network
        self._number = (
            network.file.outputs.index(network.output_tensor.index) if (network.whole) else 0
        )
        self._shape, self._dtype = shape, DTYPES[dtype]

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        try:
            self._inputs[0].write(np.ascontiguousarray(self.network.feed(frame)))
            self._model.run_by_index(0, self._inputs, self._outputs)
            fetched = self._outputs[self._number].read(int(np.prod(self._shape)), self._dtype)
        except (ValueError, RuntimeError) as error:
            raise self._refusal(error) from error
        return self.network.answer(fetched.reshape(self._shape))

    def _refusal(self, error: Exception) -> ModelError:
        refusal = cannot_run(self._name, "LiteRT", self._device, error)
        (place,) = (place for place in find_places() if place.device.kind == self._device.kind)
        return ModelError(f"{refusal} What it needs: {place.cure}.")


_lock = threading.Lock()


@functools.cache
def _share_environment() -> Any:
    """Return LiteRT's environment: one for all networks, because it holds the GPU."""
    from ai_edge_litert.compiled_model import Environment

    return Environment.create()


def _compile(content: bytes, device: Device) -> Any:
    from ai_edge_litert.compiled_model import (
        CompiledModel,
        CpuOptions,
        GpuOptions,
        HardwareAccelerator,
        Options,
    )

    return CompiledModel.from_buffer(
        content,
        environment=_share_environment(),
        options=Options(
            hardware_accelerators=HardwareAccelerator[device.kind.upper()],
            cpu_options=CpuOptions(num_threads=1),
            gpu_options=GpuOptions(enforce_f32=True),
        ),
    )


def try_device(device: Device) -> None:
    """Open and run the smallest network on a device.

    Raises:
        RuntimeError: LiteRT does not find it here.
    """
    model = _compile(make_smallest(), device)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(np.full(SMALLEST_SHAPE, 2, np.float32))
    model.run_by_index(0, inputs, outputs)
    found = outputs[0].read(int(np.prod(SMALLEST_SHAPE)), np.float32)
    if not (found == 4).all():
        raise RuntimeError(f"it computes 2 + 2 = {found[0]}")


def _find_output(interpreter: Any, network: TfliteNetwork) -> int:
    """Return the engine's number of the tensor to fetch; cut files have only this one."""
    outputs = [int(details["index"]) for details in interpreter.get_output_details()]
    if network.whole:
        return outputs[network.file.outputs.index(network.output_tensor.index)]
    return outputs[0]
