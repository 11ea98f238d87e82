from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deeplab.errors import InputError, ModelNotFoundError, OutputError, WeightsError
from deeplab.labels import CITYSCAPES, VOC, LabelSet
from deeplab.models import DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.weights import load, open_release, release

CONFIG = DeepLabConfig(
    version="v3+",
    backbone="mobilenet_v2",
    depth_multiplier=0.5,
    num_classes=3,
    atrous_rates=(6, 12, 18),
    pixel_mean=(123.0, 116.0, 103.0),
    pixel_std=(58.0, 57.0, 56.0),
)
LABELS = LabelSet(("floor", "cat", "Kätzchen"), colours=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
SPEC = InputSpec(height=129, width=161, fit="stretch")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build(CONFIG).state_dict()


def test_what_was_saved_comes_back(tmp_path: Path, state):
    release.save(
        tmp_path / "cats.v1",
        CONFIG,
        state,
        labels=LABELS,
        input_spec=SPEC,
        provenance={"source": "trained here", "steps": 30},
        licence="CC-BY-4.0",
        scores={"miou": 0.71, "protocol": "val, one scale"},
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cats.v1.json", "cats.v1.safetensors"]
    for name in ("cats.v1", "cats.v1.json", "cats.v1.safetensors"):
        got = open_release(tmp_path / name)
        assert got.config == CONFIG
        assert got.labels == LABELS
        assert (got.input_spec.height, got.input_spec.width) == (129, 161)
        assert got.input_spec.fit == "stretch"
        assert got.input_spec.mean == CONFIG.pixel_mean  # the network's, not the caller's
        assert got.provenance == {"source": "trained here", "steps": 30}
        assert (got.licence, got.scores["miou"]) == ("CC-BY-4.0", 0.71)
        config, weights = load(tmp_path / name)
        assert config == CONFIG
        assert weights.keys() == state.keys()
        assert all(torch.equal(weights[key], state[key]) for key in state)


def test_opening_a_release_imports_no_torch(tmp_path: Path, state):
    release.save(tmp_path / "cats", CONFIG, state, labels=LABELS, input_spec=SPEC)
    code = (
        "import sys; from deeplab.weights import open_release; "
        "print(len(open_release(sys.argv[1]).labels), 'torch' in sys.modules)"
    )
    source = Path(release.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cats"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert result.stdout.split() == ["3", "False"]


def test_default_labels_follow_the_class_count():
    assert release.default_labels(21) is VOC
    assert release.default_labels(19) is CITYSCAPES
    assert release.default_labels(2).names == ("class 0", "class 1")


def test_weights_that_do_not_fit_are_not_saved(tmp_path: Path, state):
    def save(weights, labels=LABELS, **more):
        release.save(tmp_path / "cats", CONFIG, weights, labels=labels, input_spec=SPEC, **more)

    backbone = {key: value for key, value in state.items() if key.startswith("backbone.")}
    without = {key: value for key, value in state.items() if key != "backbone.stem.conv.weight"}
    with pytest.raises(WeightsError, match="must be trained first"):
        save(backbone)
    with pytest.raises(WeightsError, match=r"1 weights are missing: backbone\.stem\.conv\.weight"):
        save(without)
    with pytest.raises(WeightsError, match="left over: extra"):
        save({**state, "extra": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"another shape: classifier\.bias"):
        save({**state, "classifier.bias": torch.ones(4)})
    with pytest.raises(InputError, match="21 names for a network of 3 classes"):
        save(state, VOC)
    with pytest.raises(InputError, match="JSON"):
        save(state, provenance={"when": object()})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="cannot be written"):
        release.save(tmp_path / "no/cats", CONFIG, state, labels=LABELS, input_spec=SPEC)


def test_a_failed_save_leaves_the_old_pair(tmp_path: Path, state, monkeypatch):
    release.save(tmp_path / "cats", CONFIG, state, labels=LABELS, input_spec=SPEC)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_args: object, **_more: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="no space left"):
        release.save(tmp_path / "cats", CONFIG, state, labels=LABELS, input_spec=SPEC)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_half_a_pair_and_changed_files_are_errors_in_words(tmp_path: Path, state):
    release.save(tmp_path / "cats", CONFIG, state, labels=LABELS, input_spec=SPEC)
    weights, text = tmp_path / "cats.safetensors", tmp_path / "cats.json"
    good = json.loads(text.read_text("utf-8"))

    for change, words in (
        ({"format_version": 3}, "Update deeplab"),
        ({"format": "other"}, "not the JSON of a release"),
        ({"labels": {}}, "missing"),
        ({"architecture": {**good["architecture"], "version": "v9"}}, "version"),
        ({"architecture": {"bakcbone": "x"}}, "backbone"),
    ):
        text.write_text(json.dumps({**good, **change}))
        with pytest.raises(WeightsError, match=words):
            open_release(tmp_path / "cats")
    text.write_text("{")
    with pytest.raises(WeightsError, match="JSON"):
        open_release(tmp_path / "cats")
    text.write_text(json.dumps(good))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        load(weights)
    weights.unlink()
    with pytest.raises(ModelNotFoundError, match=r"cats\.safetensors"):
        open_release(tmp_path / "cats")


def test_a_temperature_is_written_beside_the_weights(tmp_path: Path, state):
    release.save(tmp_path / "cats.v1", CONFIG, state, labels=LABELS, input_spec=SPEC)
    assert open_release(tmp_path / "cats.v1").temperature == 1
    release.set_temperature(tmp_path / "cats.v1", 1.25)
    got = open_release(tmp_path / "cats.v1.safetensors")
    assert got.temperature == 1.25
    assert got.labels == LABELS
    json_path = tmp_path / "cats.v1.json"
    json_path.write_text(json_path.read_text().replace("1.25", "-3"))
    with pytest.raises(WeightsError, match="temperature is -3"):
        open_release(tmp_path / "cats.v1")
