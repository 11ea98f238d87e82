from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab import zoo
from deeplab.errors import ModelError, WeightsError
from deeplab.models import DeepLab, build
from deeplab.models.count import count_network
from deeplab.tflite import file as tflite_file
from deeplab.tflite.file import Operator, Quantization, Tensor, TfliteFile
from deeplab.weights import import_file, load, load_with_report, open_release
from deeplab.weights.release import labels_of
from deeplab.weights.tflite import from_tflite, read_tflite
from deeplab.weights.tflite_backbones import walk_backbone
from deeplab.weights.tflite_head import walk_head
from deeplab.weights.tflite_walk import Walk, rate_of, stride_of

ROOT = Path(__file__).parents[2]
PHOTOS, RESULTS = ROOT / "examples" / "photos", ROOT / "docs" / "results"
STARTER = "models/deeplabv3_257_mv_gpu.tflite"
CLASSIFIER = "models/mobilenet_v2_1.0_224_quant.tflite"
EDGETPU = "models/deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"


def _network(path: Path) -> DeepLab:
    config, state = load(path)
    return build(config, state).eval()


def _photo(path: Path, side: int) -> np.ndarray:
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _run(network: DeepLab, image: np.ndarray) -> np.ndarray:
    """Return logits at the size of the image, (H, W, K)."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(image).permute(2, 0, 1)[None])
        return network.upsample(logits, image.shape[:2])[0].permute(1, 2, 0).numpy()


def _litert(path: Path, image: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


@pytest.mark.reference
@pytest.mark.parametrize("name", ["deeplabv3_257_mv_gpu.tflite", "deeplabv3_with_metadata.tflite"])
def test_the_starter_model_gives_the_golden_mask_and_litert_s_logits(reference: Path, name: str):
    image = _photo(reference / "golden/segmentation_input_rotation0.jpg", 257)
    golden = np.array(Image.open(reference / "golden/segmentation_golden_rotation0.png"))
    path = reference / "models" / name
    logits = _run(_network(path), image)
    np.testing.assert_array_equal(logits.argmax(-1) * 10, golden)
    expected = _litert(path, (image - 127.5) / 127.5)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("deeplabv3_mnv2_dm05_pascal_quant.tflite", 0.98),
        ("deeplabv3_mnv2_pascal_quant.tflite", 0.985),
    ],
)
def test_integer_models_agree_with_litert(reference: Path, name: str, share: float):
    image = _photo(reference / "golden/dog_segmentation.bmp", 513)
    path = reference / "models" / name
    mask = _run(_network(path), image).argmax(-1)
    expected = _litert(path, image)
    assert (mask == expected).mean() >= share
    assert (expected == 12).mean() > 0.3  # the dog is there: agreeing on nothing is no merit


@pytest.mark.reference
def test_what_the_files_say_becomes_the_configuration(reference: Path):
    starter, _ = load(reference / STARTER)
    assert (starter.output_stride, starter.depth_multiplier) == (8, 0.5)
    assert starter.image_pooling_crop_size == (257, 257)
    assert starter.align_corners
    integer, _ = load(reference / "models/deeplabv3_mnv2_pascal_quant.tflite")
    assert (integer.output_stride, integer.depth_multiplier) == (16, 1.0)
    # The file's own input: zero point 128, scale 1/128.
    assert integer.pixel_mean == integer.pixel_std == (128.0,) * 3


@pytest.mark.reference
def test_an_imported_network_can_be_trained_on(reference: Path):
    network = _network(reference / STARTER).train()
    network(torch.rand(2, 3, 65, 65) * 255).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.reference
def test_a_classifier_gives_the_backbone_and_says_so(reference: Path):
    config, state, report = load_with_report(reference / CLASSIFIER)
    assert report.backbone_only
    assert all(key.startswith("backbone.") for key in state)
    assert all(not key.startswith("backbone.") for key in report.missing)
    assert any("Logits" in name for name in report.ignored)
    network = build(config).eval()
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    # The classifier's own features, before its last 1×1 convolution, from LiteRT.
    from ai_edge_litert.interpreter import Interpreter

    with pytest.warns(UserWarning, match="debugging"):
        interpreter = Interpreter(
            str(reference / CLASSIFIER), experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    image = _photo(reference / "golden/dog_segmentation.bmp", 224)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    file = tflite_file.read(reference / CLASSIFIER)
    last = [op for op in file.operators if op.name == "CONV_2D"][-2]
    expected = file.tensors[last.inputs[0]].dequantize(interpreter.get_tensor(last.inputs[0])[0])
    with torch.inference_mode():
        photo = network.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
        got = network.backbone(photo, 32)[0][0].permute(1, 2, 0).numpy()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.reference
def test_mobilenet_edgetpu_is_what_its_file_holds(reference: Path):
    config, _, report = load_with_report(reference / EDGETPU)
    assert (config.backbone, config.depth_multiplier) == ("mobilenet_edgetpu", 0.75)
    assert (config.output_stride, config.head_channels, config.num_classes) == (16, 128, 19)
    assert config.image_pooling_crop_size == (513, 513)
    assert config.pixel_mean == config.pixel_std == (128.0,) * 3
    assert config.align_corners
    assert not report.missing
    assert not report.ignored
    assert "found DeepLab v3 on mobilenet_edgetpu of depth multiplier 0.75, 19 classes" in str(
        report
    )
    assert "weights of uint8, dequantised per tensor" in str(report)
    count = count_network(config)
    assert count.folded_parameters == 2_055_379
    assert f"{count.macs / 1e9:.3f}" == "4.316"


@pytest.mark.reference
def test_mobilenet_edgetpu_agrees_with_litert_on_street_photos(reference: Path):
    # The file rounds every activation to 8 bits, which its 62 layers add up; measured on 30
    # photos: 0.938 to 0.977 of the pixels. The layers one by one are below.
    path = reference / EDGETPU
    network = _network(path)
    for photo in sorted((reference / "data/camvid/val").glob("*.jpg"))[::48]:
        image = _photo(photo, 513)
        mask, expected = _run(network, image).argmax(-1), _litert(path, image)
        assert (mask == expected).mean() >= 0.93
        assert len(np.unique(expected)) >= 8  # a street with all that belongs to it


@pytest.mark.reference
def test_each_layer_of_mobilenet_edgetpu_gives_what_litert_gives(reference: Path):
    """Each layer gets what the file's layer got: the answers differ by rounding, once."""
    from ai_edge_litert.interpreter import Interpreter

    path = reference / EDGETPU
    with pytest.warns(UserWarning, match="debugging"):
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    photo = sorted((reference / "data/camvid/val").glob("*.jpg"))[48]
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _photo(photo, 513)[None])
    interpreter.invoke()
    network, file = _network(path), tflite_file.read(path)
    walk = Walk(file)
    walk_head(walk, walk_backbone(walk))
    assert len(walk.layers) == 62
    for layer, operator in walk.layers.items():
        source, target = file.tensors[operator.inputs[0]], file.tensors[operator.outputs[0]]
        x, expected = (
            torch.from_numpy(tensor.dequantize(interpreter.get_tensor(tensor.index)))
            for tensor in (source, target)
        )
        with torch.inference_mode():
            module = network.get_submodule(layer)
            got = module(x.permute(0, 3, 1, 2), stride_of(operator), rate_of(operator))
        assert target.quantization is not None
        step, zero = float(target.quantization.scale[0]), int(target.quantization.zero_point[0])
        got = got.permute(0, 2, 3, 1).clamp(-zero * step, (255 - zero) * step)
        assert float((got - expected).abs().max()) <= 1.01 * step, layer


