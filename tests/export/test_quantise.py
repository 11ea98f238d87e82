from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("ai_edge_quantizer")


from pairs import CONFIG, PHOTOS, write_pair  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import InputError  # noqa: E402
from deeplab.export import export, quantise, sensitivity  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.tflite import file as tflite_file  # noqa: E402
from tiny_tflite import Builder, schema  # noqa: E402

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@pytest.fixture
def run(pair, tmp_path, convert_once):
    def run_one(**given: object):
        return export(
            pair, file=tmp_path / "net.tflite", precision="int8", calibrate=PHOTOS, allow=True,
            overwrite=True, **given,
        )  # fmt: skip

    return run_one


def test_everything_is_int8_but_what_goes_in_and_out(run):
    found = run()
    file = tflite_file.read(found.file)
    layers = [op for op in file.operators if op.name in CONVOLUTIONS]
    assert len(layers) == 59
    for layer in layers:
        data, weight, bias = (file.tensors[i] for i in layer.inputs)
        assert (data.type, weight.type, bias.type) == ("INT8", "INT8", "INT32")
        channels = weight.shape[3 if layer.name == "DEPTHWISE_CONV_2D" else 0]
        assert len(weight.quantization.scale) == channels
        assert not weight.quantization.zero_point.any()
    computed = [tensor for tensor in file.tensors if not tensor.is_constant]
    real = [tensor.name for tensor in computed if tensor.type == "FLOAT32"]
    assert real == ["image", file.tensors[file.outputs[0]].name]
    assert found.certificate.int8_tensors == len(layers) + len(computed) - len(real)
    assert found.file.stat().st_size < 0.5 * found.certificate.weights_bytes
    assert [one.photos for one in found.certificate.rounds] == [len(PHOTOS)] * 2


def test_equal_zero_points_are_stored_once(run):
    graph = schema.Model.GetRootAs(run().file.read_bytes()).Subgraphs(0)
    places: dict[bytes, set[int]] = {}
    for index in range(graph.TensorsLength()):
        parameters = graph.Tensors(index).Quantization()
        if parameters is not None and parameters.ZeroPointLength():
            table = parameters._tab
            content = parameters.ZeroPointAsNumpy().tobytes()
            places.setdefault(content, set()).add(table.Vector(table.Offset(10)))
    assert len(places) > 10
    assert all(len(found) == 1 for found in places.values())


def test_the_pictures_values_are_the_integers(run):
    file = tflite_file.read(run().file)
    first = next(op for op in file.operators if op.name == "QUANTIZE")
    stored = file.tensors[first.outputs[0]].quantization
    values = (np.arange(256) - 127.5) / 127.5
    integers = np.round(values / stored.scale[0] + stored.zero_point[0])
    assert len({*integers}) >= 255  # zero is an integer, and lies between 127 and 128
    assert (integers.min(), integers.max()) in {(-128, 126), (-128, 127), (-127, 127)}


def test_integers_in_and_out(run, tmp_path):
    real = run()
    mask = Segmenter(real.file)(PHOTOS[0]).mask
    found = run(integer_io=True)
    file = tflite_file.read(found.file)
    assert {file.tensors[i].type for i in (*file.inputs, *file.outputs)} == {"INT8"}
    assert not [op for op in file.operators if op.name in ("QUANTIZE", "DEQUANTIZE")]
    assert (Segmenter(found.file)(PHOTOS[0]).mask == mask).mean() > 0.99


def test_the_argmax_is_over_integers(pair, run):
    file = tflite_file.read(run(output="mask", size=(65, 97), output_stride=8).file)
    argmax = next(op for op in file.operators if op.name == "ARG_MAX")
    assert file.tensors[argmax.inputs[0]].type == "INT8"
    assert "DEQUANTIZE" not in {op.name for op in file.operators}
    assert file.tensors[file.outputs[0]].type == "UINT8"


def test_of_a_mirrored_picture_the_integers_are_turned(tmp_path):
    file, photo, segment = export_mirrored(tmp_path, scale=1.0)
    first = next(op for op in file.operators if op.name == "REVERSE_V2")
    assert file.producer(first.inputs[0]).name == "QUANTIZE"
    assert (segment(photo).mask == segment(photo[:, ::-1]).mask[:, ::-1]).mean() > 0.98


