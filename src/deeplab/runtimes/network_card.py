"""What is known of a network file: how it is fed, and what its answer means.

Every format has a place for a line of text (ONNX ``metadata_props``, OpenVINO ``rt_info``, a
metadata entry of a TFLite model, …). The files that ``deeplab export`` writes carry their card
there, so that they can be opened alone. For other files :func:`deeplab.runtimes.describe` makes the
card, of what the file says, what the caller says, and what must be assumed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.photo.bands import Bands, describe_values
from deeplab.photo.images import InputSpec

KEY = "deeplab"
"""The name of the card where a format names its metadata."""

VERSION = 1

SPECIAL_VERSION = 2
"""Of cards that older programs would misread: other pictures than photos, overlapping classes."""

Output = Literal["logits", "label map"]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""(mean, std) in units of 0..255."""

NORMALISATIONS: dict[str, Normalisation] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "0..1": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "-1..1": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "0..255": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""The usual ones by name: torchvision's, and the ranges to which pixels are brought."""


def read_normalisation(value: Normalisation | Sequence[Any] | str) -> Normalisation:
    """Return (mean, std) of one of :data:`NORMALISATIONS`, of "MEAN/STD", or of two of numbers.

    MEAN and STD are one number or three with commas between them, in units of 0..255; numbers that
    are all 1 or less are taken in units of 0..1, as torch's users write them.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, str) and value.lower() in NORMALISATIONS:
        return NORMALISATIONS[value.lower()]
    try:
        parts = re.split(r"[/;:]", value) if isinstance(value, str) else value
        mean, std = (_three(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(
            f"normalisation: got {value!r}, expected {', '.join(NORMALISATIONS)}, or MEAN/STD: one "
            "number or three with commas for each, in units of 0..255."
        ) from None
    if min(std) <= 0 or not all(map(math.isfinite, (*mean, *std))):
        raise InputError(f"normalisation: got the std {std}, expected numbers above 0.")
    if max(*map(abs, mean), *std) <= 1:
        if (*mean, *std) == (0, 0, 0, 1, 1, 1):
            if not isinstance(value, str):
                return mean, std
            raise InputError(
                f"normalisation: {value!r} may mean 0..1 or 0..255; write the one that it is."
            )
        mean, std = _times_255(mean), _times_255(std)
    return mean, std


def _three(part: str | float | Sequence[float]) -> tuple[float, float, float]:
    given = part.split(",") if isinstance(part, str) else part
    numbers = [float(one) for one in given] if isinstance(given, Sequence) else [float(given)]
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def _times_255(values: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = (255 * value for value in values)
    return red, green, blue


def read_temperature(values: Mapping[str, Any]) -> float:
    """Return the temperature in what a file says of itself; 1 where it says none.

    Raises:
        ValueError: it is no number above 0.
    """
    value = values.get("temperature", 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"temperature is {value!r}")
    return float(value)


def read_bands(values: Mapping[str, Any]) -> Bands | None:
    """Return what a file says of its pictures where they are no photos, else None.

    Raises:
        KeyError, TypeError, ValueError, InputError: it is damaged.
    """
    return Bands.from_dict(values["bands"]) if "bands" in values else None


def rename(own: LabelSet | None, given: LabelSet | None) -> LabelSet | None:
    """Return a file's own classes, or as somebody else calls them; they overlap as they do."""
    if own is None or given is None:
        return given or own
    return replace(given, overlap=own.overlap)


