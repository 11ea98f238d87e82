"""Annotations in which things lie over each other, written with a mask for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deeplab.data.export import Drawing, Export, is_background
from deeplab.data.mask_files import UInt8
from deeplab.errors import DataError


def check_overlap(source: Path, export: Export) -> None:
    """Refuse exports whose annotations have one class per pixel themselves.

    Raises:
        DataError: it is such a one, or has one class only.
    """
    if export.complete or not all(isinstance(one, Drawing) for one in export.drawings):
        raise DataError(
            f"{source}: overlap: its annotations ({export.tool}) have one class per pixel; leave "
            "the option out."
        )
    if len(overlapping_classes(export)) < 2:
        raise DataError(
            f"{source}: overlap: is for two classes or more, it has "
            f"{', '.join(overlapping_classes(export)) or 'none'}; leave the option out."
        )


def overlapping_classes(export: Export) -> tuple[str, ...]:
    """Return the classes of which each gets a mask: there is no background."""
    return tuple(name for name in export.classes if not is_background(name))


@dataclass
class Several:
    """How much of the photos is of several classes: what would be lost by one per pixel."""

    photos: int = 0
    pixels: int = 0
    labelled: int = 0

    def add(self, label: UInt8) -> None:
        """Count a photo: (H, W, K) 0, 1 and 255."""
        classes = (label == 1).sum(2)
        several = int((classes > 1).sum())
        self.photos += several > 0
        self.pixels += several
        self.labelled += int((classes > 0).sum())

    @property
    def in_words(self) -> str:
        """The sentence about it."""
        share = 100 * self.pixels / max(1, self.labelled)
        return (
            f"classes overlap on {self.photos} photos; {share:.1f} % of the pixels that are of a "
            "class are of several"
        )
