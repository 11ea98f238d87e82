"""What other people's readers say of an export is what the conversion makes of it.

They fill outlines by rules of their own, so pixels within 1.5 of an outline are left aside; run
lengths, brush masks and mask files are equal to the last pixel.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.data.shapes import fill_polygon
from tiny_exports import COLOURS, NAMES, WRITERS, Scene, draw_scenes, near_outlines, save_photos

pytestmark = pytest.mark.oracles

ORACLES = Path(__file__).parents[1] / "oracles"
Things = dict[str, list[tuple[str, np.ndarray[Any, Any]]]]


def ask(python: Path, script: str, *arguments: object) -> None:
    """Run a script in the environment of the oracles."""
    done = subprocess.run(
        [python, ORACLES / script, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def things_of(path: Path) -> Things:
    """Return what an oracle found: {photo: [(class, (H, W) bool), …]}, in its order."""
    found: Things = defaultdict(list)
    with np.load(path) as arrays:
        for key in arrays.files:
            name, _, label = key.split("|")
            found[name].append((label, arrays[key].astype(bool)))
    return found


def alike(things: list[tuple[str, np.ndarray[Any, Any]]]) -> bool:
    """Return whether two things are so alike in size that the border decides which is larger."""
    areas = sorted(int(where.sum()) for _, where in things)
    return any(b < 1.25 * a + 20 for a, b in itertools.pairwise(areas))


def lay_out_for_datumaro(tool: str, source: Path, scenes: list[Scene], folder: Path) -> Path:
    """Return what datumaro is to be given: COCO stands in annotations/ and images/ for it."""
    if tool != "coco":
        return source.parent
    (folder / "annotations").mkdir(parents=True)
    shutil.copy(source, folder / "annotations" / "instances_default.json")
    save_photos(folder / "images", scenes)
    return folder


@pytest.mark.parametrize(
    ("reader", "tool", "images"),
    [
        ("supervision:coco", "coco", "."),
        ("supervision:yolo", "yolo", "images/train"),
        ("datumaro:coco", "coco", "."),
        ("datumaro:cvat", "cvat", "images"),
        ("label_studio", "label_studio", "."),
    ],
)
def test_drawn_things(tmp_path: Path, oracles: Path, reader: str, tool: str, images: str) -> None:
    scenes = draw_scenes(31, 60, masks=tool != "yolo")
    if reader == "label_studio":  # its decoder is of brush masks
        scenes = [
            Scene(s.file_name, *s.size, tuple(t for t in s.things if t.mask is not None))
            for s in scenes
        ]
    source = WRITERS[tool](tmp_path / "in", scenes)
    given = source
    if reader.startswith("datumaro"):
        given = lay_out_for_datumaro(tool, source, scenes, tmp_path / "datumaro")
    ask(oracles, "ask.py", reader, given, tmp_path / "in" / images, tmp_path / "found.npz")
    found = things_of(tmp_path / "found.npz")
    convert(source, tmp_path / "out", split="train")
    compared = 0
    for scene, sample in zip(scenes, open_dataset(tmp_path / "out"), strict=True):
        things = found[scene.file_name[:-4]]
        assert len(things) == len(scene.things)
        if tool in ("coco", "yolo"):
            if alike(things):
                continue
            things.sort(key=lambda thing: -int(thing[1].sum()))
        wanted = np.zeros(scene.size, np.uint8)
        for label, where in things:
            wanted[where] = NAMES.index(label)
        far = ~near_outlines(scene)
        assert np.array_equal(sample.label[far], wanted[far]), scene.file_name
        compared += 1
    assert compared > 40


@pytest.mark.parametrize("kind", ["voc", "camvid"])
def test_mask_folders_that_datumaro_writes_for_cvat(
    tmp_path: Path, oracles: Path, kind: str
) -> None:
    scenes = draw_scenes(32, 40)
    labels = {}
    for scene in scenes:
        label = np.zeros(scene.size, np.uint8)
        for thing in scene.things:
            where = fill_polygon(scene.size, thing.outline) if thing.mask is None else thing.mask
            label[where] = NAMES.index(thing.name)
        labels[scene.file_name[:-4]] = label
    np.savez(tmp_path / "labels.npz", **labels)
    save_photos(tmp_path / "photos", scenes)
    names = ",".join(name.replace(" ", "_") for name in NAMES)
    colours = ";".join(",".join(map(str, colour)) for colour in COLOURS)
    ask(
        oracles, "write_masks.py", kind, tmp_path / "labels.npz", tmp_path / "photos", names,
        colours, tmp_path / "in",
    )  # fmt: skip
    made = convert(tmp_path / "in", tmp_path / "out", split="train")
    assert made.classes == tuple(names.split(","))
    assert made.count == 40
    for sample in open_dataset(tmp_path / "out"):
        assert np.array_equal(sample.label, labels[Path(sample.id).name])
