"""Small exports as annotation tools write them, of scenes drawn at random."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image

from tiny_folder import photo

Bools = npt.NDArray[np.bool_]

NAMES = ("background", "cat", "dog", "hen house")
COLOURS = ((0, 0, 0), (250, 50, 83), (61, 61, 245), (51, 221, 255))


@dataclass(frozen=True)
class Thing:
    """Something on a photo: a class, and an outline of (x, y) or a mask."""

    name: str
    outline: tuple[tuple[float, float], ...] = ()
    mask: Bools | None = None


@dataclass(frozen=True)
class Scene:
    """A photo and the things on it, the largest first."""

    file_name: str
    height: int
    width: int
    things: tuple[Thing, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def draw_scenes(seed: int, count: int, *, masks: bool = True, nested: bool = False) -> list[Scene]:
    """Draw scenes with up to three things each, of clearly different size."""
    draw = np.random.default_rng(seed)
    scenes = []
    for index in range(count):
        height, width = (int(side) for side in draw.integers(24, 80, 2))
        things = []
        for scale in (1.0, 0.55, 0.3)[: draw.integers(0, 4)]:
            name = NAMES[draw.integers(1, len(NAMES))]
            outline = _star(draw, height, width, scale)
            if masks and draw.random() < 0.5:
                things.append(Thing(name, mask=_blot(draw, height, width, scale)))
            else:
                things.append(Thing(name, outline=outline))
        folder = ("", "sub/", "sub/deep/")[index % 3] if nested else ""
        scenes.append(Scene(f"{folder}p{index:04}.png", height, width, tuple(things)))
    return scenes


def _star(draw: np.random.Generator, height: int, width: int, scale: float) -> Any:
    corners = int(draw.integers(3, 12))
    angles = np.sort(draw.uniform(0, 2 * np.pi, corners))
    radius = scale * min(height, width) / 2 * draw.uniform(0.7, 1.0, corners)
    x = draw.uniform(0.2, 0.8) * width + radius * np.cos(angles)
    y = draw.uniform(0.2, 0.8) * height + radius * np.sin(angles)
    inside = zip(np.clip(x, 0, width - 0.01), np.clip(y, 0, height - 0.01), strict=True)
    return tuple((round(float(a), 2), round(float(b), 2)) for a, b in inside)


def _blot(draw: np.random.Generator, height: int, width: int, scale: float) -> Bools:
    rows, columns = np.mgrid[:height, :width]
    y, x = draw.uniform(0, height), draw.uniform(0, width)
    blot = np.hypot(rows - y, columns - x) < scale * min(height, width) / 2
    return blot & (draw.random((height, width)) < draw.choice([0.5, 0.95, 1.0]))


def save_photos(folder: Path, scenes: Sequence[Scene]) -> None:
    """Write the photos of the scenes; every one is another picture."""
    for index, scene in enumerate(scenes):
        path = folder / scene.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(index, scene.height, scene.width)).save(path, compress_level=1)


def run_lengths(where: Bools) -> list[int]:
    """Return the lengths of runs of false and true in turn, false first, in row order."""
    flat = where.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *changes, flat.size]).tolist()


def compress(runs: Sequence[int]) -> str:
    """Return COCO's string, written from its definition."""
    text = ""
    for index, run in enumerate(runs):
        value = run - (runs[index - 2] if index > 2 else 0)
        more = True
        while more:
            digit = value & 0x1F
            value >>= 5
            more = value != -1 if digit & 0x10 else value != 0
            text += chr((digit | 0x20 if more else digit) + 48)
    return text


def png(array: Any) -> bytes:
    """Return an array as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(array: Any) -> str:
    """Return an array as PNG in base64."""
    return base64.b64encode(png(array)).decode()


def crop(where: Bools) -> tuple[int, int, Bools]:
    """Return (top, left, part) of the smallest rectangle that holds all of a mask."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    if not len(rows):
        return 0, 0, where[:1, :1]
    part = where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return int(rows[0]), int(columns[0]), part


def near_outlines(scene: Scene, reach: float = 1.5) -> Bools:
    """Return the pixels near an outline; programs differ in which of them belong to it."""
    rows, columns = np.mgrid[: scene.height, : scene.width].astype(float)
    near = np.zeros(scene.size, bool)
    for thing in scene.things:
        corners = np.array(thing.outline).reshape(-1, 2)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            length = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
            for shift in (
                0.0,
                0.5,
            ):  # a pixel's centre is at (0, 0) for some, (0.5, 0.5) for others
                x, y = columns + shift - ax, rows + shift - ay
                along = np.clip((x * (bx - ax) + y * (by - ay)) / length, 0, 1)
                near |= np.hypot(x - along * (bx - ax), y - along * (by - ay)) <= reach
    return near


