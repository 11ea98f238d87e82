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
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, MissingExtraError, ModelError, ModelNotFoundError
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, Precision, UInt8, photo_network
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import PhotoEngine, PhotoNetwork, TensorInfo
from deeplab.runtimes.tflite_network import TfliteEngine, TfliteNetwork, understand
from deeplab.tflite import file as tflite_file

_Compile = Callable[[Any, Any], Any]
"""From OpenVINO's core and a model to a request."""

_lock = threading.Lock()

_TYPES = {"u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64",
          "f16": "float16", "f32": "float32"}  # fmt: skip


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    whole: bool = False,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    size: tuple[int, int] | None = None,
    precision: Precision = "float32",
    count_time: bool = False,
) -> OpenVINONetwork | OpenVINOPhotoNetwork:
    """Open a network.

    Args:
        path: an ``.xml``, ``.onnx`` or ``.tflite`` file.
        threads: how many threads one frame may use.
        whole: ``.tflite``: see :func:`deeplab.runtimes.litert.open`.
        normalisation: (mean, std) in units of 0..255, for files that take normalised numbers.
        assume: whose normalisation to take where the file says nothing.
        size: (height, width) of the frame, where the file takes any.
        precision: in what it is computed; see :func:`deeplab.runtimes.open_network`.
        count_time: of every operator, for :func:`time_operators`; that takes time itself.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, not a DeepLab, or OpenVINO cannot run it.
        InputError: an argument does not fit the file, or is missing; the processor does not know
            the precision.
        MissingExtraError: OpenVINO is not installed.
    """
    path = Path(path)
    compile = functools.partial(
        _compile, threads=threads, precision=precision, count_time=count_time
    )
    if path.suffix in (".xml", ".onnx"):
        return _open_photo_network(
            path, compile, normalisation=normalisation, assume=assume, size=size
        )
    file = tflite_file.read(path)
    network = understand(file, whole=whole, normalisation=normalisation, assume=assume)
    return OpenVINONetwork(network, compile)


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


class OpenVINONetwork(TfliteEngine):
    """A :class:`deeplab.runtimes.Network` of a ``.tflite`` in OpenVINO."""

    def __init__(self, network: TfliteNetwork, compile: _Compile) -> None:
        core = _share_core()
        super().__init__(network)
        try:
            # OpenVINO reads this format from files only, and forgets most tensors' names.
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                file = Path(folder, "network.tflite")
                file.write_bytes(network.content)
                self.request = compile(core, core.read_model(file))
        except RuntimeError as error:
            raise ModelError(
                f"{network.file.name}: OpenVINO cannot run this model; use runtime='litert'. "
                f"({photo_network.last_line(error)})"
            ) from error

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        # Written where OpenVINO reads it: its own way with arguments takes 0.2 ms.
        place = self.request.get_input_tensor(0).data
        if self.network.input_tensor.type == "FLOAT32":
            self.network.feed(frame, out=place)
        else:
            np.copyto(place, self.network.feed(frame))
        self.request.infer()
        return self.network.answer(self.request.get_output_tensor(0).data.copy())


class OpenVINOPhotoNetwork(PhotoEngine):
    """A :class:`deeplab.runtimes.Network` of another file in OpenVINO."""

    def __init__(self, network: PhotoNetwork, request: Any) -> None:
        super().__init__(network)
        self.request = request

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        return self.network.answer(_infer(self.request, self.network.feed(frame)))


def _open_photo_network(
    path: Path,
    compile: _Compile,
    *,
    normalisation: Normalisation | None,
    assume: InputSpec | None,
    size: tuple[int, int] | None,
) -> OpenVINOPhotoNetwork:
    core = _share_core()
    photo_network.check_file(path)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and not weights.is_file():
        raise ModelNotFoundError(
            f"model: there is no file {weights}. OpenVINO's format is a pair, {path.name} and "
            f"{weights.name}; keep both in one folder."
        )
    try:
        model = core.read_model(path)
        request = compile(core, model)
    except RuntimeError as error:
        raise ModelError(
            f"{path.name}: OpenVINO cannot run this file; it is damaged, no network, or newer than "
            f"this OpenVINO. ({photo_network.last_line(error)})"
        ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs, expected one of each."
        )
    network = photo_network.understand(
        path,
        _tensor(model.inputs[0]),
        _tensor(model.outputs[0]),
        card=_read_card(path, model),
        normalisation=normalisation,
        assume=assume,
        size=size,
    )
    return OpenVINOPhotoNetwork(network, request)


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


def _compile(core: Any, model: Any, *, threads: int, precision: Precision, count_time: bool) -> Any:
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
        "PERF_COUNT": count_time,
    }
    return core.compile_model(model, "CPU", options).create_infer_request()


def _infer(request: Any, batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Both arrays are copied: a shared input would have to outlive the call, and a shared output
    # would be overwritten by the next one.
    request.infer({0: np.ascontiguousarray(batch)})
    fetched: npt.NDArray[Any] = request.get_output_tensor(0).data.copy()
    return fetched


def _read_card(path: Path, model: Any) -> NetworkCard | None:
    """Return the card from OpenVINO's own metadata, or from that of the ONNX it was read from."""
    for place in ([KEY], ["framework", KEY]):
        if model.has_rt_info(place):
            return NetworkCard.from_json(str(model.get_rt_info(place).value), name=path.name)
    return None


def _tensor(port: Any) -> TensorInfo:
    shape = port.get_partial_shape()
    return TensorInfo(
        shape=tuple(side.get_length() if side.is_static else None for side in shape),
        type=_TYPES.get(port.get_element_type().get_type_name(), "another type"),
    )
