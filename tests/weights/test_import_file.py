from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import parity
from deeplab.errors import WeightsError
from deeplab.labels import VOC, LabelSet
from deeplab.models import build
from deeplab.weights import load, open_release, release
from deeplab.weights.convert import import_file

STARTER = "models/deeplabv3_257_mv_gpu.tflite"


@pytest.mark.reference
def test_an_imported_pair_stands_alone_and_gives_the_golden_mask(reference: Path, tmp_path: Path):
    report = import_file(reference / STARTER, tmp_path / "starter", licence="Apache-2.0")
    pair = open_release(tmp_path / "starter")
    assert pair.labels is VOC
    assert (pair.input_spec.height, pair.input_spec.width) == (257, 257)
    assert pair.licence == "Apache-2.0"
    assert pair.provenance["kept"] == len(report.kept) == 55
    digest = hashlib.sha256((reference / STARTER).read_bytes()).hexdigest()
    assert pair.provenance["sha256"] == digest

    config, state = load(tmp_path / "starter")
    network = build(config, state).eval()
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
    assert not again.assumed


@pytest.mark.reference
def test_labels_and_normalisation_come_from_the_metadata(reference: Path, tmp_path: Path):
    bare = import_file(reference / STARTER, tmp_path / "bare")
    assert set(bare.assumed) == {"labels", "normalisation"}
    assert "assumed labels: background, aeroplane, …, by their count of 21" in str(bare)
    assert open_release(tmp_path / "bare").provenance["assumed"] == bare.assumed

    path = reference / "models/deeplabv3_with_metadata.tflite"
    whole = import_file(path, tmp_path / "whole")
    assert whole.labels is not None
    assert not whole.assumed
    assert open_release(tmp_path / "whole").labels == VOC

    # The same file with another class at the same place.
    content = path.read_bytes()
    (tmp_path / "other.tflite").write_bytes(content[: content.index(b"PK\x03\x04")])
    with pytest.raises(WeightsError, match=r"other\.tflite: its metadata names the label file"):
        import_file(tmp_path / "other.tflite", tmp_path / "other")
    with zipfile.ZipFile(tmp_path / "other.tflite", "a") as archive:
        names = "\n".join(VOC.names).replace("aeroplane", "hydrofoil")
        archive.writestr("labelmap.txt", names)
    import_file(tmp_path / "other.tflite", tmp_path / "other")
    assert open_release(tmp_path / "other").labels.names[:3] == (
        "background", "hydrofoil", "bicycle",
    )  # fmt: skip
    # Labels that are given win; those of a release pair stay with it.
    mine = LabelSet(tuple(f"thing {index}" for index in range(21)))
    import_file(tmp_path / "other.tflite", tmp_path / "mine", labels=mine)
    report = import_file(tmp_path / "mine", tmp_path / "copy")
    assert open_release(tmp_path / "copy").labels == mine
    assert not report.assumed


@pytest.mark.reference
def test_labels_come_from_the_settings_beside_the_weights(tmp_path: Path):
    variables = parity.load_fixture("hf_mobilenet_v2_seg_os16_129").variables()
    state = {name: torch.from_numpy(value) for name, value in variables.items()}
    count = len(state["segmentation_head.classifier.convolution.bias"])
    save_file(state, tmp_path / "model.safetensors")

    def imported(names: list[str], **more: object) -> tuple[LabelSet, dict[str, str]]:
        settings = {"id2label": {str(index): name for index, name in enumerate(names)}, **more}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        report = import_file(tmp_path, tmp_path / "pair")
        return open_release(tmp_path / "pair").labels, dict(report.assumed)

    names = ["Background", *(f"thing {index}" for index in range(1, count))]
    labels, assumed = imported(names, output_stride=8)
    assert (labels.names, labels.background) == (tuple(names), 0)
    assert not assumed
    street = [f"thing {index}" for index in range(count)]
    assert imported(street)[0].background is None
    default = release.default_labels(count)
    for useless in (
        [f"LABEL_{index}" for index in range(count)],
        ["twice"] * count,
        names[:-1],
    ):
        labels, assumed = imported(useless)
        assert labels == default
        assert assumed.keys() == {"output_stride", "labels"}
    assert f"the file names {count - 1}" in assumed["labels"]


@pytest.mark.reference
def test_a_classifier_makes_no_pair(reference: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="must be trained first"):
        import_file(reference / "models/mobilenet_v2_1.0_224_quant.tflite", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reference
def test_the_hash_is_that_of_a_file_with_weights(reference: Path, tmp_path: Path) -> None:
    folder = reference / "parity" / "tf_checkpoint_mnv2_dm05"
    for name in ("model.ckpt.index", "frozen_inference_graph.pb"):
        import_file(folder / name, tmp_path / "pair")
        provenance = json.loads((tmp_path / "pair.json").read_text("utf-8"))["provenance"]
        expected = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert provenance.get("sha256") == (None if name.endswith(".index") else expected)
