from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from deeplab.cli import run as run_command
from deeplab.errors import ConfigError, InputError
from deeplab.training.settings import Settings, read_recipe, write_toml
from deeplab.training.settings_page import find_settings, list_settings, to_markdown

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("more", [{}, {"dice": 0.0}])
def test_boundary_alone_is_refused_and_beside_others_is_not(more: dict[str, float]) -> None:
    def settings(**tables: dict[str, object]) -> Settings:
        return Settings.from_dict({"name": "x", **tables})

    alone = {"boundary": 1.0, **more}
    with pytest.raises(InputError, match=r"loss\.terms: boundary alone .*dice = 1"):
        settings(loss={"terms": alone})
    settings(loss={"terms": {**alone, "dice": 1.0}})
    settings(loss={"terms": alone}, teacher={"path": "teacher.json"})


def test_settings_survive_their_own_toml(tmp_path: Path) -> None:
    settings = Settings.from_dict(
        {
            "name": "x",
            "model": {"version": "v3+", "atrous_rates": [6, 12], "image_pooling": False},
            "loss": {"class_weights": {"person": 2, "dining table": 0.5}},
            "run": {"steps": 5, "validate_scales": [1, 0.5]},
        }
    )
    path = tmp_path / "again.toml"
    path.write_text(write_toml(settings))
    assert read_recipe(path) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": {"batchsize": 4}}, r"run\.batchsize: unknown setting\. Did you mean 'batch_size'"),
        ({"runs": {}}, r"runs: unknown setting\. Did you mean 'run'"),
        ({"run": {"steps": "many"}}, r"run\.steps: got 'many', expected int"),
        ({"run": {"steps": True}}, r"run\.steps: got True, expected int"),
        ({"run": {"precision": "bf16"}}, r"run\.precision: got 'bf16'.*bfloat16"),
        ({"data": {"crop_size": [513]}}, r"data\.crop_size: got \[513\]"),
        ({"model": {"num_classes": 3}}, r"model\.num_classes: follows from the data"),
        ({"model": {"backbne": "x"}}, r"unknown field 'backbne'\. Did you mean 'backbone'"),
        ({"loss": {"class_weights": [1.0, 2.0]}}, r"class_weights: got \[1\.0, 2\.0\], expected"),
        ({"loss": {"class_weights": {"cat": "x"}}}, r"class_weights.*'x'.*expected"),
        ({"loss": {"label_stride": 3}}, r"label_stride: got 3, expected a divisor .* 512 and 512"),
        ({"data": {"repeat_threshold": 2.0}}, r"data\.repeat_threshold: got 2\.0, expected 0 to 1"),
        ({"run": {"batch_size": 0}}, r"run\.batch_size: got 0, expected 1 to 65,536"),
        ({"data": {"workers": 2_000_000_000}}, r"data\.workers: got 2000000000, expected 0 to 256"),
        ({"schedule": {"base": math.inf}}, r"schedule\.base: got inf, expected a finite number"),
        ({"optimiser": {"momentum": math.nan}}, r"optimiser\.momentum: got nan"),
        ({"loss": {"class_weights": {"cat": math.nan}}}, r"loss\.class_weights\.cat: got nan"),
        ({"loss": {"class_weights": {"cat": -1}}}, r"loss\.class_weights\.cat: got -1"),
        ({"run": {"seed": -1}}, r"run\.seed: got -1"),
        ({"run": {"steps": 10**400}}, r"run\.steps: got a huge number"),
        ({"schedule": {"power": 10**400}}, r"schedule\.power: got a number of 401 digits"),
        ({"data": {"scale_range": [2.0, 0.5]}}, r"data\.scale_range: got .*smallest, largest"),
        ({"data": {"resize_range": [9]}}, r"data\.resize_range: got \[9\]"),
        ({"data": {"frame": [513]}}, r"data\.frame: got \[513\]"),
        ({"run": {"validate_scales": []}}, r"run\.validate_scales: got none"),
        ({"run": {"validate_output_stride": 7}}, r"run\.validate_output_stride: got 7"),
        ({"run": {"validate_every": "sometimes"}}, r"run\.validate_every: .*int or 'auto'"),
        ({"optimiser": {"nesterov": True, "momentum": 0}}, r"optimiser\.nesterov"),
        ({"model": {"head_channels": 10**25}}, r"model\.head_channels: got a huge number"),
        ({"model": {"dense_prediction_cell": True}}, r"model\.dense_prediction_cell: got True"),
        ({"model": {"atrous_rates": [1e9]}}, r"model\.atrous_rates"),
        ({"model": {"image_pooling_crop_size": ["x"]}}, r"model\.image_pooling_crop_size"),
        ({"model": {"divisible_by": 0}}, r"divisible_by: got 0"),
        ({"name": "a/b"}, r"name: got 'a/b'"),
        ({"name": ".."}, r"name: got '\.\.'"),
        ({"name": "x" * 300}, r"name: got 'x+', expected .* 100"),
        ({"run": {"lr": 0.1}}, r"run\.lr: unknown setting\. schedule\.base is it here"),
        ({"run": {"epochs": 3}}, r"run\.epochs: .*run\.steps is it here \(an epoch is pictures"),
        ({"epochs": 3}, r"epochs: .*run\.steps is it here"),
        ({"data": {"batch": 3}}, r"data\.batch: .*run\.batch_size is it here"),
        ({"run": {"flip": True}}, r"run\.flip: unknown setting\. It is data\.flip"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(values: dict[str, object], message: str) -> None:
    with pytest.raises((InputError, ConfigError), match=message):
        Settings.from_dict({"name": "x"} | values)


def test_intervals_follow_the_steps() -> None:
    def intervals(steps: int) -> tuple[int, int]:
        run = Settings.from_dict({"name": "x", "run": {"steps": steps}}).run
        return run.validation_interval, run.log_interval

    assert intervals(20) == (10, 1)
    assert intervals(200) == (20, 10)
    assert intervals(60) == (10, 3)
    assert intervals(30_000) == (1000, 10)


def test_the_page_of_settings_is_that_of_the_code() -> None:
    """Mend it with: python -m deeplab.training.settings_page > docs/settings.md."""
    assert to_markdown() == (ROOT / "docs/settings.md").read_text("utf-8")
    untold = [entry.name for entry in list_settings() if not entry.text]
    assert not untold


def test_settings_are_found_by_what_they_are_called_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert find_settings("lr")[0].name == "schedule.base"
    assert find_settings("imgsz")[0].name == "data.crop_size"
    assert find_settings("validate_every")[0].name == "run.validate_every"
    with pytest.raises(InputError, match="nothing is called or says 'qqq'"):
        find_settings("qqq")
    assert run_command(["train", "--settings", "warm-up"]) == 0
    assert "schedule.start_ramp" in capsys.readouterr().out


def test_overrides_win(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[run]\nsteps = 10\n")
    settings = read_recipe(path, {"run.steps": 3, "init.path": "a.tflite"})
    assert (settings.name, settings.run.steps, settings.init.path) == ("mine", 3, "a.tflite")


def test_a_missing_recipe_is_one_line() -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_recipe("nowhere.toml")


def test_every_setting_is_read_somewhere() -> None:
    code = "\n".join(
        path.read_text()
        for path in (ROOT / "src/deeplab").rglob("*.py")
        if path.name not in ("settings.py", "schedule.py", "tables.py")
    )
    own = (ROOT / "src/deeplab/training/settings.py").read_text()
    code += "\n".join(re.findall(r"self\.\w+", own))
    unread = [
        f"{part.name}.{entry.name}"
        for part in dataclasses.fields(Settings)
        if part.name in ("data", "init", "loss", "optimiser", "run")
        for entry in dataclasses.fields(part.default_factory())  # type: ignore[misc,arg-type]
        if not re.search(rf"\.{entry.name}\b", code)
    ]
    assert not unread


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_recipes_open_with_command_hardware_and_score(recipe: Path) -> None:
    head = [line for line in recipe.read_text().splitlines()[:12] if line.startswith("#")]
    text = "\n".join(head)
    for word in ("deeplab train", "Hardware:", "Expected:", "Run here:"):
        assert word in text, f"{recipe.name} lacks '{word}'"
    read_recipe(recipe)


@pytest.mark.parametrize("content", [b"[run", b"\xff\xfe\x00\x01", b"x = " + b"[" * 9999])
def test_a_recipe_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.toml"):
        read_recipe(path)


def test_any_text_survives_toml(tmp_path: Path) -> None:
    text = 'tab\t quote" backslash\\ newline\n delete\x7f bell\x07 é 漢'
    settings = Settings.from_dict({"name": "x", "licence": text})
    path = tmp_path / "recipe.toml"
    path.write_text(write_toml(settings), "utf-8")
    assert read_recipe(path).licence == text