def test_of_two_scales_the_weights_are_shared(tmp_path):
    file, photo, segment = export_mirrored(tmp_path, scale=0.6)
    layers = [op for op in file.operators if op.name in CONVOLUTIONS]
    weights = {op.inputs[1] for op in layers}
    assert 2 * len(weights) == len(layers)
    assert {file.tensors[index].type for index in weights} == {"INT8"}
    real = Segmenter(tmp_path / "tiny.safetensors")
    assert (segment(photo).mask == real(photo).mask).mean() > 0.95


def test_a_layer_stays_float_at_both_scales(tmp_path):
    kept = "backbone.blocks.0.depthwise"
    file, *_ = export_mirrored(tmp_path, scale=0.6, keep_float=[kept])
    layers = [op for op in file.operators if op.name in CONVOLUTIONS]
    float_layers = [op for op in layers if file.tensors[op.inputs[1]].type == "FLOAT32"]
    assert [file.tensors[op.outputs[0]].name for op in float_layers] == [kept, f"{kept}:2"]


def export_mirrored(folder, *, scale, **given):
    """Return an int8 file that looks at the mirrored photo too, a photo, and what runs it."""
    pair = write_pair(folder, dataclasses.replace(CONFIG, mirror_scale=scale))
    found = export(pair, precision="int8", calibrate=PHOTOS, allow=True, **given)
    file = tflite_file.read(found.file)
    turns = [op for op in file.operators if op.name == "REVERSE_V2"]
    assert len(turns) == 2
    assert {file.tensors[i].type for op in turns for i in (op.inputs[0], op.outputs[0])} == {"INT8"}
    assert [op.name for op in file.operators].count("DEQUANTIZE") == (3 if given else 1)
    return file, np.asarray(Image.open(PHOTOS[0]))[:, :400], Segmenter(found.file)


def test_named_layers_stay_float(run):
    kept = ["logits", "backbone.blocks.0.depthwise"]
    found = run(keep_float=kept)
    assert found.certificate.kept_float == tuple(kept)
    file = tflite_file.read(found.file)
    layers = [op for op in file.operators if op.name in CONVOLUTIONS]
    float_layers = [op for op in layers if file.tensors[op.inputs[1]].type == "FLOAT32"]
    names = [file.tensors[op.outputs[0]].name for op in float_layers]
    assert names == ["backbone.blocks.0.depthwise", "logits"]


def test_a_layer_that_is_not_there(run, tmp_path):
    with pytest.raises(InputError, match=r"Did you mean 'backbone\.stem'"):
        run(keep_float=["backbone.stm"])
    assert not [*tmp_path.iterdir()]


# --- the parts, on a small graph -------------------------------------------------------------


def make_graph(*, coarse: bool) -> bytes:
    """Return a graph in which every class wins somewhere, see ``_build``."""
    means = answers(_build(coarse, np.zeros(4)), make_frames()).mean((0, 1, 2))
    return _build(coarse, -means)


def _build(coarse: bool, last_bias: np.ndarray) -> bytes:
    """Return three 1×1 convolutions with ReLU6, ReLU6 and none; a coarse one spoils integers.

    The largest weight of each of its channels sees nothing, and leaves coarse steps to the others.
    """
    rng = np.random.default_rng(0)
    build = Builder()
    last = picture = build.tensor((1, 24, 24, 3))
    build.graph.tensors[picture].name = b"image"
    for name, shape, activation in (
        ("first", (8, 3), 3),
        ("second", (8, 8), 3),
        ("last", (4, 8), 0),
    ):
        weights = rng.normal(0, 0.6, shape).astype(np.float32)
        bias = rng.uniform(0.5, 2.5, shape[0]).astype(np.float32)
        if name == "second" and coarse:
            weights[:, 0] = 60
        if name == "first":
            bias[0] = -9  # behind the ReLU: 0
        if name == "last":
            bias = last_bias.astype(np.float32)
        answer = build.tensor((1, 24, 24, shape[0]))
        build.graph.tensors[answer].name = name.encode()
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
        options.fusedActivationFunction = activation
        stored = [build.tensor((shape[0], 1, 1, shape[1]), values=weights)]
        stored.append(build.tensor(bias.shape, values=bias))
        build.operator("CONV_2D", [last, *stored], [answer], options)
        last = answer
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
    signature.inputs[0].name, signature.inputs[0].tensorIndex = b"image", picture
    signature.outputs[0].name, signature.outputs[0].tensorIndex = b"last", last
    build.model.signatureDefs = [signature]
    return build.finish([picture], [last])