@pytest.mark.reference
def test_cut_and_damaged_files_are_errors_in_words(reference: Path, tmp_path: Path):
    content = (reference / STARTER).read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "cut.tflite"
    for length in (0, 4, 8, 20, *rng.integers(20, len(content), 12)):
        file.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.tflite"):
            read_tflite(file)


@pytest.mark.reference
def test_changed_bytes_give_a_network_or_an_error_in_words(reference: Path):
    name = "models/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    content = (reference / name).read_bytes()
    start = np.frombuffer(content, np.uint8).ctypes.data
    changeable = np.ones(len(content), bool)
    for tensor in tflite_file.parse(content).tensors:
        if len(tensor.buffer) > 64:  # another weight is not a damaged graph
            at = np.frombuffer(tensor.buffer, np.uint8).ctypes.data - start
            changeable[at : at + len(tensor.buffer)] = False
    rng = np.random.default_rng(0)
    refused = 0
    for places in rng.choice(np.flatnonzero(changeable), (40, 3)):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[places] = rng.integers(256, size=3)
        try:
            from_tflite(tflite_file.parse(damaged.tobytes()))
        except ModelError:
            refused += 1
    assert 10 < refused < 40


def _tensor(values: np.ndarray, type: str, quantization: Quantization | None = None) -> Tensor:
    return Tensor(0, "w", values.shape, type, quantization, memoryview(values.tobytes()))


