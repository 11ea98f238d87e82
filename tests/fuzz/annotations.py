"""Change annotation files at random: what a converter makes of them is right, or said in words.

``run(tool, folder, seed=…, count=…)`` does both and returns what was wrong; it is meant to be
called for a few hundred changes in the suite and for many thousands by hand.
"""

from __future__ import annotations

import copy
import glob
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.data import list_splits, open_dataset
from deeplab.data.convert import convert
from deeplab.data.description import read_description
from deeplab.data.masks import IGNORE
from deeplab.errors import DeepLabError
from tiny_exports import WRITERS, draw_scenes

_SUFFIXES = {"cvat": ".xml", "yolo": (".txt", ".yaml")}

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 65536, 10**9, 10**19, 10**400, 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), "", " ", "0", "1", "-7", "1e5", "cat", "nan", "a.jpg", "../a.jpg",
    "C:\\a.jpg", "\x00", "\ud800", "ä猫\n", "x" * 300, [], [[]], [[[]]], {}, [None], [1], [1, 2],
    [1, 2, 3], {"a": 1}, [[1, 2], [3]], {"size": [1, 1], "counts": "1"}, {"size": [10**6] * 2},
)  # fmt: skip


# -- what is changed -----------------------------------------------------------------------------


def places_of(content: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything inside a JSON document."""
    places = []
    stack = [content]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                stack.append(value)
    return places


def change_json(content: Any, draw: random.Random) -> Any:
    """Return a JSON document with one to three places changed."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = places_of(content)
        if not places:
            return copy.deepcopy(draw.choice(_ODD))
        # Deep places are many (the numbers of outlines); by key, rare ones get their turn too.
        keys = sorted({str(key) for _, key in places if isinstance(key, str)})
        wanted = draw.choice(keys) if keys and draw.random() < 0.7 else None
        some = [place for place in places if wanted is None or place[1] == wanted]
        node, key = draw.choice(some or places)
        _change_place(node, key, places, draw)
    return content


def _change_place(node: Any, key: Any, places: list[tuple[Any, Any]], draw: random.Random) -> None:
    how = draw.randrange(8)
    value = node[key]
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, list):
        node.insert(key, copy.deepcopy(value))
    elif how == 2 and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    elif how == 3:
        other, place = draw.choice(places)
        try:
            node[key] = copy.deepcopy(other[place])
        except (KeyError, IndexError):
            node[key] = None
    elif how == 4 and isinstance(value, int | float) and not isinstance(value, bool):
        node[key] = draw.choice((-value, value + 1, value * 1000, str(value), [value], value // 3))
    elif how == 5 and isinstance(value, list):
        node[key] = draw.choice((value[::-1], value[:-1], value[:1], value + value, value[1:]))
    elif how == 6 and isinstance(value, str):
        node[key] = change_text(value, draw)
    else:
        node[key] = copy.deepcopy(draw.choice(_ODD))


def change_text(text: str, draw: random.Random) -> str:
    """Return a text with something cut, doubled, changed or put in."""
    start = draw.randint(0, len(text))
    end = min(len(text), start + draw.choice((0, 1, 1, 2, 8, len(text))))
    put = draw.choice(("", "", "0", "-", ".", ",", ";", " ", "\n", '"', "<", "ä", "\x00", "9" * 30))
    if draw.random() < 0.2:
        put = text[start:end] * 2
    return text[:start] + put + text[end:]


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return a file with bytes changed, cut, or in another encoding."""
    how = draw.randrange(6)
    if how == 0:
        return data[: draw.randint(0, len(data))]
    if how == 1:
        encoding = draw.choice(("utf-16", "utf-8-sig", "utf-16-le", "utf-32", "gbk", "latin-1"))
        return data.decode("utf-8").encode(encoding, errors="replace")
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if changed:
            at = draw.randrange(len(changed))
            changed[at] = (
                draw.randrange(256) if how != 2 else changed[at] ^ (1 << draw.randrange(8))
            )
    return bytes(changed)


def change_file(data: bytes, suffix: str, draw: random.Random) -> bytes:
    """Return an annotation file changed by structure, by text, or by bytes."""
    way = draw.random()
    if suffix == ".json" and way < 0.75:
        changed = json.dumps(change_json(json.loads(data), draw))
        return changed.encode("utf-8", errors="surrogatepass")
    if way < 0.9:
        text = change_text(data.decode("utf-8"), draw)
        return text.encode("utf-8")
    return change_bytes(data, draw)


# -- what is right -------------------------------------------------------------------------------


def judge(
    source: Path, images: Path | None, out: Path, *, skip: bool, thorough: bool = True
) -> tuple[str, str]:
    """Convert and return (how it ended, what is wrong with that); the second is empty if nothing.

    Right is a whole data set in which every pair has one size and every id is a class, or a
    DeepLabError that names a file of the export, and nothing left on the disk.
    """
    before = set(out.parent.iterdir())
    try:
        made = convert(source, out, images=images, skip_unreadable=skip)
    except DeepLabError as error:
        left = set(out.parent.iterdir()) - before
        told = str(error)
        if left:
            return "refused", f"left {sorted(path.name for path in left)}"
        if "\n" in told or len(told) > 1500:
            return "refused", f"not one line: {told[:300]!r}"
        known = {path.name for path in source.parent.rglob("*")} | {source.name, "photo", "class"}
        return "refused", "" if any(name in told for name in known) else f"names nothing: {told}"
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if set(out.parent.iterdir()) - before != {out}:
        return "converted", "left more than the data set"
    return "converted", _wrong_in(out, made.count, thorough=thorough)


def _wrong_in(root: Path, count: int, *, thorough: bool) -> str:
    classes = len(read_description(root / "dataset.toml").classes)
    names = [name for path in root.glob("*.txt") for name in path.read_text("utf-8").splitlines()]
    masks = {p.relative_to(root / "masks").with_suffix("").as_posix(): p
             for p in (root / "masks").rglob("*.png")}  # fmt: skip
    if sorted(names) != sorted(masks) or len(names) != count:
        return f"lists of {len(names)}, {len(masks)} masks, {count} told"
    for name, mask in masks.items():
        [photo] = (root / "images" / name).parent.glob(f"{glob.escape(Path(name).name)}.*")
        with Image.open(photo) as opened, Image.open(mask) as label:
            if opened.size != label.size:
                return f"{mask}: another size than its photo"
            ids = np.unique(np.asarray(label))
        if any(value >= classes and value != IGNORE for value in ids.tolist()):
            return f"{mask}: holds {ids.tolist()} with {classes} classes"
    if thorough:
        splits = [split for split in list_splits(root) if split != "all"]
        opened_ = sum(len([*open_dataset(root, split=split)]) for split in splits)
        return "" if opened_ == count else f"{opened_} pairs are read, {count} told"
    return ""


def run(
    tool: str, folder: Path, *, seed: int, count: int, told: Callable[[str], None] = print
) -> tuple[Counter[str], list[str]]:
    """Change the files of one tool's export ``count`` times.

    Returns:
        How often the conversion ended how, and what was wrong, each with the number that
        ``draw = random.Random(f"{tool} {seed} {number}")`` makes again.
    """
    scenes = draw_scenes(seed, 2, masks=tool not in ("yolo", "via"))
    source = WRITERS[tool](folder / "export", scenes)
    suffixes = _SUFFIXES.get(tool, ".json")
    files = sorted(p for p in (folder / "export").rglob("*") if p.name.endswith(suffixes))
    originals = {path: path.read_bytes() for path in files}
    images = folder / "export" / {"cvat": "images", "yolo": "images/train"}.get(tool, "")
    given = images if tool == "label_studio" else None
    ends: Counter[str] = Counter()
    wrong = []
    (folder / "made").mkdir()
    for number in range(count):
        draw = random.Random(f"{tool} {seed} {number}")
        path = draw.choice(files)
        path.write_bytes(change_file(originals[path], path.suffix, draw))
        out = folder / "made" / "out"
        end, problem = judge(
            source, given, out, skip=draw.random() < 0.4, thorough=number % 10 == 0
        )
        ends[end] += 1
        if problem:
            wrong.append(f"{tool} {seed} {number}: {end}: {problem}")
            told(wrong[-1])
        shutil.rmtree(folder / "made")
        (folder / "made").mkdir()
        path.write_bytes(originals[path])
    return ends, wrong
