"""Recipes with odd values at any place: taken, or refused in one line that names the field."""

from __future__ import annotations

import copy
import random as rng
from pathlib import Path
from typing import Any

from deeplab.errors import DeepLabError
from deeplab.files import parse_toml
from deeplab.training.settings import Settings, read_recipe

_RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 10**9, 10**30, 0.5, 1e308, float("nan"), float("inf"), "",
    "x", "\x00", "ä" * 300, "[/red]", "\x1b[31m", [], [[]], [0], [1, 2], [1, 2, 3], ["a"], {},
    {"a": 1},
)  # fmt: skip


def run_one(random: rng.Random, folder: Path) -> str:
    """Read one changed recipe."""
    text = random.choice(_RECIPES).read_text("utf-8")
    if random.random() < 0.2:
        place = random.randrange(len(text))
        path = folder / "recipe.toml"
        path.write_bytes(text[:place].encode() + random.randbytes(random.randrange(4)))
        return _end(lambda: read_recipe(path))
    values = copy.deepcopy(parse_toml(text))
    for _ in range(random.choice((1, 1, 2))):
        table = random.choice([values, *(v for v in values.values() if isinstance(v, dict))])
        table[random.choice([*table, "more"])] = random.choice(_ODD)
    return _end(lambda: Settings.from_dict(values))


def _end(read: Any) -> str:
    try:
        read()
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    return "taken"
