"""``last.pt``: everything that resuming needs, written so that a crash cannot spoil it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from deeplab.errors import InputError, OutputError
from deeplab.files import replacing

LAST = "last.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``last.pt`` under a temporary name, flush it to the disk, then rename it.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    try:
        with replacing(folder / LAST) as partial, partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise OutputError(f"checkpoint: {folder / LAST} cannot be written: {error}.") from error


def load_checkpoint(folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state in ``last.pt``, or None where a training starts anew.

    Args:
        folder: of the training.
        recipe: the settings now, as ``Settings.to_dict``; they must be those of the checkpoint,
            except for what does not change the course: device, workers, logging, saving.

    Raises:
        InputError: the recipe has changed since, or the file cannot be read.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"checkpoint: {path} cannot be read ({error}); move it away.") from error
    changed = _differences(state["recipe"], recipe)
    if changed:
        raise InputError(
            f"checkpoint: {path} belongs to another recipe; it differs in {', '.join(changed)}. "
            "Take another folder (--folder), or restore those settings to resume."
        )
    return state


_FREE = frozenset(
    f"run.{name}" for name in ("device", "save_every", "log_every", "patience", "compile")
) | {"data.workers", "data.check", "data.path", "init.path", "licence"}


def _differences(old: dict[str, Any], new: dict[str, Any], where: str = "") -> list[str]:
    names = []
    for name in sorted({*old, *new}):
        dotted, a, b = f"{where}{name}", old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names += _differences(a, b, f"{dotted}.")
        elif _plain(a) != _plain(b) and dotted not in _FREE:
            names.append(f"{dotted} (was {a!r}, is {b!r})")
    return names


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
