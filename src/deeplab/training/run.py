"""Training from Python: ``deeplab.train`` gives a :class:`Run`, the folder of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.data.objects import ObjectDataset
from deeplab.errors import InputError
from deeplab.plot import Svg
from deeplab.training.experiment import run_experiment
from deeplab.training.history import Row, read_history
from deeplab.training.history_plot import draw_history
from deeplab.training.loop import Callbacks, Score, StepNews
from deeplab.training.own import name_pieces
from deeplab.training.preset import choose_settings, deadline
from deeplab.training.settings import Settings, apply_overrides, read_recipe, read_tables
from deeplab.weights.release import open_release

if TYPE_CHECKING:
    from deeplab.segmenter import Segmenter


@dataclass(frozen=True)
class Run:
    """A training, finished or not: what its folder holds.

    Attributes:
        folder: of the training.
        settings: the effective ones.
    """

    folder: Path
    settings: Settings

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Run:
        """Open the folder of a training that was run before.

        Raises:
            InputError: no training has begun there.
        """
        folder = Path(folder)
        recipe = folder / "recipe.toml"
        if not recipe.is_file():
            raise InputError(f"run: {folder} has no recipe.toml; no training has begun there.")
        return cls(folder, read_recipe(recipe))

    @property
    def model(self) -> Path:
        """The release pair of the best weights: what ``Segmenter`` and ``export`` open.

        Raises:
            InputError: no validation has ended yet.
        """
        path = self.folder / f"{self.settings.name}.json"
        if not path.is_file():
            raise InputError(f"run: {self.folder} has no network yet; no validation has ended.")
        return path

    @property
    def history(self) -> list[Row]:
        """One row of numbers per step that has some: step, loss, miou, ``iou.NAME``, …

        Raises:
            InputError: there is none, or it is damaged.
        """
        return read_history(self.folder / "history.csv")

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of the best weights on the split that chose them."""
        return dict(open_release(self.model).scores[self.settings.data.judged_by])

    @property
    def step(self) -> int:
        """Steps done before the best weights."""
        return int(open_release(self.model).provenance["step"])

    def plot(self) -> Svg:
        """Return the history as a picture that a notebook shows; ``save`` writes it."""
        return draw_history(self.history)

    def segmenter(self, **options: Any) -> Segmenter:
        """Open the best weights; options are those of :class:`deeplab.Segmenter`."""
        from deeplab.segmenter import Segmenter

        return Segmenter(self.model, **options)

    def __repr__(self) -> str:
        try:
            best = f"mIoU {self.scores['miou']:.4f} at step {self.step}"
        except InputError:
            best = "no validation yet"
        return f"<Run {self.folder}: {best}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.plot()}"


def train(
    data: str | PathLike[str] | Any,
    *,
    val: Any = None,
    recipe: str | PathLike[str] | None = None,
    folder: str | PathLike[str] | None = None,
    name: str | None = None,
    init: str | PathLike[str] | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seconds: float | None = None,
    batch_size: int | None = None,
    network: Callable[[int], Any] | str | None = None,
    loss: Callable[..., Any] | str | Mapping[Any, float] | None = None,
    optimiser: Callable[..., Any] | str | None = None,
    augmentation: Callable[..., Any] | Sequence[Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    on_step: Callable[[StepNews], bool | str | None] | None = None,
    on_validation: Callable[[int, Score], bool | str | None] | None = None,
    tell: Callable[[str], None] = print,
) -> Run:
    """Train a network, as ``deeplab train`` does; the same call resumes.

    >>> run = deeplab.train("pets", steps=200)
    >>> run.segmenter()("photo.jpg").overlay()

    Args:
        data: folder of a data set in any known layout, or an object with ``labels``, a length, and
            (image, label) for every index, see :class:`deeplab.data.objects.ObjectDataset`.
        val: where ``data`` is such an object, another one: it decides which weights are best.
        recipe: a TOML recipe to begin with; what else is given goes before it.
        folder: where to write, and to resume; None is runs/NAME.
        name: of the run and its network; None is the recipe's or the folder's of the data.
        init: weights to start from: a file, a name, or "none" for random ones; None is the
            network that comes with the package.
        steps: optimiser steps.
        epochs: how often every photo is seen, in place of steps.
        seconds: plan for this long and stop within it; 0 releases the start with its classes
            computed at once.
        batch_size: pictures per step.
        network: of your own, a class or function of the number of classes; see docs/pieces.md for
            this and the next three.
        loss: of your own, (logits, label) to a number; a name; or weights by these.
        optimiser: of your own, (parameter groups) to a ``torch.optim.Optimizer``; or a name.
        augmentation: of your own, (sample, generator) to a sample; or several.
        settings: any other setting by its dotted name, ``{"schedule.base": 0.01}``.
        on_step: called after every step with a :class:`StepNews`; True ends the training, saved.
        on_validation: called after every validation with the steps done and a :class:`Score`;
            True ends the training too.
        tell: where sentences go.

    Raises:
        InputError, DataError, WeightsError: the settings, data or starting weights do not fit.
        TrainingError: the training cannot go on.
        KeyboardInterrupt: Ctrl-C or SIGTERM ended it; what was done is saved.
    """
    is_folder, datasets = isinstance(data, str | PathLike), _objects(data, val)
    overrides = {
        "name": name,
        "data.path": str(data) if is_folder else None,
        "init.path": None if init is None else str(init),
        "run.steps": steps,
        "run.batch_size": batch_size,
        **name_pieces(network=network, loss=loss, optimiser=optimiser, augmentation=augmentation),
        **(settings or {}),
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if recipe is not None:
        tables = read_tables(Path(recipe))
    else:
        tables = {"name": Path(data).resolve().name if is_folder else "run"}
    own_plan = bool({"schedule", "optimiser"} & set(tables))
    values = apply_overrides(tables, overrides)
    place = Path("runs") / str(values["name"]) if folder is None else Path(folder)
    chosen = choose_settings(
        values,
        folder=place,
        own_plan=own_plan,
        epochs=epochs,
        seconds=seconds,
        datasets=datasets,
        tell=tell,
    )

    callbacks = Callbacks(step=_either(on_step, deadline(seconds).step), validation=on_validation)
    progress = run_experiment(chosen, place, tell=tell, callbacks=callbacks, datasets=datasets)
    if progress.interrupted:
        raise KeyboardInterrupt
    return Run(place, chosen)


def _objects(data: Any, val: Any) -> tuple[ObjectDataset, ObjectDataset] | None:
    """Return the data to learn from and to judge by, where they are no folder.

    Raises:
        InputError: one of them is missing.
    """
    if isinstance(data, str | PathLike):
        if val is not None:
            raise InputError("val: is for objects; the folder of a data set has its own splits.")
        return None
    if val is None:
        raise InputError("val: is missing; an object as data needs another one to judge by.")
    return ObjectDataset(data, "train"), ObjectDataset(val, "val")


_Hear = Callable[[StepNews], bool | str | None]


def _either(first: _Hear | None, second: _Hear | None) -> _Hear | None:
    """Return what asks both after a step; either ends the training."""
    if first is None or second is None:
        return first or second

    def both(news: StepNews) -> bool | str | None:
        answers = first(news), second(news)  # both are asked, always
        return answers[0] or answers[1]

    return both