def test_constants_are_dequantised_per_tensor_and_per_channel():
    stored = np.arange(-6, 6, dtype=np.int8).reshape(2, 3, 2)
    whole = Quantization(np.float32([0.5]), np.int64([2]), 0)
    got = _tensor(stored, "INT8", whole).dequantize()
    np.testing.assert_array_equal(got, (stored.astype(np.float32) - 2) * 0.5)
    channels = Quantization(np.float32([1, 10, 100]), np.int64([0, 1, 2]), 1)
    got = _tensor(stored, "INT8", channels).dequantize()
    for channel, (scale, zero) in enumerate([(1, 0), (10, 1), (100, 2)]):
        np.testing.assert_array_equal(
            got[:, channel], (stored[:, channel].astype(np.float32) - zero) * scale
        )
    half = _tensor(np.float16([1.5, 2]), "FLOAT16").dequantize()
    np.testing.assert_array_equal(half, np.float32([1.5, 2]))
    with pytest.raises(ModelError, match="expected 25 for shape"):
        dataclasses.replace(_tensor(stored, "INT8"), shape=(5, 5)).dequantize()
    for axis in (0, 3):
        wrong = dataclasses.replace(channels, axis=axis)
        with pytest.raises(ModelError, match=rf"3 scales along axis {axis} of shape"):
            _tensor(stored, "INT8", wrong).dequantize()


@pytest.mark.reference
def test_another_rate_or_order_is_refused(reference: Path):
    file = tflite_file.read(reference / STARTER)

    def changed(kind: str, edit, at: int = -1) -> TfliteFile:
        places = [i for i, op in enumerate(file.operators) if op.name == kind]
        operators = list(file.operators)
        operators[places[at]] = edit(operators[places[at]])
        return dataclasses.replace(file, operators=tuple(operators))

    def dilate(op: Operator) -> Operator:
        return dataclasses.replace(op, options={**op.options, "dilation_h_factor": 3})

    def swap(op: Operator) -> Operator:
        return dataclasses.replace(op, inputs=op.inputs[::-1])

    def add_to_itself(op: Operator) -> Operator:
        return dataclasses.replace(op, inputs=op.inputs[:1] * 2)

    assert from_tflite(file)[0].output_stride == 8
    with pytest.raises(WeightsError, match=r"blocks\.15: its input is added 0 times, expected 1"):
        from_tflite(changed("ADD", add_to_itself))
    with pytest.raises(WeightsError, match=r"blocks\.16\.depthwise has \(stride, rate\) \(1, 3\)"):
        from_tflite(changed("DEPTHWISE_CONV_2D", dilate))
    # The pooled image may come last, as other libraries have it.
    assert from_tflite(file)[0].pooling_first
    assert not from_tflite(changed("CONCATENATION", swap))[0].pooling_first


