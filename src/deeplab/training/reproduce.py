"""A published score beside ours: train a recipe, evaluate it as was published, and compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deeplab.errors import InputError
from deeplab.evaluation.scores import Scores, evaluate
from deeplab.files import replacing
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import NOBODY, Callbacks
from deeplab.training.published import Published
from deeplab.training.run import Run
from deeplab.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The published row and ours.

    Attributes:
        published: what the recipe says of it.
        miou: ours, by the same protocol.
        low, high: its 95 % interval, a bootstrap over the pictures; NaN of one picture.
        pictures: that ours was measured on.
    """

    published: Published
    miou: float
    low: float
    high: float
    pictures: int

    @property
    def verdict(self) -> str:
        """Where the published number lies, in words."""
        if self.low <= self.published.miou <= self.high:
            return "The published number lies inside of the interval."
        way = "above" if self.published.miou > self.miou else "below"
        return f"The published number lies {way} the interval."

    def __str__(self) -> str:
        given = self.published
        measured = f"{given.pictures} pictures" if given.pictures else "pictures not counted"
        lines = [
            f"{'':10} {'mIoU':>7}  95 % interval     measured on",
            f"{'published':10} {given.miou:7.4f}  {'–':16}  {measured}; {given.source}",
            f"{'here':10} {self.miou:7.4f}  {self.low:.4f} to {self.high:.4f}  "
            f"{self.pictures} pictures",
            f"{self.verdict} The interval is over pictures; seeds differ, too (--sweep).",
        ]
        if given.pictures and given.pictures != self.pictures:
            lines.append("These are not the same pictures: the numbers cannot be compared.")
        return "\n".join(lines)


def check_published(settings: Settings) -> None:
    """Refuse a recipe that says nothing to compare with.

    Raises:
        InputError: with what to do.
    """
    if not settings.published.miou:
        raise InputError(
            f"published.miou: {settings.name} names no published score; write [published], with "
            "miou and source, into the recipe."
        )


def reproduce(
    settings: Settings,
    folder: Path,
    *,
    tell: Callable[[str], None] = print,
    callbacks: Callbacks = NOBODY,
) -> Comparison:
    """Train, or resume; evaluate as was published; compare.

    ``folder/reproduced.json`` holds the comparison.

    Raises:
        InputError: the recipe names no published score; and as ``run_experiment``.
        KeyboardInterrupt: a signal ended the training; the same call goes on.
    """
    check_published(settings)
    if run_experiment(settings, folder, tell=tell, callbacks=callbacks).interrupted:
        raise KeyboardInterrupt
    given = settings.published
    tell(f"Evaluating on '{given.split}' as was published …")
    scores: Scores = evaluate(
        Run.open(folder),
        settings.data.path,
        split=given.split,
        scales=given.scales,
        flip=given.flip,
        output_stride=given.output_stride or None,
    )
    low, high = scores.interval
    pictures = len(scores.evaluation.pictures)
    found = Comparison(published=given, miou=scores.miou, low=low, high=high, pictures=pictures)
    content = {
        "published": settings.to_dict()["published"],
        "here": {"miou": found.miou, "interval": [low, high], "pictures": pictures},
        "protocol": scores.evaluation.protocol,
    }
    with replacing(folder / "reproduced.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return found
