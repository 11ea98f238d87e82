"""Networks of timm as backbones go the whole way: trained, killed, resumed, exported, run."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kills
import pytest
import red_halves
import torch
from safetensors.torch import save_file
from tiny import shapes_settings
from torch import nn

from deeplab import Segmenter
from deeplab.data import open_dataset
from deeplab.evaluation.protocol import evaluate, open_predictor
from deeplab.export import export
from deeplab.models import DeepLabConfig, build
from deeplab.models.timm_import import import_timm
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks
from deeplab.training.normalisation import synchronise
from deeplab.training.settings import Settings
from deeplab.weights import release
from documents import ROOT, blocks

if importlib.util.find_spec("timm") is None:  # importing it needs a torchvision, or ours
    pytest.skip("timm is not installed (extra timm)", allow_module_level=True)

SIDE, BORDER = 64, 34  # which lies half way between two cells of the logits
PAGE = ROOT / "docs/timm.md"
QUIET: dict[str, Any] = {"tell": lambda text: None}
LEARNED = Callbacks(validation=lambda step, score: score.miou > 0.98)
MODELS: dict[str, dict[str, Any]] = {
    "mobilenet": {
        "version": "v3+", "backbone": "timm/mobilenetv4_conv_small_035", "output_stride": 16,
        "backbone_bn_decay": 0.8,
    },
    "convnext": {"version": "v3+", "backbone": "timm/test_convnext", "output_stride": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return red_halves.write(tmp_path_factory.mktemp("halves"), SIDE, border=BORDER)


def plan(data: Path, model: dict[str, Any], steps: int = 200) -> Settings:
    return Settings.from_dict(
        {
            "name": "red",
            "data": {
                "path": str(data), "crop_size": [SIDE, SIDE], "workers": 0, "check": False,
                "scale_range": [1.0, 1.0],
            },
            "model": {
                "head_channels": 16, "decoder_channels": 16, "dropout": 0.0, "head_bn_decay": 0.8,
                **model,
            },
            "schedule": {"base": 0.005, "start_steps": 5, "start_ramp": True},
            "optimiser": {"name": "adamw", "weight_decay": 0.0, "clip_norm": 5.0},
            "run": {
                "steps": steps, "batch_size": 4, "validate_every": min(steps, 10), "device": "cpu",
                "validate_frame": True, "log_every": 1, "save_every": 1,
            },
        }
    )  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("kind", MODELS)
def test_four_pictures_are_learned_by_heart_exported_and_certified(
    halves: Path, tmp_path: Path, kind: str
) -> None:
    torch.set_num_threads(1)
    told: list[str] = []
    run_experiment(
        plan(halves, MODELS[kind]), tmp_path / "run", callbacks=LEARNED, tell=told.append
    )
    name = MODELS[kind]["backbone"]
    assert any(line.startswith(f"Backbone: {name} at output stride 16 (atrous;") for line in told)
    pair = tmp_path / "run/red.json"
    found = release.open_release(pair)
    assert found.scores["val"]["miou"] > 0.97
    assert found.config.align_corners == (kind == "mobilenet")
    assert json.loads(pair.read_text())["architecture"]["pixel_mean"] == [127.5] * 3  # timm's
    predictor: Any = open_predictor(pair)
    scored = evaluate(predictor, open_dataset(halves, split="val"))
    assert scored.miou == pytest.approx(found.scores["val"]["miou"])
    segmenter = Segmenter(pair)
    for photo, label in red_halves.draw(SIDE, border=BORDER):
        assert (segmenter(photo).mask == label).mean() > 0.97
    for to in ("tflite", "onnx"):
        file = tmp_path / f"red.{to}"
        done = export(pair, to, file=file, photos=sorted((halves / "images").iterdir()))
        assert min(one.worst_equal_pixels for one in done.certificate.rounds) >= 0.9999
        exported = Segmenter(file)
        for photo, _ in red_halves.draw(SIDE, border=BORDER):
            assert (exported(photo).mask == segmenter(photo).mask).mean() > 0.999


def test_a_killed_training_ends_with_the_same_bits(shapes: Path, tmp_path: Path) -> None:
    settings = shapes_settings(
        shapes,
        model={
            "backbone": "timm/test_efficientnet", "depth_multiplier": 1.0, "output_stride": 16,
            "dropout": 0.1,
        },
        data={"workers": 0, "check": False},
        run={"steps": 4, "save_every": 1},
    )  # fmt: skip
    assert kills.differences(settings, tmp_path, step=2) == []


def test_batch_norms_with_an_activation_keep_it_where_they_are_synchronised() -> None:
    network = build(DeepLabConfig(backbone="timm/mobilenetv4_conv_small_035", num_classes=2)).eval()
    image = torch.randint(0, 255, (1, 3, 65, 65), dtype=torch.uint8)
    with torch.no_grad():
        before, names = network(image), list(network.state_dict())
        synchronise(network)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
        assert torch.equal(network.eval()(image), before)
    assert list(network.state_dict()) == names


def test_a_training_starts_from_a_file_of_timm_s(shapes: Path, tmp_path: Path) -> None:
    name = "test_efficientnet"
    network = import_timm().create_model(name)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": name, "pretrained_cfg": pixels})
    )
    told: list[str] = []
    settings = Settings.from_dict(
        {
            "name": "a",
            "model": {"backbone": f"timm/{name}", "version": "v3+", "head_channels": 8},
            "data": {"path": str(shapes), "crop_size": [33, 49], "workers": 0, "check": False},
            "init": {"path": str(tmp_path / "model.safetensors")},
            "run": {"steps": 1, "batch_size": 2, "device": "cpu"},
        }
    )
    run_experiment(settings, tmp_path / "run", tell=told.append)
    found = release.open_release(tmp_path / "run/a.json")
    assert found.config.pixel_mean == pytest.approx((25.5, 51.0, 76.5))
    first = found.state_dict()["backbone.net.conv_stem.weight"]
    assert (first - network.conv_stem.weight).abs().max() < 0.01
    assert any("pixels minus (25.5, 51, 76.5), divided by (102, 127.5, 153)" in one for one in told)


@pytest.mark.integration
def test_the_commands_of_the_page_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one process of its own, as imports take most of the time."""
    shapes.rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(next(text for kind, text in blocks(PAGE) if kind == "toml"))
    lines = next(text for kind, text in blocks(PAGE) if kind == "console").splitlines()
    words = [shlex.split(line.removeprefix("$ "))[1:] for line in lines]
    program = "\n".join(
        ["from deeplab.cli import run", *(f"assert run({one!r}) == 0, {one!r}" for one in words)]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = (done.stdout + done.stderr).splitlines()
    said = next(line for line in printed if "Backbone: " in line)
    assert said[said.index("Backbone: ") :].strip() in PAGE.read_text()
    certificate = json.loads(Path("mine.onnx.json").read_text())
    assert all(found["equal_pixels"] >= 0.9999 for found in certificate["rounds"])
    assert list(Path("masks").glob("0*.png"))
