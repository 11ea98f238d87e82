"""What is chosen where nothing is given, and that what is given wins."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import shapes_settings, tiny_network, tiny_settings

from deeplab import zoo
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.training import preset
from deeplab.training.experiment import run_experiment
from deeplab.training.initialise import locate_start
from deeplab.training.loop import StepNews
from deeplab.training.preset import choose_settings, deadline
from deeplab.training.settings import Settings, read_recipe, read_tables, write_toml
from deeplab.weights import open_release
from deeplab.weights.release import save

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A small network of other classes to start from, as a pair."""
    network = tiny_network(tiny_settings(), classes=4)
    spec = InputSpec(height=129, width=129)
    labels = LabelSet(("background", "a", "b", "c"))
    save(tmp_path / "start", network.config, network.state_dict(), labels=labels, input_spec=spec)
    return tmp_path / "start.json"


def own(shapes: Path, start: Path | str, **tables: dict[str, Any]) -> dict[str, Any]:
    values = {"name": "own", "data": {"path": str(shapes)}, "init": {"path": str(start)}}
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}  # type: ignore[dict-item]
    return values


def test_everything_is_chosen_and_said(
    shapes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = preset.Pace(crop=0.01, frame=0.01, precision="float32")  # of no machine
    monkeypatch.setattr(preset, "_measure", lambda *given: pace)
    told: list[str] = []
    out = tmp_path / "out"
    chosen = choose_settings(own(shapes, start), folder=out, tell=told.append)
    assert chosen.init.fit
    assert chosen.data.frame == (97, 129)  # all photos are 48×64: their shape, doubled
    assert all(side % 16 == 1 for side in (*chosen.data.frame, *chosen.data.crop_size))
    assert chosen.run.steps == 60
    assert chosen.run.validate_frame
    assert chosen.run.batch_norm == "frozen"
    assert chosen.schedule.base < 0.001
    talk = "\n".join(told)
    crops = f"60 steps of {chosen.run.batch_size} crops"
    for word in (crops, "97×129", "rate 0.0003", "expected:", "computed at once"):
        assert word in talk
    assert Settings.from_dict(chosen.to_dict()) == chosen


def test_processes_that_share_a_step_choose_alike(
    shapes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    one, other = (
        choose_settings(own(shapes, start), folder=tmp_path, tell=lambda text: None)
        for _ in range(2)
    )
    assert one == other
    assert one.run.batch_size == 9


def test_what_is_given_wins(shapes: Path, start: Path, tmp_path: Path) -> None:
    given = {"schedule": {"base": 0.01}, "run": {"steps": 7, "batch_size": 3, "validate_every": 2}}
    given["data"] = {"frame": [65, 65]}
    values = own(shapes, start, **given)
    chosen = choose_settings(values, folder=tmp_path, tell=lambda text: None)
    assert (chosen.schedule.base, chosen.run.steps, chosen.run.batch_size) == (0.01, 7, 3)
    assert (chosen.data.frame, chosen.run.validate_every) == ((65, 65), 2)
    assert "schedule" not in own(shapes, start)  # the caller's tables stay as they are
    chosen = choose_settings(
        own(shapes, start), folder=tmp_path, epochs=2.5, tell=lambda text: None
    )
    assert chosen.run.steps == 4  # 2.5 · 12 photos / 8


def test_time_0_gives_a_network_of_ones_own_without_a_step(
    shapes: Path, start: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    out = tmp_path / "out"
    chosen = choose_settings(own(shapes, start), folder=out, seconds=0, tell=told.append)
    progress = run_experiment(chosen, out, tell=told.append)
    assert (progress.step, progress.best_step) == (0, 0)
    release = open_release(out / "own")
    assert release.labels.names == ("background", "grey", "white")
    assert release.scores["val"]["miou"] == pytest.approx(progress.best)
    talk = "\n".join(told)
    assert "no training step" in talk
    assert "Fit: 12 photos looked at" in talk
    assert "start: mIoU" in talk


def test_time_is_planned_for_and_kept(shapes: Path, start: Path, tmp_path: Path) -> None:
    quiet = {"tell": lambda text: None}
    pace = preset.Pace(crop=0.1, frame=0.1, precision="float32")
    for seconds, fewest, most in ((30, 15, 35), (300, 200, 300), (30_000, 200, 1500)):
        run: dict[str, Any] = {"batch_size": 8}
        preset._choose_length(run, pace, 12, 5, 17, None, seconds)
        assert fewest <= run["steps"] <= most
        assert run["validate_every"] >= 1
    news = StepNews(1, 2, 0.5, 0.1)
    assert deadline(None).step is None
    soon = deadline(0.05).step
    assert soon is not None
    assert not soon(news)
    time.sleep(0.06)
    assert soon(news)
    with pytest.raises(InputError, match="--time: 0 stops after the fit"):
        choose_settings(own(shapes, "none"), folder=tmp_path, seconds=0, **quiet)


def test_nothing_is_random_unless_asked(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = preset.Pace(crop=2.0, frame=1.0, precision="float32")
    monkeypatch.setattr(preset, "_measure", lambda *given: pace)
    told: list[str] = []
    chosen = choose_settings(own(shapes, "none"), folder=tmp_path, tell=told.append)
    assert chosen.init.path == ""
    assert "days of work" in told[0]
    assert "Expected: 11.1 days for 30000 steps of 16 crops of 513×513" in told[-1]
    told.clear()
    values = own(shapes, "none", model={"backbone": "resnet_v1_50"})
    del values["init"]
    chosen = choose_settings(values, folder=tmp_path, tell=told.append)
    assert chosen.init.path == ""
    assert "this network is not that of 'voc'" in told[0]
    with pytest.raises(InputError, match="'vocc' is no file of weights, and no name"):
        choose_settings(own(shapes, "vocc"), folder=tmp_path, tell=told.append)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_published_recipes_keep_their_meaning(recipe: Path, tmp_path: Path) -> None:
    chosen = choose_settings(
        read_tables(recipe), folder=tmp_path, own_plan=True, tell=lambda text: None
    )
    assert chosen == read_recipe(recipe)


def test_the_same_command_goes_on_with_the_same_plan(shapes: Path, tmp_path: Path) -> None:
    before = shapes_settings(shapes)
    (tmp_path / "recipe.toml").write_text(write_toml(before), encoding="utf-8")
    (tmp_path / "last.pt").touch()
    values = {"name": "tiny", "data": {"path": str(shapes)}}
    assert choose_settings(values, folder=tmp_path, tell=print) == before
    values["run"] = {"steps": 9}
    assert choose_settings(values, folder=tmp_path, tell=print).run.steps == 9


@pytest.mark.parametrize(
    ("sizes", "start", "frame"),
    [
        ([(300, 400), (400, 300)], (609, 609), (609, 609)),
        ([(3000, 4000)] * 3, (609, 609), (449, 609)),
        ([(360, 480)] * 3, (513, 513), (385, 513)),
        ([(60, 80), (80, 60)], (609, 609), (161, 161)),
    ],
)
def test_the_frame_follows_the_photos(
    sizes: list[tuple[int, int]], start: tuple[int, int], frame: tuple[int, int]
) -> None:
    assert preset._choose_frame(np.array(sizes), start) == frame


def test_a_data_set_called_as_a_model_does_not_hide_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deeplab train --data voc` is what people with VOC type, and the default start is "voc"."""
    monkeypatch.chdir(tmp_path)
    Path("voc").mkdir()
    assert locate_start("voc") == zoo.locate("voc")
    assert locate_start("./voc") == Path("voc")  # a folder of weights, by its path
