from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab.errors import WeightsError
from deeplab.labels import VOC
from deeplab.models import build
from deeplab.weights import load, open_release
from deeplab.weights.convert import import_file

STARTER = "models/deeplabv3_257_mv_gpu.tflite"


@pytest.mark.reference
def test_an_imported_pair_stands_alone_and_gives_the_golden_mask(reference: Path, tmp_path: Path):
    report = import_file(reference / STARTER, tmp_path / "starter", licence="Apache-2.0")
    release = open_release(tmp_path / "starter")
    assert release.labels is VOC
    assert (release.input_spec.height, release.input_spec.width) == (257, 257)
    assert release.licence == "Apache-2.0"
    assert release.provenance["kept"] == len(report.kept) == 55
    digest = hashlib.sha256((reference / STARTER).read_bytes()).hexdigest()
    assert release.provenance["sha256"] == digest

    config, state = load(tmp_path / "starter")
    network = build(config).eval()
    network.load_state_dict(state)
    photo = Image.open(reference / "golden/segmentation_input_rotation0.jpg").convert("RGB")
    image = np.array(photo.resize((257, 257), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        logits = network(torch.from_numpy(image).permute(2, 0, 1)[None])
        mask = network.upsample(logits, (257, 257))[0].argmax(0).numpy()
    golden = np.array(Image.open(reference / "golden/segmentation_golden_rotation0.png"))
    np.testing.assert_array_equal(mask * 10, golden)


@pytest.mark.reference
def test_a_stride_of_one_s_own_and_another_import_over_it(reference: Path, tmp_path: Path):
    import_file(reference / STARTER, tmp_path / "starter", output_stride=16)
    assert open_release(tmp_path / "starter").config.output_stride == 16
    again = import_file(tmp_path / "starter.json", tmp_path / "again", output_stride=8)
    assert open_release(tmp_path / "again").config == load(reference / STARTER)[0]
    assert len(again.kept) == 272


@pytest.mark.reference
def test_a_classifier_makes_no_pair(reference: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="must be trained first"):
        import_file(reference / "models/mobilenet_v2_1.0_224_quant.tflite", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
