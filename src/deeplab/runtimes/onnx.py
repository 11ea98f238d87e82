"""Run ``.onnx`` files with ONNX Runtime, on the CPU."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from deeplab.errors import MissingExtraError, ModelError
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import (
    PhotoEngine,
    PhotoNetwork,
    TensorInfo,
    check_file,
    last_line,
    understand,
)

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    size: tuple[int, int] | None = None,
) -> OnnxNetwork:
    """Open an ``.onnx`` file: one that ``deeplab export`` wrote, or another segmentation network.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        normalisation: see :func:`deeplab.runtimes.photo_network.understand`.
        assume: likewise.
        size: likewise.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, no segmentation network, or ONNX Runtime cannot run it.
        InputError: an argument does not fit the file, or is missing.
        MissingExtraError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "Running .onnx files", package="onnxruntime", extra="onnx"
        ) from error
    path = Path(path)
    check_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings are about what its optimiser leaves
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelError(
            f"{path.name}: ONNX Runtime cannot run this file; it is damaged, no ONNX model, or "
            f"newer than this ONNX Runtime. ({last_line(error)})"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {len(inputs)} inputs and {len(outputs)} "
            "outputs, expected one of each."
        )
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    network = understand(
        path,
        _tensor(inputs[0]),
        _tensor(outputs[0]),
        card=NetworkCard.from_json(text, name=path.name) if text else None,
        normalisation=normalisation,
        assume=assume,
        size=size,
    )
    return OnnxNetwork(network, session)


class OnnxNetwork(PhotoEngine):
    """A :class:`deeplab.runtimes.Network` in ONNX Runtime."""

    def __init__(self, network: PhotoNetwork, session: Any) -> None:
        super().__init__(network)
        self._session = session
        self._input = session.get_inputs()[0].name

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        (fetched,) = self._session.run(None, {self._input: self.network.feed(frame)})
        return self.network.answer(fetched)


def _tensor(info: Any) -> TensorInfo:
    return TensorInfo(
        shape=tuple(side if isinstance(side, int) else None for side in info.shape),
        type=_TYPES.get(info.type) or info.type.removeprefix("tensor(").removesuffix(")"),
    )
