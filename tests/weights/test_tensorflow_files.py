"""A checkpoint and a frozen graph of the original, from file to label map."""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import write_checkpoint

import parity
from deeplab.errors import ConfigError, ModelNotFoundError, WeightsError
from deeplab.models import build
from deeplab.weights import load, load_with_report, read_checkpoint

FOLDER = "parity/tf_checkpoint_mnv2_dm05"
SIDE = 129  # the graph was exported for this frame


@pytest.mark.reference
@pytest.mark.parametrize("file", ["", "model.ckpt", "frozen_inference_graph.pb"])
@pytest.mark.parametrize(
    ("photo", "shape", "seed"), [("full", (129, 129), 1), ("small", (97, 120), 21)]
)
def test_the_label_map_is_the_frozen_graph_s(reference: Path, file: str, photo, shape, seed):
    config, state = load(reference / FOLDER / file)
    network = build(config, state).eval()
    image = parity.seeds().seeded_image(*shape, seed)
    # The graph pads below and to the right with the mean, and cuts that off again.
    frame = np.full((SIDE, SIDE, 3), 127.5, np.float32)
    frame[: shape[0], : shape[1]] = image
    with torch.inference_mode():
        logits = network(torch.from_numpy(frame).permute(2, 0, 1)[None])
        scores = network.upsample(logits, (SIDE, SIDE)).softmax(1)[0].permute(1, 2, 0).numpy()
    scores = scores[: shape[0], : shape[1]]
    with np.load(reference / FOLDER / "outputs.npz") as expected:
        probabilities = expected[f"SemanticProbabilities_every8_{photo}"][0]
        assert np.abs(scores[::8, ::8] - probabilities).max() < 1e-5
        certain = expected[f"prob_margin_{photo}"][0] > 1e-4
        labels = expected[f"SemanticPredictions_{photo}"][0]
    assert certain.mean() > 0.9
    np.testing.assert_array_equal(scores.argmax(-1)[certain], labels[certain])


@pytest.mark.reference
def test_checkpoint_and_graph_agree_and_say_what_they_did(reference: Path):
    checkpoint = load_with_report(reference / FOLDER)
    graph = load_with_report(reference / FOLDER / "frozen_inference_graph.pb")
    assert checkpoint[0] == graph[0]
    assert checkpoint[0].output_stride == 8
    assert checkpoint[0].image_pooling_crop_size == (SIDE, SIDE)
    assert checkpoint[1].keys() == graph[1].keys()
    assert all(torch.equal(checkpoint[1][key], graph[1][key]) for key in graph[1])
    assert checkpoint[2].ignored == ("global_step",)
    assert len(checkpoint[2].kept) == len(graph[2].kept) == 272
    assert not checkpoint[2].missing


@pytest.mark.reference
def test_a_lone_checkpoint_takes_the_stride_that_is_asked_for(reference: Path, tmp_path: Path):
    for file in (reference / FOLDER).glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    assert load(tmp_path / "model.ckpt")[0].output_stride == 16  # the published models' own
    asked, state = load(tmp_path / "model.ckpt", output_stride=8)
    assert asked.output_stride == 8
    whole, expected = load(reference / FOLDER)
    assert dataclasses.replace(asked, image_pooling_crop_size=(SIDE, SIDE)) == whole
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    with pytest.raises(ConfigError, match="output_stride: got 7"):
        load(tmp_path / "model.ckpt", output_stride=7)


@pytest.mark.reference
def test_archives_with_either_file(reference: Path, tmp_path: Path):
    expected = load(reference / FOLDER)
    for name, files in (
        (
            "both",
            ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "frozen_inference_graph.pb"),
        ),
        ("graph", ("frozen_inference_graph.pb",)),
    ):
        path = tmp_path / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for file in files:
                tar.add(reference / FOLDER / file, f"deeplabv3_mnv2/{file}")
        config, state = load(path)
        assert config == expected[0]
        assert all(torch.equal(state[key], expected[1][key]) for key in expected[1])
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz") as tar:
        tar.add(reference / FOLDER / "checkpoint", "checkpoint")
    with pytest.raises(ModelNotFoundError, match="neither a TensorFlow checkpoint"):
        load(tmp_path / "empty.tar.gz")


def test_files_of_other_kinds_are_refused_in_words(tmp_path: Path):
    for name, content in (
        ("photo.jpg", b"\xff\xd8\xff\xe0" + bytes(30)),
        ("other.dat", b"\x7fELF" + bytes(30)),
        ("notes.txt", b"These are not weights, sorry."),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name}.*Known are release pairs"):
            load(tmp_path / name)
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "broken.pb").write_bytes(b"\x0a\xff\xff\xff\x7f")
    with pytest.raises(WeightsError, match=r"broken\.pb.*cut off"):
        load(tmp_path / "broken.pb")


@pytest.mark.reference
def test_an_imagenet_checkpoint_gives_the_backbone_and_says_so(reference: Path, tmp_path: Path):
    """Slim's own names: beside the backbone a last convolution, and logits in its scope."""
    tensors = {
        name: (1, value.shape, value.tobytes())
        for name, value in read_checkpoint(reference / FOLDER).items()
        if name.startswith("MobilenetV2/")
    }
    for name in ("Conv_1/weights", "Logits/Conv2d_1c_1x1/weights"):
        tensors[f"MobilenetV2/{name}"] = (1, (1, 1, 2, 3), np.ones(6, np.float32).tobytes())
    tensors["MobilenetV2/Conv/weights/Momentum"] = tensors["MobilenetV2/Conv/weights"]
    config, state, report = load_with_report(write_checkpoint(tmp_path, tensors))
    assert report.backbone_only
    assert all(key.startswith("backbone.") for key in state)
    assert len(state) == len(report.kept) == 255  # 51 layers: a weight and four of batch norm
    assert {"MobilenetV2/Conv_1/weights", "MobilenetV2/Conv/weights/Momentum"} <= set(
        report.ignored
    )
    assert config.depth_multiplier == 0.5
    with torch.device("meta"):
        network = build(config)
    assert not network.load_state_dict(state, strict=False, assign=True).unexpected_keys