# -- COCO ----------------------------------------------------------------------------------------


def write_coco(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write photos and an instances.json; masks are run lengths, as list and as text in turn."""
    save_photos(root, scenes)
    annotations: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        for thing in scene.things:
            number = len(annotations) + 1
            segmentation: Any
            if thing.mask is None:
                segmentation = [[value for point in thing.outline for value in point]]
                xs, ys = zip(*thing.outline, strict=True)
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            else:
                runs = run_lengths(thing.mask.T)
                counts = compress(runs) if number % 2 else runs
                segmentation = {"size": list(scene.size), "counts": counts}
                top, left, part = crop(thing.mask)
                box = [left, top, part.shape[1], part.shape[0]]
            annotations.append(
                {
                    "id": number,
                    "image_id": index + 1,
                    "category_id": NAMES.index(thing.name),
                    "segmentation": segmentation,
                    "bbox": box,
                    "area": 1 if thing.mask is None else int(thing.mask.sum()),
                    "iscrowd": int(thing.mask is not None),
                }
            )
    images = [
        {"id": index + 1, "file_name": s.file_name, "height": s.height, "width": s.width}
        for index, s in enumerate(scenes)
    ]
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(NAMES) if i]
    path = root / "instances.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


# -- labelme -------------------------------------------------------------------------------------


def write_labelme(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write a folder of photos with a JSON file each."""
    save_photos(root, scenes)
    for scene in scenes:
        shapes = []
        for thing in scene.things:
            shape: dict[str, Any] = {"label": thing.name, "group_id": None, "flags": {}}
            if thing.mask is None:
                shape |= {"shape_type": "polygon", "points": [list(p) for p in thing.outline]}
            else:
                top, left, part = crop(thing.mask)
                corner = [left + part.shape[1] - 1, top + part.shape[0] - 1]
                shape |= {
                    "shape_type": "mask",
                    "points": [[left, top], corner],
                    "mask": base64_png(part.astype(np.uint8) * 255),
                }
            shapes.append(shape)
        content = {
            "version": "5.8.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(scene.file_name).name,
            "imageData": None,
            "imageHeight": scene.height,
            "imageWidth": scene.width,
        }
        (root / scene.file_name).with_suffix(".json").write_text(json.dumps(content))
    return root


# -- CVAT ----------------------------------------------------------------------------------------


def write_cvat(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write images/ and an annotations.xml."""
    save_photos(root / "images", scenes)
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES[1:])
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>",
    ]
    for index, scene in enumerate(scenes):
        name = quoteattr(scene.file_name)
        lines.append(
            f'<image id="{index}" name={name} width="{scene.width}" height="{scene.height}">'
        )
        for layer, thing in enumerate(scene.things):
            start = f'label="{thing.name}" source="manual" occluded="0" z_order="{layer}"'
            if thing.mask is None:
                corners = ";".join(f"{x:.2f},{y:.2f}" for x, y in thing.outline)
                lines.append(f'<polygon {start} points="{corners}"></polygon>')
            else:
                top, left, part = crop(thing.mask)
                runs = ", ".join(map(str, run_lengths(part)))
                height, width = part.shape
                lines.append(
                    f'<mask {start} rle="{runs}" left="{left}" top="{top}" width="{width}" '
                    f'height="{height}"></mask>'
                )
        lines.append("</image>")
    path = root / "annotations.xml"
    path.write_text("\n".join([*lines, "</annotations>"]))
    return path


# -- YOLO ----------------------------------------------------------------------------------------


def write_yolo(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write images/train and labels/train with a data.yaml; only outlines are written."""
    save_photos(root / "images" / "train", scenes)
    for scene in scenes:
        lines = []
        for thing in scene.things:
            shares = (f"{x / scene.width:.6f} {y / scene.height:.6f}" for x, y in thing.outline)
            if thing.outline:
                lines.append(f"{NAMES.index(thing.name) - 1} {' '.join(shares)}")
        path = (root / "labels" / "train" / scene.file_name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES[1:]))
    path = root / "data.yaml"
    path.write_text(f"path: .\ntrain: images/train\nval: images/train\nnames:\n{names}")
    return path


# -- Label Studio --------------------------------------------------------------------------------


def brush(values: npt.NDArray[np.uint8]) -> list[int]:
    """Return the bytes of a brush mask from its (H, W, 4) values, in runs and single numbers."""
    flat = values.ravel()
    bits = f"{len(flat):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    ends = np.flatnonzero(np.diff(np.concatenate([flat, [-1]]).astype(np.int64))) + 1
    parts, start = [bits], 0
    for end in ends.tolist():
        while start < end:
            length = min(end - start, 1 << 16)
            place = next(i for i, size in enumerate((3, 4, 8, 16)) if length <= 1 << size)
            size = (3, 4, 8, 16)[place]
            parts.append(f"1{place:02b}{length - 1:0{size}b}{flat[start]:08b}")
            start += length
    text = "".join(parts)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


def write_label_studio(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write photos and a JSON export."""
    save_photos(root, scenes)
    tasks = []
    for index, scene in enumerate(scenes):
        results = []
        for number, thing in enumerate(scene.things):
            value: dict[str, Any]
            if thing.mask is None:
                kind = "polygonlabels"
                corners = [
                    [100 * x / scene.width, 100 * y / scene.height] for x, y in thing.outline
                ]
                value = {"points": corners, "closed": True}
            else:
                kind = "brushlabels"
                levels = np.repeat(thing.mask[..., None], 4, axis=2).astype(np.uint8) * 255
                value = {"format": "rle", "rle": brush(levels)}
            results.append(
                {
                    "id": f"r{index}_{number}",
                    "type": kind,
                    "value": value | {kind: [thing.name]},
                    "original_width": scene.width,
                    "original_height": scene.height,
                    "image_rotation": 0,
                    "from_name": "label",
                    "to_name": "image",
                }
            )
        address = f"/data/upload/1/0123abcd-{scene.file_name}"
        annotations = [{"id": index, "was_cancelled": False, "result": results}]
        tasks.append({"id": index, "data": {"image": address}, "annotations": annotations})
    path = root / "export.json"
    path.write_text(json.dumps(tasks))
    return path


# -- Supervisely ---------------------------------------------------------------------------------


def write_supervisely(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write a project of one data set."""
    save_photos(root / "ds" / "img", scenes)
    (root / "ds" / "ann").mkdir(parents=True, exist_ok=True)
    classes = [{"title": name, "shape": "any", "color": "#0A14FF"} for name in NAMES[1:]]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    for scene in scenes:
        objects: list[dict[str, Any]] = []
        for number, thing in enumerate(scene.things):
            entry: dict[str, Any] = {"id": number, "classTitle": thing.name, "tags": []}
            if thing.mask is None:
                exterior = [list(point) for point in thing.outline]
                entry |= {"geometryType": "polygon"}
                entry |= {"points": {"exterior": exterior, "interior": []}, "bitmap": None}
            else:
                top, left, part = crop(thing.mask)
                packed = base64.b64encode(zlib.compress(png(part))).decode()
                entry |= {"geometryType": "bitmap"}
                entry |= {"bitmap": {"origin": [left, top], "data": packed}}
            objects.append(entry)
        size = {"height": scene.height, "width": scene.width}
        content = {"description": "", "tags": [], "size": size, "objects": objects}
        path = root / "ds" / "ann" / f"{scene.file_name}.json"
        path.write_text(json.dumps(content))
    return root


# -- VIA -----------------------------------------------------------------------------------------


def write_via(root: Path, scenes: Sequence[Scene]) -> Path:
    """Write photos and VIA's JSON; only outlines are written."""
    save_photos(root, scenes)
    content = {}
    for scene in scenes:
        regions = []
        for thing in scene.things:
            if thing.outline:
                xs, ys = (list(values) for values in zip(*thing.outline, strict=True))
                shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
                regions.append(
                    {"shape_attributes": shape, "region_attributes": {"kind": thing.name}}
                )
        entry = {"filename": scene.file_name, "size": 1, "regions": regions, "file_attributes": {}}
        content[f"{scene.file_name}1"] = entry
    path = root / "via.json"
    path.write_text(json.dumps(content))
    return path


WRITERS: dict[str, Callable[[Path, Sequence[Scene]], Path]] = {
    "coco": write_coco,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "yolo": write_yolo,
    "label_studio": write_label_studio,
    "supervisely": write_supervisely,
    "via": write_via,
}
"""Tool -> what writes its export and returns what is to be converted."""

OUTLINES_ONLY = ("yolo", "via")
"""Tools that have no masks."""
