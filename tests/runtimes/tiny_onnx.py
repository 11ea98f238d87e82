"""Networks of one convolution as .onnx files, ours and other people's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, save

from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import KEY, NetworkCard

STRIDE, CLASSES = 4, 3
LABELS = LabelSet(("ground", "cat", "dog"))
SPEC = InputSpec(height=9, width=13, mean=(120, 110, 100), std=(60, 50, 40), fit="stretch")
WEIGHTS = np.random.default_rng(0).normal(size=(CLASSES, 3)).astype(np.float32)

_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def expected(frame: np.ndarray) -> np.ndarray:
    """Return the logits of a frame by (x - 127.5) / 127.5, (h, w, K)."""
    return (frame[::STRIDE, ::STRIDE] / np.float32(127.5) - 1) @ WEIGHTS.T


def write_network(
    path: Path,
    *,
    channels_last: bool = True,
    input_type: str = "uint8",
    sides: tuple[int | str, int | str] = ("height", "width"),
    label_map: bool = False,
    card: NetworkCard | str | None = None,
    classes: int = CLASSES,
) -> Path:
    """Write a network; bytes are normalised inside, floating point comes normalised."""
    height, width = sides
    shape = [1, height, width, 3] if channels_last else [1, 3, height, width]
    image = helper.make_tensor_value_info("image", _TYPES[input_type], shape)
    nodes, x = [], "image"

    def step(operator: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    if input_type == "uint8":
        x = step("Cast", x, to=TensorProto.FLOAT)
        x = step("Sub", step("Div", x, "half"), "one")
    if channels_last:
        x = step("Transpose", x, perm=[0, 3, 1, 2])
    x = step("Conv", x, "weights", strides=[STRIDE, STRIDE])
    if label_map:
        x = step("ArgMax", x, axis=1, keepdims=0)
        x = step("Cast", x, to=TensorProto.UINT8)
    elif channels_last:
        x = step("Transpose", x, perm=[0, 2, 3, 1])
    kind = TensorProto.UINT8 if label_map else TensorProto.FLOAT
    rank = [1, None, None] if label_map else [1, None, None, classes]
    if not channels_last and not label_map:
        rank = [1, classes, None, None]
    weights = np.resize(WEIGHTS, (classes, 3, 1, 1)).astype(np.float32)
    constants = {"weights": weights, "half": np.float32(127.5), "one": np.float32(1)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [image],
        [helper.make_tensor_value_info(x, kind, rank)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return _write(path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), card)


def write_classifier(path: Path) -> Path:
    """Write a network that gives one number per class and photo."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["answer"], keepdims=0)
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = helper.make_graph([node], "classifier", [image], [answer], [axes])
    return _write(path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def make_card(*, labels: LabelSet = LABELS, any_size: bool = True) -> NetworkCard:
    """Return what a file of ours says of itself."""
    return NetworkCard(
        spec=SPEC, labels=labels, output="logits", align_corners=True, any_size=any_size
    )


def _write(path: Path, model: ModelProto, card: NetworkCard | str | None = None) -> Path:
    model.ir_version = 9
    if card is not None:
        entry = model.metadata_props.add()
        entry.key = KEY
        entry.value = card.to_json() if isinstance(card, NetworkCard) else card
    checker.check_model(model)
    save(model, path)
    return path
