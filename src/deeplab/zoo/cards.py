"""Model cards: what a model is for, what it was made of, how good it is and where it fails.

A card is a page, ``docs/models/NAME.md``. What was measured lies beside it as ``NAME.json``; the
tables of the page are made of that by ``benchmarks/card.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """A model's card.

    Attributes:
        path: the page.
        purpose: its first paragraph, in one line.
        measured: what ``benchmarks/card.py`` wrote; None where nothing was measured yet.
    """

    path: Path
    purpose: str
    measured: dict[str, Any] | None


def find_card(name: str) -> Path | None:
    """Return the page of a model, or None where there is none."""
    here = Path(__file__).resolve()
    # In an installed package they lie inside it, in a checkout among the documents.
    for folder in (here.parent / "cards", here.parents[3] / "docs" / "models"):
        path = folder / f"{name}.md"
        if path.is_file():
            return path
    return None


def read_card(name: str) -> ModelCard | None:
    """Return the card of a model, or None where there is none."""
    path = find_card(name)
    if path is None:
        return None
    _, purpose, *_ = path.read_text("utf-8").split("\n\n", 2)
    numbers = path.with_suffix(".json")
    measured = json.loads(numbers.read_text("utf-8")) if numbers.is_file() else None
    return ModelCard(path, " ".join(purpose.split()), measured)
