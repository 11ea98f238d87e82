"""Run ``.onnx`` files with ONNX Runtime, on the CPU or by the provider of another device."""

from __future__ import annotations

import importlib.util
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.errors import MissingExtraError, ModelError
from deeplab.runtimes.answers import TensorInfo, last_line
from deeplab.runtimes.devices import CPU, Device, Place, cannot_run
from deeplab.runtimes.network import CardNetwork, Float32, Frame, UInt8
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

_CUDA = "an NVIDIA GPU with its driver, and onnxruntime-gpu in the place of onnxruntime"
_COREML = "macOS, whose onnxruntime comes with Core ML"
_OPENVINO = "Intel's hardware, and onnxruntime-openvino in the place of onnxruntime"

_PROVIDERS: dict[str, tuple[tuple[str, dict[str, str], str], ...]] = {
    "gpu": (
        ("CUDAExecutionProvider", {}, _CUDA),
        ("MIGraphXExecutionProvider", {}, "an AMD GPU, and onnxruntime-migraphx"),
        ("DmlExecutionProvider", {}, "Windows, and onnxruntime-directml"),
        ("CoreMLExecutionProvider", {"MLComputeUnits": "CPUAndGPU"}, _COREML),
        ("OpenVINOExecutionProvider", {"device_type": "GPU"}, _OPENVINO),
        ("WebGpuExecutionProvider", {}, "a GPU, and onnxruntime-webgpu"),
    ),
    "npu": (
        ("QNNExecutionProvider", {}, "a Snapdragon, and onnxruntime-qnn"),
        ("CoreMLExecutionProvider", {"MLComputeUnits": "CPUAndNeuralEngine"}, _COREML),
        ("OpenVINOExecutionProvider", {"device_type": "NPU"}, _OPENVINO),
    ),
    "cuda": (("CUDAExecutionProvider", {}, _CUDA),),
    "mps": (("CoreMLExecutionProvider", {"MLComputeUnits": "CPUAndGPU"}, _COREML),),
    "tensorrt": (("TensorrtExecutionProvider", {}, f"TensorRT (tensorrt-cu12) beside {_CUDA}"),),
}
"""Device -> the providers that reach it, the first one that is built in is taken: its name, its
options, and what it needs.

Source: onnxruntime.ai, "Execution Providers".
"""

_WITH_NUMBER = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider",
                "MIGraphXExecutionProvider")  # fmt: skip
"""Providers that take the number of the GPU."""


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
    device: Device = CPU,
    **told: Unpack[Told],
) -> OnnxNetwork:
    """Open an ``.onnx`` file.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        card: what :func:`describe` found; None asks it.
        device: see :func:`find_places`.
        **told: see :func:`describe`.

    Raises:
        As :func:`describe`.
    """
    card = card or describe(path, **told)
    session = _open_session(Path(path), threads=threads, optimise=True, device=device)
    return OnnxNetwork(card, session, device)


def find_places() -> list[Place]:
    """Return the devices that ONNX Runtime knows, and whether the one installed reaches them.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    built_in = _import_runtime().get_available_providers()
    places = [Place(device=CPU, name="CPUExecutionProvider", here=True)]
    for kind, providers in _PROVIDERS.items():
        name, _, cure = next((one for one in providers if one[0] in built_in), providers[0])
        if kind in ("gpu", "npu") and name not in built_in:
            cure = "; or ".join(dict.fromkeys(one[2] for one in providers))
        # Which GPUs there are, only opening a file tells.
        here = None if name in built_in else False
        places.append(Place(device=Device(kind), name=name, here=here, cure=cure))
    return places


class OnnxNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in ONNX Runtime."""

    def __init__(self, network: PhotoNetwork, session: Any, device: Device = CPU) -> None:
        super().__init__(network)
        self.network = network
        self._device = device
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[network.output_index].name

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run one (height, width, 3) uint8 RGB frame."""
        batch = self.network.feed(frame)
        try:
            (fetched,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # ONNX Runtime's errors have no common base
            if self._device != CPU:
                raise cannot_run(self.network.name, "ONNX Runtime", self._device, error) from error
            raise ModelError(
                f"{self.network.name}: ONNX Runtime cannot run this network on "
                f"{frame.shape[0]}×{frame.shape[1]} pixels. ({last_line(error)})"
            ) from error
        return self.network.answer(fetched)


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "Running .onnx files", package="onnxruntime", extra="onnx"
        ) from error
    return onnxruntime


def _open_session(path: Path, *, threads: int, optimise: bool, device: Device = CPU) -> Any:
    onnxruntime = _import_runtime()
    check_file(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings are about what its optimiser leaves
    if not optimise:  # only to look at its inputs and outputs
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != CPU:
        options.log_severity_level = 4  # what goes wrong is said below
        providers.insert(0, _choose_provider(onnxruntime, device))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if device != CPU and session.get_providers()[0] != providers[0][0]:
            # It says so in its log and takes the CPU.
            raise RuntimeError(f"{providers[0][0]} does not start here: driver or libraries fail")
        return session
    except Exception as error:  # ONNX Runtime's errors have no common base
        if device != CPU:
            raise cannot_run(path.name, "ONNX Runtime", device, error) from error
        raise ModelError(
            f"{path.name}: ONNX Runtime cannot run this file; it is damaged, no ONNX model, or "
            f"newer than this ONNX Runtime. ({last_line(error)})"
        ) from error


def _choose_provider(onnxruntime: Any, device: Device) -> tuple[str, dict[str, str]]:
    built_in = onnxruntime.get_available_providers()
    name, options, _ = next(one for one in _PROVIDERS[device.kind] if one[0] in built_in)
    return name, {**options, **({"device_id": str(device.index)} if name in _WITH_NUMBER else {})}


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
