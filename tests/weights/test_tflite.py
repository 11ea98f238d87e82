from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab.errors import WeightsError
from deeplab.models import DeepLab, build
from deeplab.weights import load, load_with_report
from deeplab.weights.tflite import from_tflite, read_tflite
from deeplab.weights.tflite_graph import Operator, Tensor, TFLiteGraph, parse_tflite

STARTER = "models/deeplabv3_257_mv_gpu.tflite"
CLASSIFIER = "models/mobilenet_v2_1.0_224_quant.tflite"


def _network(path: Path) -> DeepLab:
    config, state = load(path)
    network = build(config).eval()
    network.load_state_dict(state)
    return network


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
    graph = parse_tflite((reference / CLASSIFIER).read_bytes())
    last = [op for op in graph.operators if op.kind == "CONV_2D"][-2]
    tensor = graph.tensors[last.inputs[0]]
    assert tensor.scale is not None
    assert tensor.zero_point is not None
    stored = interpreter.get_tensor(last.inputs[0])[0].astype(np.float64)
    expected = (stored - tensor.zero_point) * tensor.scale
    with torch.inference_mode():
        photo = network.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
        got = network.backbone(photo, 32)[0][0].permute(1, 2, 0).numpy()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.reference
def test_mobilenet_edgetpu_is_refused_in_words(reference: Path):
    name = "models/deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"
    with pytest.raises(WeightsError, match=r"MobileNet EdgeTPU.*import its checkpoint"):
        load(reference / name)


@pytest.mark.reference
def test_cut_and_damaged_files_are_errors_in_words(reference: Path, tmp_path: Path):
    content = (reference / STARTER).read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "cut.tflite"
    for length in (0, 4, 8, 20, *rng.integers(20, len(content), 12)):
        file.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.tflite"):
            read_tflite(file)


def _tensor(values: np.ndarray, dtype: int, **quantisation: object) -> Tensor:
    content = np.frombuffer(values.tobytes(), np.uint8)
    given = {"scale": None, "zero_point": None, "axis": 0, **quantisation}
    return Tensor(name="w", shape=values.shape, dtype=dtype, content=content, **given)


def test_constants_are_dequantised_per_tensor_and_per_channel():
    stored = np.arange(-6, 6, dtype=np.int8).reshape(2, 3, 2)
    whole = _tensor(stored, 9, scale=np.array([0.5]), zero_point=np.array([2.0])).values()
    np.testing.assert_array_equal(whole, (stored.astype(np.float32) - 2) * 0.5)
    scale = np.array([1.0, 10.0, 100.0])
    channels = _tensor(stored, 9, scale=scale, zero_point=np.zeros(3), axis=1).values()
    np.testing.assert_array_equal(channels, stored * np.float32(scale).reshape(1, 3, 1))
    half = _tensor(np.float16([1.5, 2]), 1).values()
    np.testing.assert_array_equal(half, np.float32([1.5, 2]))
    with pytest.raises(WeightsError, match="do not fit the shape"):
        dataclasses.replace(_tensor(stored, 9), shape=(5, 5)).values()


@pytest.mark.reference
def test_another_rate_or_order_is_refused(reference: Path):
    graph = parse_tflite((reference / STARTER).read_bytes())

    def changed(kind: str, edit, at: int = -1) -> TFLiteGraph:
        places = [i for i, op in enumerate(graph.operators) if op.kind == kind]
        operators = list(graph.operators)
        operators[places[at]] = edit(operators[places[at]])
        return dataclasses.replace(graph, operators=tuple(operators))

    def dilate(op: Operator) -> Operator:
        return dataclasses.replace(op, options={**op.options, "dilationHFactor": 3})

    def swap(op: Operator) -> Operator:
        return dataclasses.replace(op, inputs=op.inputs[::-1])

    assert from_tflite(graph)[0].output_stride == 8
    with pytest.raises(WeightsError, match=r"blocks\.16\.depthwise has \(stride, rate\) \(1, 3\)"):
        from_tflite(changed("DEPTHWISE_CONV_2D", dilate))
    with pytest.raises(WeightsError, match="order"):
        from_tflite(changed("CONCATENATION", swap))