def read_thresholds(values: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the thresholds in what a file says of itself; () where its classes do not overlap.

    Raises:
        KeyError, TypeError, ValueError: there is not one for each class, or one is no probability.
    """
    labels = values["labels"]
    if not labels.get("overlap"):
        return ()
    found = tuple(float(value) for value in values["thresholds"])
    if len(found) != len(labels["names"]) or not all(0 < value < 1 for value in found):
        raise ValueError(f"thresholds are {found}")
    return found


def refuse_special(card: NetworkCard, what: str) -> None:
    """Refuse what only the segmenter carries: other pictures than photos, overlapping classes.

    Args:
        card: of the network.
        what: what cannot carry it, as the message begins.

    Raises:
        InputError: it is such a network.
    """
    if card.thresholds:
        raise InputError(
            f"{what}: takes networks with one class per pixel, but the classes of this one "
            "overlap. `deeplab segment` and deeplab.Segmenter run it."
        )
    refuse_bands(card, what)


def refuse_bands(card: NetworkCard, what: str) -> None:
    """Refuse networks for other pictures than photos.

    Args:
        card: of the network.
        what: what cannot carry it, as the message begins.

    Raises:
        InputError: it is such a network.
    """
    if card.spec.bands is not None:
        pictures = describe_values(card.spec.channels, card.spec.bands.kind)
        raise InputError(
            f"{what}: takes networks for photos, but this one takes pictures with {pictures}. "
            "`deeplab segment` and deeplab.Segmenter run it."
        )


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """How a network file is fed and what its answer means.

    Attributes:
        spec: the frame, the normalisation, and how photos meet it.
        labels: the classes; None where nobody says.
        output: "logits", (h, w, K) float32, or "label map", (h, w) uint8.
        align_corners: True where the corners of the logits grid are the centres of the frame's
            corner pixels (the original's networks), False where they are half pixels.
        any_size: frames of other sizes than ``spec`` says may be given.
        softmaxed: its "logits" are probabilities already, 0..1.
        num_classes: how many classes it tells apart; None where only a label map comes out and
            nobody names them.
        temperature: its logits are divided by it before they become probabilities, see
            :mod:`deeplab.photo.confidence`; 1 where it was not calibrated.
        thresholds: of a network whose classes overlap, how probable each must be to be there,
            0..1; its logits go through a sigmoid each. () where classes exclude each other.
        assumed: what neither the file nor the caller said: "normalisation", "fit", "labels" or
            "output", and in words what was taken.
    """

    spec: InputSpec
    labels: LabelSet | None
    output: Output
    align_corners: bool
    any_size: bool = False
    softmaxed: bool = False
    num_classes: int | None = None
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_classes is None and self.labels is not None:
            object.__setattr__(self, "num_classes", len(self.labels))
        if self.labels is not None and self.labels.overlap and not self.thresholds:
            object.__setattr__(self, "thresholds", (0.5,) * len(self.labels))

    @property
    def is_special(self) -> bool:
        """Whether it is a network that programs for photos would misread."""
        return self.spec.bands is not None or bool(self.thresholds)

    @property
    def classes(self) -> LabelSet:
        """The labels of a card that must have them: of a file of our own."""
        assert self.labels is not None
        return self.labels

    def to_json(self) -> str:
        """Return what a file says of itself, as one line."""
        content: dict[str, Any] = {
            "version": SPECIAL_VERSION if self.is_special else VERSION,
            "input": {
                "height": self.spec.height,
                "width": self.spec.width,
                "mean": self.spec.mean,
                "std": self.spec.std,
                "fit": self.spec.fit,
            },
            "labels": self.classes.to_dict(),
            "output": self.output,
            "align_corners": self.align_corners,
            "any_size": self.any_size,
        }
        if self.spec.bands is not None:
            content["input"]["bands"] = self.spec.bands.to_dict()
        if self.thresholds:
            content["thresholds"] = list(self.thresholds)
        if self.temperature != 1:
            content["temperature"] = self.temperature
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str) -> NetworkCard:
        """Read a card.

        Args:
            text: what ``to_json`` gave.
            name: of the file, for messages.

        Raises:
            ModelError: it is damaged, or of a newer version.
        """
        damaged = f"{name}: what it says of itself is damaged"
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["version"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{damaged} ({error}).") from None
        if version not in (VERSION, SPECIAL_VERSION):
            raise ModelError(
                f"{name}: describes itself in version {version}, this program reads {VERSION} and "
                f"{SPECIAL_VERSION}. Update deeplab."
            )
        try:
            given = values["input"]
            if values["output"] not in ("logits", "label map"):
                raise ValueError(f"output is '{values['output']}'")
            return cls(
                spec=InputSpec(
                    height=int(given["height"]),
                    width=int(given["width"]),
                    mean=tuple(given["mean"]),
                    std=tuple(given["std"]),
                    fit=given["fit"],
                    bands=read_bands(given),
                ),
                labels=LabelSet.from_dict(values["labels"]),
                output=values["output"],
                align_corners=bool(values["align_corners"]),
                any_size=bool(values["any_size"]),
                temperature=read_temperature(values),
                thresholds=read_thresholds(values),
            )
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ModelError(f"{damaged} ({error}).") from None
