"""Networks as other people's tools write them: what they answer is read right, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from deeplab import Segmenter, cli
from deeplab.errors import InputError, ModelError
from deeplab.runtimes import Variant, describe, open_network
from deeplab.runtimes.network_card import NORMALISATIONS, read_normalisation
from tiny_folder import make_folder
from tiny_tflite import Graph, tiny_network

SIDE = 9
WEIGHTS = np.random.default_rng(0).normal(size=(4, 1, 1, 3)).astype(np.float32)
FRAME = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
LOGITS = (FRAME / np.float32(127.5) - 1) @ WEIGHTS[:, 0, 0].T
LABELS = "background\na\nb\nc\n"


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def write(path: Path, build: Graph, picture: int, *outputs: int) -> Path:
    path.write_bytes(build.finish([picture], outputs))
    return path


def one_channel(path: Path, kind: str) -> Path:
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    last = build.convolve(picture, WEIGHTS[:1])
    if kind != "logits":
        last = build.step("LOGISTIC", last)
    if kind == "bytes":
        last = build.step("QUANTIZE", last, kind=schema.TensorType.UINT8, scale=1 / 255)
    return write(path, build, picture, last)


# --- what the numbers mean --------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["litert", "openvino"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "bytes"])
def test_one_channel_is_background_and_object(tmp_path: Path, kind: str, engine: str) -> None:
    path = one_channel(tmp_path / "one.tflite", kind)
    segmenter = Segmenter(path, runtime=engine, fit="stretch", exact=True)
    assert segmenter.labels.names == ("background", "object")
    result = segmenter(FRAME)
    probability = 1 / (1 + np.exp(-LOGITS[..., 0]))
    sure = np.abs(probability - 0.5) > 0.01
    assert (result.mask == (probability > 0.5))[sure].all()
    np.testing.assert_allclose(result.probability("object"), probability, atol=0.005)
    kinds = "logits" if kind == "logits" else "probabilities"
    assert f"one channel as {kinds}" in segmenter.card.assumed["output"]
    assert "labels" in segmenter.card.assumed


def test_one_name_is_the_objects_and_three_are_too_many(tmp_path: Path) -> None:
    path = one_channel(tmp_path / "one.tflite", "logits")
    names = tmp_path / "names.txt"
    names.write_text("hair\n")
    assert Segmenter(path, labels=names).labels.names == ("background", "hair")
    names.write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"labels: got 3 names, but .* has one channel"):
        Segmenter(path, labels=names)


@pytest.mark.parametrize("engine", ["litert", "openvino"])
def test_a_softmax_inside_is_not_taken_twice(tmp_path: Path, engine: str) -> None:
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    last = build.step("SOFTMAX", build.convolve(picture, WEIGHTS))
    path = write(tmp_path / "soft.tflite", build, picture, last)
    (tmp_path / "labels.txt").write_text(LABELS)
    segmenter = Segmenter(path, labels=tmp_path / "labels.txt", runtime=engine, fit="stretch")
    result = segmenter(FRAME)
    assert (result.mask == LOGITS.argmax(-1)).all()
    np.testing.assert_allclose(result.probability("b"), softmax(LOGITS)[..., 2], atol=1e-5)


def test_a_map_of_ids_is_no_confidence(tmp_path: Path) -> None:
    path = tmp_path / "map.tflite"
    path.write_bytes(tiny_network(argmax=True))
    assert describe(path).card.num_classes == 4


# --- where they lie ---------------------------------------------------------------------------


@pytest.mark.parametrize(("first_in", "first_out"), [(True, True), (False, True)])
def test_channels_that_come_first(tmp_path: Path, first_in: bool, first_out: bool) -> None:
    build = Graph(SIDE)
    picture = build.tensor((1, 3, SIDE, SIDE) if first_in else (1, SIDE, SIDE, 3))
    inside = build.convolve(build.turn(picture, (0, 2, 3, 1)) if first_in else picture, WEIGHTS)
    last = build.turn(inside, (0, 3, 1, 2)) if first_out else inside
    path = write(tmp_path / "first.tflite", build, picture, last)
    for engine in ("litert", "openvino"):
        network = open_network(path, runtime=engine, threads=1)
        assert network.num_classes == 4
        np.testing.assert_allclose(network(FRAME), LOGITS, atol=1e-5)


def test_of_several_outputs_one_is_taken_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    main, other = build.convolve(picture, WEIGHTS), build.convolve(picture, WEIGHTS[::-1].copy())
    build.graph.tensors[main].name, build.graph.tensors[other].name = b"main", b"aux"
    path = write(tmp_path / "two.tflite", build, picture, other, main)
    for asked, wanted in ((None, LOGITS), ("main", LOGITS), ("aux", LOGITS[..., ::-1])):
        network = open_network(path, threads=1, output_name=asked)
        np.testing.assert_allclose(network(FRAME), wanted, atol=1e-5)
    with pytest.raises(InputError, match=r"no output 'mian'.*'main'.*It has: aux, main"):
        describe(path, output_name="mian")
    (tmp_path / "labels.txt").write_text(LABELS)
    Image.fromarray(FRAME).save(tmp_path / "photo.png")
    command = ["segment", str(tmp_path / "photo.png"), "-m", str(path), "--save", "mask"]
    command += ["--labels", str(tmp_path / "labels.txt"), "-o", str(tmp_path / "out")]
    assert cli.run(command) == 0
    assert "output 'main' of several (--output-name takes 'aux')" in capsys.readouterr().err
    assert cli.run([*command, "--output-name", "aux", "--overwrite"]) == 0
    assert "--output-name" not in capsys.readouterr().err


def test_a_file_of_any_size_is_given_one(tmp_path: Path) -> None:
    fixed, free = tmp_path / "fixed.tflite", tmp_path / "free.tflite"
    weights = np.concatenate([WEIGHTS, WEIGHTS[:1]])
    for path, side in ((fixed, SIDE), (free, 1)):
        build = Graph(SIDE)
        picture, last = build.tensor((1, side, side, 3)), build.tensor((1, side, side, 5))
        if path is free:
            build.graph.tensors[picture].shapeSignature = [1, -1, -1, 3]
            build.graph.tensors[last].shapeSignature = [1, -1, -1, 5]
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = 1
        bias = build.tensor((5,), values=np.zeros(5, np.float32))
        inputs = [picture, build.tensor(weights.shape, values=weights), bias]
        build.operator("CONV_2D", inputs, [last], options)
        write(path, build, picture, last)
    with pytest.raises(InputError, match=r"takes pictures of any size .*--size 513"):
        describe(free)
    network = open_network(free, threads=1, variant=Variant(size=(SIDE, SIDE)))
    assert (network(FRAME) == open_network(fixed, threads=1)(FRAME)).all()
    with pytest.raises(InputError, match="which 'openvino' cannot"):
        describe(free, runtime="openvino", variant=Variant(size=(SIDE, SIDE)))
    with pytest.raises(InputError, match=r"got 5×5, but .*fixed\.tflite takes 9×9 only"):
        describe(fixed, variant=Variant(size=(5, 5)))


def test_files_for_the_edge_tpu_are_named(tmp_path: Path) -> None:
    build = Graph(SIDE)
    picture, last = build.tensor((1, SIDE, SIDE, 3)), build.tensor((1, SIDE, SIDE, 4))
    build.operator("CUSTOM", [picture], [last])
    build.model.operatorCodes[0].customCode = b"edgetpu-custom-op"
    path = write(tmp_path / "model_edgetpu.tflite", build, picture, last)
    with pytest.raises(ModelError, match="is compiled for the Edge TPU"):
        describe(path)


# --- ONNX -------------------------------------------------------------------------------------


def write_onnx(path: Path, *, ending: str | None, outputs: int = 1, classes: int = 4) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    shape = [1, classes, SIDE, SIDE]
    nodes, answers = [], []
    for number in range(outputs):
        name = "out" if number == outputs - 1 else f"aux{number}"
        weights = "w" if number == outputs - 1 else "v"
        nodes.append(helper.make_node("Conv", ["x", weights], [name + "_" if ending else name]))
        if ending:
            axis = {"axis": 1} if ending == "Softmax" else {}
            nodes.append(helper.make_node(ending, [name + "_"], [name], **axis))
        answers.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    values = WEIGHTS[:classes].transpose(0, 3, 1, 2)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        answers,
        [numpy_helper.from_array(values, "w"), numpy_helper.from_array(-values, "v")],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("ending", [None, "Sigmoid"])
def test_one_channel_of_onnx(tmp_path: Path, engine: str, ending: str | None) -> None:
    path = write_onnx(tmp_path / "one.onnx", ending=ending, classes=1)
    segmenter = Segmenter(path, runtime=engine, normalisation="-1..1", fit="stretch")
    result = segmenter(FRAME)
    probability = 1 / (1 + np.exp(-LOGITS[..., 0]))
    assert (result.mask == (probability > 0.5)).all()
    np.testing.assert_allclose(result.probability("object"), probability, atol=1e-4)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_several_outputs_and_a_softmax_of_onnx(tmp_path: Path, engine: str) -> None:
    path = write_onnx(tmp_path / "two.onnx", ending="Softmax", outputs=2)
    told = {"runtime": engine, "normalisation": NORMALISATIONS["-1..1"]}
    card = describe(path, **told).card
    assert card.softmaxed
    assert "output 'out' of several" in card.assumed["output"]
    np.testing.assert_allclose(
        open_network(path, threads=1, **told)(FRAME), softmax(LOGITS), atol=1e-4
    )
    other = open_network(path, threads=1, output_name="aux0", **told)(FRAME)
    np.testing.assert_allclose(other, softmax(-LOGITS), atol=1e-4)


# --- what is told and assumed -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("imagenet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ("-1..1", (127.5,) * 3, (127.5,) * 3),
        ("0/255", (0,) * 3, (255,) * 3),
        ("123,116,103/1", (123, 116, 103), (1,) * 3),
        ("0.485,0.456,0.406/0.229,0.224,0.225", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ("0.5/0.5", (127.5,) * 3, (127.5,) * 3),
    ],
)
def test_normalisations_are_read(
    text: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    found = read_normalisation(text)
    np.testing.assert_allclose(found, (mean, std))


@pytest.mark.parametrize("text", ["", "image", "1,2/3", "0/1", "5/0", "nan/1", "1/2/3", "a,b,c/1"])
def test_other_words_are_no_normalisation(text: str) -> None:
    with pytest.raises(InputError, match="normalisation: "):
        read_normalisation(text)


def test_commands_say_what_they_assumed_and_take_what_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(tiny_network(classes=3))
    data = make_folder(tmp_path / "data", pairs=5)
    labels = ["--labels", str(data / "labels.txt")]
    told = [*labels, "--normalisation", "0..1", "--fit", "stretch"]
    photo = str(data / "images" / "p00.jpg")
    for command in (["info", str(path)], ["evaluate", str(path), str(data)],
                    ["segment", photo, "-m", str(path), "-o", str(tmp_path / "out")]):  # fmt: skip
        assert cli.run([*command, *labels]) == 0
        spoken = capsys.readouterr()
        assert "pixels scaled to -1..1 (--normalisation" in spoken.out + spoken.err
        more = ["--overwrite"] if command[0] == "segment" else []
        assert cli.run([*command, *told, *more]) == 0
        spoken = capsys.readouterr()
        assert "assumed" not in spoken.out + spoken.err
    quick = ["--num-runs", "1", "--min-secs", "0", "--warmup-min-secs", "0", "--photos", photo]
    assert cli.run(["benchmark", str(path), *told, *quick]) == 0
    assert cli.run(["segment", photo, "-m", "voc", "-o", str(tmp_path / "voc")]) == 0
    assert "assumed" not in capsys.readouterr().err


def test_info_describes_files_of_every_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_onnx(tmp_path / "net.onnx", ending=None)
    assert cli.run(["info", str(path)]) == 2
    assert "--normalisation imagenet, 0..1" in capsys.readouterr().err
    assert cli.run(["info", str(path), "--normalisation", "imagenet"]) == 0
    told = capsys.readouterr().out
    assert "frame: 9×9" in told
    assert "normalisation: imagenet" in told
    assert "answer: logits of 4 classes" in told
