from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeplab.errors import InputError, MissingExtraError, ModelError, ModelNotFoundError
from deeplab.info import describe
from deeplab.labels import CITYSCAPES, VOC
from deeplab.models.config import DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.zoo import locate_file

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs the extra 'train' (torch)"
)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "size", "output_stride", "folded", "giga", "precision", "classes"),
    [
        ("deeplabv3_257_mv_gpu", 257, 8, 688_357, "0.726", "float32", 21),
        ("deeplabv3_with_metadata", 257, 8, 688_357, "0.726", "float32", 21),
        ("deeplabv3_mnv2_pascal_quant", 513, 16, 2_097_013, "2.741", "uint8", 21),
        ("deeplabv3_mnv2_dm05_pascal_quant", 513, 16, 688_357, "0.867", "uint8", 21),
        (
            "deeplab_mobilenet_edgetpu_slim_cityscapes_quant",
            513,
            16,
            2_055_379,
            "4.316",
            "uint8",
            19,
        ),
    ],
)
def test_published_files(
    reference: Path,
    name: str,
    size: int,
    output_stride: int,
    folded: int,
    giga: str,
    precision: str,
    classes: int,
) -> None:
    info = describe(reference / "models" / f"{name}.tflite")
    assert info.kind == "tflite"
    assert info.size == (size, size)
    assert info.output_stride == output_stride
    assert info.folded_parameters == folded
    assert info.parameters is None
    assert f"{info.macs / 1e9:.3f}" == giga
    assert info.precision == precision
    assert info.num_classes == classes
    assert info.logits_size == (33, 33)
    assert info.labels in (None, VOC, CITYSCAPES)
    assert info.labels is None or len(info.labels) == classes
    assert {"aspp0", "image_pooling", "concat_projection", "logits"} < {p.name for p in info.parts}


@pytest.mark.reference
def test_a_file_that_nobody_knows_speaks_for_itself(
    reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplab.zoo.find_by_hash", lambda sha256: None)
    stated = describe(reference / "models" / "deeplabv3_with_metadata.tflite")
    assert stated.labels == VOC
    assert stated.input == InputSpec(height=257, width=257)
    silent = describe(reference / "models" / "deeplabv3_257_mv_gpu.tflite")
    assert silent.labels is None
    assert silent.input is None


@pytest.mark.reference
def test_a_classifier_is_refused_in_words(reference: Path) -> None:
    with pytest.raises(ModelError, match="1001 names, expected 1 to 256"):
        describe(reference / "models" / "mobilenet_v2_1.0_224_quant.tflite")


@needs_torch
@pytest.mark.reference
def test_a_file_and_its_configuration_cost_the_same(reference: Path) -> None:
    info = describe(reference / "models" / "deeplabv3_257_mv_gpu.tflite")
    config = DeepLabConfig(depth_multiplier=0.5, output_stride=8)
    ours = describe(config, size=(257, 257))
    assert (info.folded_parameters, info.macs) == (ours.folded_parameters, ours.macs)
    assert [(part.folded_parameters, part.macs) for part in info.parts] == [
        (part.folded_parameters, part.macs) for part in ours.parts
    ]


@needs_torch
def test_configuration() -> None:
    config = DeepLabConfig(version="v3+", backbone="xception_65", num_classes=19)
    info = describe(config, size=(65, 97), output_stride=8)
    assert info.architecture == "DeepLab v3+ on xception_65"
    assert (info.size, info.output_stride, info.logits_size) == ((65, 97), 8, (17, 25))
    assert info.config is config
    assert info.num_classes == 19
    assert info.parameters is not None
    assert info.parameters > info.folded_parameters
    assert info.input is not None
    assert (info.input.height, info.input.width) == (65, 97)
    assert info.file_bytes is None


@pytest.mark.reference
def test_a_tflite_is_described_without_torch(reference: Path) -> None:
    path = reference / "models" / "deeplabv3_with_metadata.tflite"
    code = (
        "import sys; from deeplab.info import describe; "
        f"describe({str(path)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.reference
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": (513, 513)}, r"size: got \(513, 513\), but .* was written for \(257, 257\)"),
        ({"output_stride": 16}, r"output_stride: got 16, but .* was written for 8; leave"),
    ],
)
def test_a_tflite_has_its_own_size(reference: Path, asked: dict[str, Any], message: str) -> None:
    path = reference / "models" / "deeplabv3_with_metadata.tflite"
    with pytest.raises(InputError, match=message):
        describe(path, **asked)
    describe(path, size=(257, 257), output_stride=8)


def test_missing_and_damaged_files_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there is no file .*none\.tflite"):
        describe(tmp_path / "none.tflite")
    bad = tmp_path / "bad.tflite"
    for data in (b"", b"not a model", b"\x1c\x00\x00\x00TFL3", b"\x1c\x00\x00\x00TFL3" + b"x" * 99):
        bad.write_bytes(data)
        with pytest.raises(ModelError, match=r"bad\.tflite: "):
            describe(bad)


@needs_torch
def test_release_pair(tmp_path: Path) -> None:
    from deeplab.models import build
    from deeplab.weights.release import save

    config = DeepLabConfig(depth_multiplier=0.5, num_classes=19)
    save(
        tmp_path / "streets",
        config,
        build(config).state_dict(),
        labels=CITYSCAPES,
        input_spec=InputSpec(height=65, width=129),
        licence="Apache-2.0",
        scores={"miou": 0.5},
    )
    for name in ("streets", "streets.json", "streets.safetensors"):
        info = describe(tmp_path / name)
        assert info.kind == "release pair"
        assert info.config == config
        assert info.labels == CITYSCAPES
        assert info.size == (65, 129)
        assert info.licence == "Apache-2.0"
        assert info.scores == {"miou": 0.5}
        assert info.file_bytes == (tmp_path / "streets.safetensors").stat().st_size
    assert describe(tmp_path / "streets", size=(33, 33)).logits_size == (3, 3)


@needs_torch
@pytest.mark.reference
def test_foreign_weights(reference: Path) -> None:
    info = describe(reference / "parity" / "tf_checkpoint_mnv2_dm05", size=(513, 513))
    assert info.kind == "weights"
    assert info.architecture == "DeepLab v3 on mobilenet_v2"
    assert info.folded_parameters == 688_357
    assert info.report is not None
    assert info.report.kept


@needs_torch
def test_nothing_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        describe(tmp_path / "nothing")


def test_without_torch_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs 'torch'.*deeplab\[train\]"):
        describe(DeepLabConfig())


@pytest.mark.parametrize("name", ["voc", "voc-fast"])
def test_a_second_smaller_look_has_no_stride(name: str) -> None:
    """Its rows are fewer than those of the coarsest features of the first."""
    assert describe(locate_file(name).path).output_stride == 16
