"""What happens to pictures beside scale, crop and flip: the table ``[augment]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from deeplab.data.albumentations_pipeline import AlbumentationsPipeline, is_pipeline, read_pipeline
from deeplab.data.augment import Augmentation, Blur, Jpeg, Noise, Own, Perspective, Rotate
from deeplab.data.mixing import Augmented
from deeplab.data.rand_augment import RandAugment
from deeplab.data.transforms import TrainTransform
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models.pieces import find_piece
from deeplab.training.limits import Limits


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """What else may happen to pictures in training; see ``data.augment``. All of it is off.

    Attributes:
        rotate: largest angle, in degrees, to either side.
        perspective: largest way of a corner inwards, as a share of the sides.
        mosaic: probability, 0..1, of putting four pictures into one.
        copy_paste: probability, 0..1, of laying things of another picture over one.
        pasted_classes: names of what is laid over; () is all but "background".
        blur: largest deviation, in pixels, of a Gaussian over half of the pictures.
        noise: largest deviation, in levels of 255, of noise in half of the pictures.
        jpeg: lowest quality at which half of the pictures are written and read again; 0 is off.
        rand_augment: operations drawn for each picture (RandAugment's N).
        rand_strength: of each of them, 0..1 (RandAugment's M, as a share).
        pipeline: a file that ``albumentations.save`` wrote, JSON or YAML (extra albumentations).
        own: functions of your own, ``FILE.py:NAME`` (docs/pieces.md), applied last, in this order.
    """

    rotate: Annotated[float, Limits(0.0, 180.0)] = 0.0
    perspective: Annotated[float, Limits(0.0, 0.45)] = 0.0
    mosaic: Annotated[float, Limits(0.0, 1.0)] = 0.0
    copy_paste: Annotated[float, Limits(0.0, 1.0)] = 0.0
    pasted_classes: tuple[str, ...] = ()
    blur: Annotated[float, Limits(0.0, 100.0)] = 0.0
    noise: Annotated[float, Limits(0.0, 255.0)] = 0.0
    jpeg: Annotated[int, Limits(0, 95)] = 0
    rand_augment: Annotated[int, Limits(0, 100)] = 0
    rand_strength: Annotated[float, Limits(0.0, 1.0)] = 0.3
    pipeline: str = ""
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for setting, owner, default in (
            ("pasted_classes", "copy_paste", ()),
            ("rand_strength", "rand_augment", 0.3),
        ):
            if getattr(self, setting) != default and not getattr(self, owner):
                raise InputError(
                    f"augment.{setting}: got {getattr(self, setting)!r}, but augment.{owner} is "
                    "off; set it, or leave this out."
                )
        for name in self.own:
            if ":" not in name:
                raise InputError(
                    f"augment.own: got '{name}', expected FILE.py:NAME or MODULE:NAME."
                )


def find_own(settings: AugmentSettings) -> list[Augmentation]:
    """Return the pipeline of a file, and functions of the reader's own.

    Raises:
        InputError: there is no such file or name.
    """
    found: list[Augmentation] = []
    if settings.pipeline:
        found.append(Own(read_pipeline(Path(settings.pipeline)), "augment.pipeline"))
    for name in settings.own:
        piece: Any = find_piece(name, "augment.own")
        piece = piece() if isinstance(piece, type) else piece
        function = AlbumentationsPipeline(piece) if is_pipeline(piece) else piece
        if not callable(function):
            raise InputError(f"augment.own: {name} is a {type(piece).__name__}, not a function.")
        found.append(Own(function, name))
    return found


def augment(
    transform: TrainTransform, settings: AugmentSettings, labels: LabelSet
) -> TrainTransform | Augmented:
    """Return the transform with all that the settings add; itself where that is nothing.

    Raises:
        InputError: a name that is none.
    """
    fill = transform.mean_pixel
    whole: list[Augmentation] = []
    if settings.rotate:
        whole.append(Rotate(degrees=settings.rotate, fill=fill))
    if settings.perspective:
        whole.append(Perspective(strength=settings.perspective, fill=fill))
    after: list[Augmentation] = []
    if settings.rand_augment:
        after.append(
            RandAugment(count=settings.rand_augment, strength=settings.rand_strength, fill=fill)
        )
    if settings.blur:
        after.append(Blur(sigma=settings.blur))
    if settings.noise:
        after.append(Noise(levels=settings.noise))
    if settings.jpeg:
        after.append(Jpeg(quality=settings.jpeg))
    after += find_own(settings)
    if not (whole or after or settings.mosaic or settings.copy_paste):
        return transform
    pasted = [name for name in labels.names if name.lower() not in ("background", "void")]
    return Augmented(
        transform=transform,
        whole=tuple(whole),
        mosaic=settings.mosaic,
        copy_paste=settings.copy_paste,
        pasted=tuple(labels.indices(settings.pasted_classes or pasted)),
        after=tuple(after),
    )
