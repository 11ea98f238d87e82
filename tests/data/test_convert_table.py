"""The table in docs/your-own-data.md: every command in it, on what it is said to be for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.cli import run
from deeplab.data import open_dataset
from deeplab.data.check import check
from tiny_exports import COLOURS, NAMES, WRITERS, Scene, draw_scenes, save_photos
from tiny_folder import label

TABLE = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text("utf-8")
COMMANDS = re.findall(r"^\|.*\| `deeplab (data convert .*)` \|$", TABLE, re.MULTILINE)

SCENES = draw_scenes(8, 20, masks=False)


def made_by(tool: str, *, photos: str = "") -> Callable[[Path], None]:
    """Return what writes a tool's export under the name that the command has."""

    def make(target: Path) -> None:
        source = WRITERS[tool](target.parent / "export", SCENES)
        if source.is_dir():
            source.rename(target)
            return
        for path in (target.parent / "export").iterdir():
            path.rename(target.parent / path.name)
        (target.parent / source.name).rename(target)
        if photos:
            (target.parent / photos).mkdir()
            for scene in SCENES:
                shutil.move(target.parent / scene.file_name, target.parent / photos)

    return make


def make_cvat_masks(target: Path) -> None:
    save_photos(target / "JPEGImages", SCENES)
    (target / "SegmentationClass").mkdir()
    for index, scene in enumerate(SCENES):
        ids = label(index, *scene.size) % 255
        path = target / "SegmentationClass" / scene.file_name
        Image.fromarray(np.array(COLOURS, np.uint8)[ids]).save(path)
    lists = target / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("\n".join(scene.file_name[:-4] for scene in SCENES))
    lines = (f"{n}:{','.join(map(str, c))}::\n" for n, c in zip(NAMES, COLOURS, strict=True))
    (target / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(lines))


def make_roboflow_masks(target: Path) -> None:
    for split, scenes in (("train", SCENES[:15]), ("valid", SCENES[15:])):
        save_photos(target / split, [Scene(s.file_name, *s.size, ()) for s in scenes])
        for index, scene in enumerate(scenes):
            ids = label(index, *scene.size) % 255
            Image.fromarray(ids).save(target / split / f"{scene.file_name[:-4]}_mask.png")
        rows = "".join(f"{index}, {name}\n" for index, name in enumerate(NAMES))
        (target / split / "_classes.csv").write_text("Pixel Value, Class\n" + rows)


def make_via_csv(target: Path) -> None:
    made_by("via")(target.with_suffix(".json"))
    rows = ["filename,region_shape_attributes,region_attributes"]
    for entry in json.loads(target.with_suffix(".json").read_text()).values():
        for region in entry["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]:
            cells = (json.dumps(region[f"{part}_attributes"]) for part in ("shape", "region"))
            quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
            rows.append(f"{entry['filename']},{quoted}")
    target.write_text("\n".join(rows))


MAKERS = {
    "instances.json": made_by("coco"),
    "labelme/": made_by("labelme"),
    "annotations.xml": made_by("cvat"),
    "cvat-masks/": make_cvat_masks,
    "roboflow-masks/": make_roboflow_masks,
    "data.yaml": made_by("yolo"),
    "project.json": made_by("label_studio", photos="photos"),
    "project/": made_by("supervisely"),
    "via.json": made_by("via"),
    "via.csv": make_via_csv,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.split()
    MAKERS[words[2]](tmp_path / words[2])
    assert run(words) == 0
    datasets = [open_dataset("pets", split=split) for split in ("train", "val")]
    assert [len(dataset) for dataset in datasets] in ([16, 4], [15, 5])
    assert not check(datasets).stops


def test_every_kind_of_export_stands_in_the_table() -> None:
    assert {command.split()[2] for command in COMMANDS} == set(MAKERS)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of other classes to start from, as a pair."""
    torch = pytest.importorskip("torch")
    from deeplab.labels import LabelSet
    from deeplab.models import DeepLabConfig, build
    from deeplab.photo.images import InputSpec
    from deeplab.weights.release import save

    torch.manual_seed(0)
    config = DeepLabConfig(depth_multiplier=0.1, head_channels=8, num_classes=3)
    stem = tmp_path_factory.mktemp("start") / "start"
    labels, spec = LabelSet(("background", "a", "cat")), InputSpec(height=65, width=65)
    save(stem, config, build(config).state_dict(), labels=labels, input_spec=spec)
    return stem.with_suffix(".json")


@pytest.mark.integration
@pytest.mark.parametrize("command", COMMANDS)
def test_from_an_export_to_own_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Path, command: str
) -> None:
    """Convert, check, train, evaluate, segment: as one types it, without an edit."""
    monkeypatch.chdir(tmp_path)
    words = command.split()
    MAKERS[words[2]](tmp_path / words[2])
    photo = tmp_path / "photo.png"
    save_photos(tmp_path, [Scene(photo.name, 60, 70, ())])
    for typed in (
        words,
        ["data", "check", "pets"],
        ["train", "--data", "pets", "--init", str(start), "--steps", "2", "-s", "data.workers=0"],
        ["evaluate", "runs/pets/pets.json", "pets"],
        ["segment", str(photo), "-m", "runs/pets/pets.json", "-o", "out", "--save", "mask"],
    ):
        assert run(typed) == 0, typed
    assert len(list(Path("out").glob("*.mask.png"))) == 1