def make_frames(count: int = 6):
    rng = np.random.default_rng(1)
    return [rng.uniform(-1, 1, (1, 24, 24, 3)).astype(np.float32) for _ in range(count)]


def answers(content: bytes, frames) -> np.ndarray:
    return np.stack([sensitivity._answer(content, frame) for frame in frames])


def test_correcting_biases_takes_shifts_out():
    content, frames = make_graph(coarse=True), make_frames()
    ranges = quantise.measure_ranges(content, frames)
    small = quantise.quantise(content, ranges, keep_float=(), integer_io=False)
    better = quantise.correct_biases(content, small, frames)
    expected = answers(content, frames).mean((0, 1, 2))
    shift = [abs(answers(one, frames).mean((0, 1, 2)) - expected) for one in (small, better)]
    assert shift[0].max() > 0.2
    assert shift[1].max() < 0.2 * shift[0].max()
    assert tflite_file.parse(better).operators[-1].name == "DEQUANTIZE"


def spread_of_channels(content: bytes, frames) -> float:
    seen: list[np.ndarray] = []
    quantise._run(content, frames, ["first"], lambda _, values: seen.append(values.max((0, 1, 2))))
    peaks = np.max(seen, 0)[1:]  # the first channel is always 0
    return peaks.max() / peaks.min()


def test_channels_are_made_alike_and_the_answer_stays():
    content, frames = make_graph(coarse=False), make_frames()
    equal = quantise.equalise(content, frames)
    expected = answers(content, frames)
    np.testing.assert_allclose(answers(equal, frames), expected, rtol=1e-4, atol=1e-4)
    assert spread_of_channels(equal, frames) < 0.8 * spread_of_channels(content, frames)
    errors = []
    for one in (content, equal):
        ranges = quantise.measure_ranges(one, frames)
        small = quantise.quantise(one, ranges, keep_float=(), integer_io=False)
        errors.append(np.abs(answers(small, frames) - expected).mean())
    assert errors[1] < errors[0]


def test_a_filter_keeps_its_sum():
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-127, 127, (1, 3, 3, 200))
    wanted[..., 0] = 127
    rounded = quantise._round_with_sum(wanted)
    assert rounded.dtype == np.int8
    assert np.abs(rounded - wanted).max() < 1
    sums = [(one - wanted).sum((0, 1, 2)) for one in (np.round(wanted), rounded)]
    assert np.abs(sums[0]).max() > 1.5
    assert np.abs(sums[1]).max() <= 0.5


def test_the_layer_that_loses_most_is_found():
    frames, labels = make_frames(), LabelSet(("a", "b", "c", "d"))
    content = make_graph(coarse=True)
    ranges = quantise.measure_ranges(content, frames)
    assert "second" in sensitivity.find_sensitive(content, ranges, frames, labels=labels)
    content = make_graph(coarse=False)
    ranges = quantise.measure_ranges(content, frames)
    assert sensitivity.find_sensitive(content, ranges, frames, labels=labels) == ()


def test_ranges_are_of_what_is_computed_only():
    content, frames = make_graph(coarse=False), make_frames(3)
    ranges = quantise.measure_ranges(content, frames)
    assert {*ranges} == {"image", "first", "second", "last"}
    assert ranges["first"]["min"].item() == 0
    assert ranges["first"]["max"].item() <= 6
    assert ranges["last"]["min"].item() < answers(content, frames).min(axis=(1, 2, 3)).mean()
