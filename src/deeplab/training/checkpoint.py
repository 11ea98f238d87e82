"""``last.pt``: everything that resuming needs, written so that a crash cannot spoil it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from deeplab.errors import DeepLabError, InputError, OutputError
from deeplab.files import replacing
from deeplab.models.config import DeepLabConfig
from deeplab.training.settings import Settings
from deeplab.weights.release import open_release
from deeplab.weights.torch_file import check_sums

LAST = "last.pt"

State = dict[str, Any]

_PARTS = {
    "recipe": dict,
    "config": dict,
    "identity": dict,
    "origin": str,
    "network": dict,
    "optimiser": dict,
    "progress": dict,
}

_PROGRESS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "judged": (int, NoneType),
    "best": (float, int, NoneType),
    "best_step": (int,),
    "stale": (int,),
    "stopped": (str,),
}
"""Of :class:`~deeplab.training.state.Progress`."""

_FREE = frozenset(
    f"run.{name}"
    for name in (
        "compile", "device", "log_every", "patience", "save_every", "steps", "track",
        "validate_every",
    )
) | {
    "data.check", "data.memory_gb", "data.more", "data.path", "data.workers", "init.path",
    "licence", "published.miou", "published.source", "published.split", "published.pictures",
    "published.scales", "published.flip", "published.output_stride",
}  # fmt: skip
"""Settings that may change when a training is resumed: the others make another training of it."""


def save_checkpoint(folder: Path, state: State) -> None:
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
        if "DataLoader worker" in str(error):  # torch reports those wherever we happen to be
            raise
        raise OutputError(f"checkpoint: {folder / LAST} cannot be written: {error}.") from error


def load_checkpoint(folder: Path) -> State | None:
    """Return the state in ``last.pt``, or None where there is none.

    Raises:
        InputError: the file is damaged, or no checkpoint of ours.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(
            f"checkpoint: {path} cannot be read ({type(error).__name__}): it is damaged, or not "
            "from a training. Move it away to start anew."
        ) from error
    whole = isinstance(state, dict) and all(
        isinstance(state.get(name), kind) for name, kind in _PARTS.items()
    )
    if not whole or not _is_progress(state["progress"]):
        raise InputError(
            f"checkpoint: {path} is not from a training, or from one of an older version. Move it "
            "away to start anew."
        )
    found: State = state
    return found


def _is_progress(progress: Mapping[Any, Any]) -> bool:
    """Return whether these say how far a training is."""
    return progress.keys() == _PROGRESS.keys() and all(
        type(value) in _PROGRESS[name] and (isinstance(value, str | None) or value >= 0)
        for name, value in progress.items()
    )


def check_checkpoint(
    saved: Mapping[str, Any], settings: Settings, identity: Mapping[str, Any], folder: Path
) -> list[str]:
    """Return the harmless changes since a checkpoint, in words.

    Args:
        saved: the state that :func:`load_checkpoint` returned.
        settings: of the training that is to go on.
        identity: of its data: classes, and a fingerprint of each list.
        folder: where the checkpoint is.

    Raises:
        InputError: the data is another, or a setting that decides the course.
    """
    path = folder / LAST
    for name, value in identity.items():
        if saved["identity"].get(name) != value:
            raise InputError(
                f"checkpoint: {path} belongs to a training on other data: {name} was "
                f"{_short(saved['identity'].get(name))}, is {_short(value)}. Take another folder "
                "(--folder), or the data of then."
            )
    try:
        then = Settings.from_dict(saved["recipe"])
        config = DeepLabConfig.from_dict(saved["config"]).to_dict()
    except DeepLabError as error:
        raise InputError(
            f"checkpoint: {path} is from another version, whose recipe is not understood here "
            f"({error}). Take another folder (--folder)."
        ) from error
    old, new = then.to_dict(), settings.to_dict()
    old["model"], new["model"] = _models(then, settings, config, measured="channels" in identity)
    changed = _differences(old, new)
    strict = [words for name, words in changed.items() if name not in _FREE]
    if strict:
        raise InputError(
            f"checkpoint: {path} belongs to another recipe; it differs in {', '.join(strict)}. "
            "Take another folder (--folder), or restore those settings to resume."
        )
    done = saved["progress"]["step"]
    if settings.run.steps < done:
        raise InputError(
            f"run.steps: got {settings.run.steps}, but the training in {folder} has done {done}; "
            f"give {done} or more, or take another folder (--folder)."
        )
    return list(changed.values())


def find_lost_best(saved: Mapping[str, Any], settings: Settings, folder: Path) -> str:
    """Return why the best weights of a training are not in its folder; "" where they are.

    A pair from after the checkpoint is right: the steps until then are taken again.
    """
    progress = saved["progress"]
    if progress.get("best") is None:
        return ""
    try:
        release = open_release(folder / settings.name)
        step = release.provenance.get("step")
        recipe = Settings.from_dict(release.provenance.get("recipe", {})).to_dict()
        score = release.scores.get(settings.data.judged_by, {}).get("miou")
    except (DeepLabError, TypeError, AttributeError, ValueError) as error:
        return str(error)
    changed = _differences(Settings.from_dict(saved["recipe"]).to_dict(), recipe)
    if any(name not in _FREE for name in changed):
        return f"{release.path} is from another recipe."
    if isinstance(step, int) and step > progress["step"]:
        return ""
    if step != progress["best_step"]:
        return f"{release.path} is from step {step}."
    if score != progress["best"] and not settings.run.validate_classes:
        return f"{release.path} has an mIoU of {score}."
    return ""


def forget_best(saved: State) -> State:
    """Return a checkpoint as if nothing had been judged, so that the next weights are kept."""
    forgotten = {"best": None, "best_step": 0, "judged": None}
    return {**saved, "progress": {**saved["progress"], **forgotten}}


def _models(
    old: Settings, new: Settings, config: Mapping[str, Any], *, measured: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both tables of the network, so that a spelled-out default is no difference.

    Without starting weights the recipe alone decides the network. With them, what is not named is
    theirs, and naming it changes nothing. What was ``measured`` on the pictures is their
    identity's to tell.
    """
    if not new.init.path:
        fields = ("pixel_mean", "pixel_std", "channel_order") if measured else ()
        given = {name: config[name] for name in fields}
        return dict(config), new.network(config["num_classes"], **given).to_dict()
    named = new.model.items()
    return old.model, {
        k: v for k, v in named if k in old.model or _plain(v) != _plain(config.get(k))
    }


def _differences(old: dict[str, Any], new: dict[str, Any], where: str = "") -> dict[str, str]:
    """Return what differs: {dotted name: in words}."""
    names: dict[str, str] = {}
    for name in sorted({*old, *new}):
        dotted, a, b = f"{where}{name}", old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names |= _differences(a, b, f"{dotted}.")
        elif _plain(a) != _plain(b):
            names[dotted] = f"{dotted} (was {a!r}, is {b!r})"
    return names


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
