"""What layers are called in exported files: NAME, and NAME:2 where another scale runs it again."""

from __future__ import annotations

import re
from collections import Counter


def layer_name(parameter: str) -> str:
    """Return the layer of a weight: backbone.stem.conv.weight is backbone.stem's."""
    name = re.sub(r"^network\.", "", parameter)
    return re.sub(r"(\.conv)?\.weight$", "", name).replace("_weight", "")


def number(name: str, taken: Counter[str]) -> str:
    """Return NAME where it is taken for the first time, then NAME:2; ``taken`` counts."""
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}:{taken[name]}"


def layer_of(numbered: str) -> str:
    """Return the layer that a numbered name means: NAME:2 is NAME."""
    return numbered.partition(":")[0]
