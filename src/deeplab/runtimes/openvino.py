"""Run files with OpenVINO: fast on server networks and with many streams.

It reads its own format (``.xml`` with the ``.bin`` beside it), ``.onnx`` and ``.tflite``.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, MissingExtraError, ModelError, ModelNotFoundError
from deeplab.runtimes.answers import TensorInfo, last_line
from deeplab.runtimes.devices import CPU, Device, Place, cannot_run
from deeplab.runtimes.litert import describe as describe_tflite
from deeplab.runtimes.network import CardNetwork, Float32, Frame, Precision, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import (
    Ending,
    PhotoNetwork,
    check_file,
    understand,
)
from deeplab.runtimes.tflite_network import TfliteNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deeplab.runtimes.network import Told

_Compile = Callable[[Any, Any], Any]
"""From OpenVINO's core and a model to a request."""

_lock = threading.Lock()

_TYPES = {"u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64",
          "f16": "float16", "f32": "float32"}  # fmt: skip

_PASSING = ("Result", "Convert", "Interpolate", "Transpose")
"""Steps behind which probabilities are still probabilities."""


def describe(
    path: str | PathLike[str], *, whole: bool = False, **told: Unpack[Told]
) -> TfliteNetwork | PhotoNetwork:
    """Find out how a file is run: one of ``deeplab export``, or of somebody else.

    Args:
        path: an ``.xml``, ``.onnx`` or ``.tflite`` file.
        whole: ``.tflite``: see :func:`deeplab.runtimes.litert.describe`.
        **told: see :class:`~deeplab.runtimes.network.Told`.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, not a DeepLab, or OpenVINO cannot run it.
        InputError: what was told does not fit the file, or is missing.
        MissingExtraError: OpenVINO is not installed.
    """
    path = Path(path)
    if path.suffix not in (".xml", ".onnx"):
        card = describe_tflite(path, whole=whole, **told)
        if card.any_size:
            raise InputError(
                f"runtime: {path.name} takes pictures of any size, which 'openvino' cannot cut to "
                "one; use 'litert'."
            )
        return card
    model = _read_model(path)
    if len(model.inputs) != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {len(model.inputs)} inputs, expected one RGB "
            "picture."
        )
    stated = _read_card(path, model)
    return understand(
        path,
        _tensor(model.inputs[0]),
        [_tensor(output) for output in model.outputs],
        card=stated,
        endings=[_find_ending(output) for output in model.outputs],
        **told,
    )


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: TfliteNetwork | PhotoNetwork | None = None,
    precision: Precision = "float32",
    count_time: bool = False,
    device: Device = CPU,
    **told: Unpack[Told],
) -> OpenVINONetwork | OpenVINOPhotoNetwork:
    """Open a network.

    Args:
        path: an ``.xml``, ``.onnx`` or ``.tflite`` file.
        threads: how many threads one frame may use.
        card: what :func:`describe` found; None asks it.
        precision: in what it is computed; see :func:`deeplab.runtimes.open_network`.
        count_time: of every operator, for :func:`time_operators`; that takes time itself.
        device: the CPU, "gpu" or "npu".
        **told: see :func:`describe`.

    Raises:
        InputError: the processor does not know the precision; and as :func:`describe`.
    """
    path = Path(path)
    card = card or describe(path, **told)
    compile = functools.partial(
        _compile, threads=threads, precision=precision, count_time=count_time, device=device
    )
    if isinstance(card, TfliteNetwork):
        return OpenVINONetwork(card, compile, device)
    try:
        request = compile(_share_core(), _read_model(path))
    except RuntimeError as error:
        raise _cannot_run(path.name, error, device) from error
    return OpenVINOPhotoNetwork(card, request, device)


_MAKERS = {
    "gpu": "Intel graphics with the OpenCL driver (Debian, Ubuntu: intel-opencl-icd)",
    "npu": "an Intel NPU with its driver (github.com/intel/linux-npu-driver)",
}


def find_places() -> list[Place]:
    """Return the devices that OpenVINO knows, and which of them are here.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = _share_core()
    places = [Place(device=CPU, name=str(core.get_property("CPU", "FULL_DEVICE_NAME")), here=True)]
    for kind, maker in _MAKERS.items():
        found = [one for one in core.available_devices if one.startswith(kind.upper())]
        places += [
            Place(
                device=Device(kind, index),
                name=str(core.get_property(one, "FULL_DEVICE_NAME")),
                here=True,
                cure=maker,
            )
            for index, one in enumerate(found)
        ]
        if not found:
            places.append(Place(device=Device(kind), name="", here=False, cure=maker))
    return places


def time_operators(
    network: OpenVINONetwork | OpenVINOPhotoNetwork, frame: UInt8
) -> list[tuple[str, str, float]]:
    """Run one frame and return (operator, name, ms) of what was executed, in its order.

    The network must have been opened with ``count_time``.
    """
    network(frame)
    return [
        (node.node_type, node.node_name, 1e3 * node.real_time.total_seconds())
        for node in network.request.get_profiling_info()
        if node.status == node.status.EXECUTED
    ]


class OpenVINONetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` of a ``.tflite`` in OpenVINO."""

    def __init__(self, network: TfliteNetwork, compile: _Compile, device: Device = CPU) -> None:
        core = _share_core()
        super().__init__(network)
        self.network = network
        self._device = device
        self._output = (
            network.file.outputs.index(network.output_tensor.index) if network.whole else 0
        )
        try:
            # OpenVINO reads this format from files only, and forgets most tensors' names.
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                file = Path(folder, "network.tflite")
                file.write_bytes(network.content)
                self.request = compile(core, core.read_model(file))
        except RuntimeError as error:
            if device != CPU:
                raise _cannot_run(network.file.name, error, device) from error
            raise ModelError(
                f"{network.file.name}: OpenVINO cannot run this model; use runtime='litert'. "
                f"({last_line(error)})"
            ) from error

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        # Written where OpenVINO reads it: its own way with arguments takes 0.2 ms.
        place = self.request.get_input_tensor(0).data
        if self.network.input_tensor.type == "FLOAT32" and not self.network.channels_first:
            self.network.feed(frame, out=place)
        else:
            np.copyto(place, self.network.feed(frame))
        try:
            self.request.infer()
        except RuntimeError as error:
            raise _cannot_run(self.network.file.name, error, self._device) from error
        return self.network.answer(self.request.get_output_tensor(self._output).data.copy())


class OpenVINOPhotoNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` of another file in OpenVINO."""

    def __init__(self, network: PhotoNetwork, request: Any, device: Device = CPU) -> None:
        super().__init__(network)
        self.network = network
        self._device = device
        self.request = request

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        batch = self.network.feed(frame)
        try:
            fetched = _infer(self.request, batch, self.network.output_index)
        except RuntimeError as error:
            raise _cannot_run(self.network.name, error, self._device) from error
        return self.network.answer(fetched)


def _read_model(path: Path) -> Any:
    core = _share_core()
    check_file(path)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and not weights.is_file():
        raise ModelNotFoundError(
            f"model: there is no file {weights}. OpenVINO's format is a pair, {path.name} and "
            f"{weights.name}; keep both in one folder."
        )
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise _cannot_run(path.name, error) from error


def _cannot_run(name: str, error: Exception, device: Device = CPU) -> ModelError:
    if device != CPU:
        return cannot_run(name, "OpenVINO", device, error)
    return ModelError(
        f"{name}: OpenVINO cannot run this file; it is damaged, no network, or newer than "
        f"this OpenVINO. ({last_line(error)})"
    )


def _share_core() -> Any:
    """Return OpenVINO's core: one for all networks, kept until the process ends.

    The CPU plugin of every core gives the thread a signal stack, and when it goes it puts back the
    one it found there. Of two that do not go in the opposite order of their coming, the last puts
    back what the first has unmapped already, and the next signal that Python handles, Ctrl-C or the
    end of a child process, is a segmentation fault.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "The OpenVINO runtime", package="openvino", extra="openvino"
        ) from error
    with _lock:
        return _make_core(openvino)


@functools.cache
def _make_core(openvino: Any) -> Any:
    return openvino.Core()


def _compile(
    core: Any, model: Any, *, threads: int, precision: Precision, count_time: bool, device: Device
) -> Any:
    if device != CPU:
        number = f".{device.index}" if device.index else ""
        # An NPU computes in half precision alone, and refuses to be asked for another.
        exact = {"INFERENCE_PRECISION_HINT": "f32"} if device.kind == "gpu" else {}
        options = {**exact, "PERF_COUNT": count_time}
        return core.compile_model(
            model, f"{device.kind.upper()}{number}", options
        ).create_infer_request()
    if precision == "bfloat16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise InputError("precision: this processor does not compute in 'bfloat16'; leave it out.")
    options = {
        # Left to itself OpenVINO takes bfloat16 on CPUs that have it; masks would differ from the
        # others'.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # It would bind the threads of every network to the same first cores, where those of two
        # photos at once then wait for each other.
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": count_time,
    }
    return core.compile_model(model, "CPU", options).create_infer_request()


def _infer(request: Any, batch: npt.NDArray[Any], output: int) -> npt.NDArray[Any]:
    # Both arrays are copied: a shared input would have to outlive the call, and a shared output
    # would be overwritten by the next one.
    request.infer({0: np.ascontiguousarray(batch)})
    fetched: npt.NDArray[Any] = request.get_output_tensor(output).data.copy()
    return fetched


def _read_card(path: Path, model: Any) -> NetworkCard | None:
    """Return the card from OpenVINO's own metadata, or from that of the ONNX it was read from."""
    for place in ([KEY], ["framework", KEY]):
        if model.has_rt_info(place):
            try:
                text = str(model.get_rt_info(place).value)
            except (UnicodeDecodeError, RuntimeError) as error:
                raise _cannot_run(path.name, error) from error
            return NetworkCard.from_json(text, name=path.name)
    return None


def _find_ending(port: Any) -> Ending:
    """Return whether a softmax or sigmoid makes an output."""
    node = port.get_node()
    while node.get_type_name() in _PASSING:
        node = node.input_value(0).get_node()
    return (
        "probabilities" if node.get_type_name() in ("SoftMax", "Softmax", "Sigmoid") else "logits"
    )


def _tensor(port: Any) -> TensorInfo:
    shape = port.get_partial_shape()
    return TensorInfo(
        shape=tuple(side.get_length() if side.is_static else None for side in shape),
        type=_TYPES.get(port.get_element_type().get_type_name(), "another type"),
        name=port.get_any_name() if port.get_names() else "",
    )
