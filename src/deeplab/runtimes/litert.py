"""Run ``.tflite`` files with LiteRT: the smallest engine, and the fastest on integer networks."""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import TYPE_CHECKING, Any

from deeplab.errors import MissingExtraError, ModelError
from deeplab.runtimes.answers import is_aligned, last_line
from deeplab.runtimes.network import CardNetwork, Float32, UInt8
from deeplab.runtimes.tflite_network import TfliteNetwork, understand
from deeplab.tflite import file as tflite_file

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
    **told: Unpack[Told],
) -> LiteRTNetwork:
    """Open a DeepLab ``.tflite``.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        card: what :func:`describe` found; None asks it.
        whole: see :func:`describe`.
        **told: likewise.

    Raises:
        ModelError: LiteRT cannot run it; and as :func:`describe`.
    """
    return LiteRTNetwork(card or describe(path, whole=whole, **told), threads=threads)


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

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
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


def _find_output(interpreter: Any, network: TfliteNetwork) -> int:
    """Return the engine's number of the tensor to fetch; cut files have only this one."""
    outputs = [int(details["index"]) for details in interpreter.get_output_details()]
    if network.whole:
        return outputs[network.file.outputs.index(network.output_tensor.index)]
    return outputs[0]
