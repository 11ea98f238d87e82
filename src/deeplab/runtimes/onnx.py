"""Run ``.onnx`` files with ONNX Runtime, on the CPU."""

from __future__ import annotations

import importlib.util
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.errors import MissingExtraError, ModelError
from deeplab.runtimes.answers import TensorInfo, last_line
from deeplab.runtimes.network import CardNetwork, Float32, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.runtimes.photo_network import (
    Ending,
    PhotoNetwork,
    check_file,
    understand,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deeplab.runtimes.network import Told

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}

_PASSING = ("Cast", "Identity", "Resize", "Transpose", "Upsample", "DequantizeLinear",
            "QuantizeLinear")  # fmt: skip
"""Steps behind which probabilities are still probabilities."""


def describe(path: str | PathLike[str], **told: Unpack[Told]) -> PhotoNetwork:
    """Find out how an ``.onnx`` file is run: one of ``deeplab export``, or of somebody else.

    Args:
        path: the file.
        **told: see :class:`~deeplab.runtimes.network.Told`.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is damaged, no segmentation network, or ONNX Runtime cannot run it.
        InputError: what was told does not fit the file, or is missing.
        MissingExtraError: ONNX Runtime is not installed.
    """
    path = Path(path)
    session = _open_session(path, threads=1, optimise=False)
    try:
        inputs = [_tensor(one) for one in session.get_inputs()]
        outputs = [_tensor(one) for one in session.get_outputs()]
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError as error:  # of names and words, which ONNX Runtime does not look at
        raise ModelError(f"{path.name}: its names are no text; it is damaged ({error}).") from None
    if len(inputs) != 1:
        raise ModelError(
            f"{path.name}: is not a DeepLab: it has {len(inputs)} inputs, expected one RGB picture."
        )
    return understand(
        path,
        inputs[0],
        outputs,
        card=NetworkCard.from_json(text, name=path.name) if text else None,
        endings=[] if text else _find_endings(path),
        **told,
    )


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: PhotoNetwork | None = None,
    **told: Unpack[Told],
) -> OnnxNetwork:
    """Open an ``.onnx`` file.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        card: what :func:`describe` found; None asks it.
        **told: see :func:`describe`.

    Raises:
        As :func:`describe`.
    """
    card = card or describe(path, **told)
    return OnnxNetwork(card, _open_session(Path(path), threads=threads, optimise=True))


class OnnxNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in ONNX Runtime."""

    def __init__(self, network: PhotoNetwork, session: Any) -> None:
        super().__init__(network)
        self.network = network
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[network.output_index].name

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        batch = self.network.feed(frame)
        try:
            (fetched,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ModelError(
                f"{self.network.name}: ONNX Runtime cannot run this network on "
                f"{frame.shape[0]}×{frame.shape[1]} pixels. ({last_line(error)})"
            ) from error
        return self.network.answer(fetched)


def _open_session(path: Path, *, threads: int, optimise: bool) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "Running .onnx files", package="onnxruntime", extra="onnx"
        ) from error
    check_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings are about what its optimiser leaves
    if not optimise:  # only to look at its inputs and outputs
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelError(
            f"{path.name}: ONNX Runtime cannot run this file; it is damaged, no ONNX model, or "
            f"newer than this ONNX Runtime. ({last_line(error)})"
        ) from error


def _find_endings(path: Path) -> list[Ending | None]:
    """Return what makes each output; ONNX Runtime itself does not show its graph."""
    if importlib.util.find_spec("onnx") is None:
        return []
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    endings: list[Ending | None] = []
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _PASSING:
            node = makers.get(node.input[0])
        made = node is not None and node.op_type in ("Softmax", "Sigmoid", "HardSigmoid")
        endings.append("probabilities" if made else "logits")
    return endings


def _tensor(info: Any) -> TensorInfo:
    return TensorInfo(
        shape=tuple(side if isinstance(side, int) else None for side in info.shape),
        type=_TYPES.get(info.type) or info.type.removeprefix("tensor(").removesuffix(")"),
        name=info.name,
    )