BUNDLED = ("voc", "voc-fast")


def _shipped(name: str) -> Path:
    return Path(zoo.__file__).parent / "bundled" / f"{name}.tflite"


@pytest.mark.parametrize("name", BUNDLED)
def test_the_shipped_files_become_the_network_they_were_made_from(name: str):
    """Two looks, a decoder, a pooled image that is added: nearer to its pair than the file is."""
    config, _, report = load_with_report(_shipped(name))
    pair = open_release(RESULTS / name / name)
    got, wanted = config.to_dict(), pair.config.to_dict()
    assert got.pop("mirror_scale") == pytest.approx(wanted.pop("mirror_scale"), abs=1e-3)
    assert got == wanted
    assert report.labels == pair.labels == labels_of(_shipped(name), config)
    assert report.input_spec == pair.input_spec
    assert not report.missing
    assert not report.ignored
    assert not report.assumed


@pytest.mark.parametrize("name", BUNDLED)
def test_the_shipped_files_give_the_masks_of_their_pair(name: str):
    networks = [_network(path) for path in (_shipped(name), RESULTS / name / name)]
    side = {"voc": 609, "voc-fast": 577}[name]
    for photo in sorted(PHOTOS.glob("*.jpg"))[1:4:2]:
        image = _photo(photo, side)
        with torch.inference_mode():
            batch = torch.from_numpy(image).permute(2, 0, 1)[None]
            back, pair = (network(batch)[0].permute(1, 2, 0).numpy() for network in networks)
        file = _litert(_shipped(name), (image / 127.5 - 1).astype(np.float32))
        assert (back.argmax(-1) == pair.argmax(-1)).mean() > 0.985
        assert (back.argmax(-1) == file.argmax(-1)).mean() > 0.985
        assert len(np.unique(pair.argmax(-1))) > 1
        assert np.abs(back - pair).mean() < np.abs(file - pair).mean()


def test_a_shipped_file_imports_as_a_pair_and_exports_again_as_it_was(tmp_path: Path):
    import_file(_shipped("voc-fast"), tmp_path / "mine")
    mine = open_release(tmp_path / "mine")
    assert mine.input_spec.height == 577
    assert mine.labels == open_release(RESULTS / "voc-fast" / "voc-fast").labels


@pytest.mark.parametrize("name", BUNDLED)
def test_the_weights_read_back_are_those_stored(name: str):
    """Each filter is a multiple of one step; the stored integers say which."""
    file = tflite_file.read(_shipped(name))
    walk = Walk(file)
    walk_head(walk, walk_backbone(walk))
    _, state = load(_shipped(name))
    for layer in walk.layers.keys() - {"head.project"}:
        key = f"{layer}.weight" if f"{layer}.weight" in state else f"{layer}.conv.weight"
        operator = walk.layers[layer]
        axes = (3, 0, 1, 2) if operator.name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
        stored = file.tensors[walk.weights(operator)].values.transpose(axes)
        ours, numbers = (x.reshape(len(stored), -1) for x in (state[key].numpy(), stored))
        step = np.abs(ours).max(1) / np.maximum(np.abs(numbers.astype(np.float32)).max(1), 1)
        np.testing.assert_allclose(ours, numbers * step[:, None], atol=1e-5 * np.abs(ours).max())
    assert {layer.split(".")[0] for layer in walk.layers} == {
        "backbone", "head", "decoder", "classifier",
    }  # fmt: skip


def test_a_second_look_that_is_none_is_refused():
    file = tflite_file.read(_shipped("voc"))
    last = max(op.index for op in file.operators if op.name == "REVERSE_V2")
    operators = list(file.operators)
    operators[last] = dataclasses.replace(
        operators[last], inputs=(operators[last].inputs[0], operators[last].inputs[0])
    )
    with pytest.raises(WeightsError, match="no mirrored second look"):
        from_tflite(dataclasses.replace(file, operators=tuple(operators)))
