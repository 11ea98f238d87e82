"""The score that others have published for a recipe: its table ``[published]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from deeplab.training.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published score and how it was measured; for ``deeplab reproduce``.

    Attributes:
        miou: 0..1; 0 is none.
        source: where it is printed.
        split: that it was measured on.
        pictures: of that split; 0 is not known.
        scales: of the photos.
        flip: mirrored photos, too.
        output_stride: of the network then; 0 is the trained one.
    """

    miou: Annotated[float, Limits(0.0, 1.0)] = 0.0
    source: str = ""
    split: str = "val"
    pictures: Annotated[int, Limits(0, 1e9)] = 0
    scales: Annotated[tuple[float, ...], Limits(0.1, 10.0)] = (1.0,)
    flip: bool = False
    output_stride: Annotated[int, Limits(0, 32)] = 0
