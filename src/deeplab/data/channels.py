"""Data sets of other pictures than photos: how many channels, and what their numbers are like.

A data set says in ``channels`` how many its pictures have; 0 are photos, 8-bit RGB. Mean,
deviation and range of each channel are measured on the pictures to learn from, and travel with the
network: in its configuration (``pixel_mean``, ``pixel_std``) and its input (``bands``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deeplab.data.sample import Dataset
from deeplab.errors import DataError, InputError
from deeplab.photo.bands import Bands, Kind, Values, describe_values

MOST_MEASURED = 1000
"""Of more pictures, as many are measured, evenly spread."""

BLACK, WHITE = 2.0, 98.0
"""Percentiles of a channel's values, over all measured pictures, that are shown black and white."""

_SAMPLED = 4096  # values per picture and channel, for the percentiles


class BandDataset(Dataset, Protocol):
    """A data set of other pictures than photos."""

    channels: int
    rgb: tuple[int, ...]

    def values(self, index: int) -> Values:
        """Return the numbers of a picture as its file holds them: (H, W, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured on the pictures to learn from.

    Attributes:
        mean: per channel, in the pictures' own units.
        std: per channel; 1 where all pictures have one value there.
        bands: what they are and how they are shown.
        constant: the channels, from 1 on, that have one value everywhere.
        pictures: how many were looked at.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bands: Bands
    constant: tuple[int, ...]
    pictures: int

    def __str__(self) -> str:
        parts = [
            f"{number}: {mean:.4g} ± {std:.4g}"
            for number, (mean, std) in enumerate(zip(self.mean, self.std, strict=True), 1)
        ]
        some = ", ".join(parts[:8]) + (", …" if len(parts) > 8 else "")
        text = (
            f"{describe_values(len(self.mean), self.bands.kind)}, measured on {self.pictures} "
            f"pictures: {some}"
        )
        if self.constant:
            text += f"; nothing but one value in {', '.join(map(str, self.constant))}"
        return text

    @property
    def model(self) -> dict[str, Any]:
        """What follows for the network, as fields of its configuration."""
        return {"pixel_mean": self.mean, "pixel_std": self.std, "channel_order": "rgb"}


def channels_of(dataset: Any) -> int:
    """Return how many channels a data set's pictures have; 0 where they are photos."""
    return int(getattr(dataset, "channels", 0))


def choose_shown(channels: int, rgb: tuple[int, ...]) -> tuple[int, ...]:
    """Return the channels that are shown: those that ``rgb`` says, else the first three or one.

    Raises:
        InputError: ``rgb`` names a channel that is not there.
    """
    if any(number > channels for number in rgb):
        raise InputError(f"rgb: got {list(rgb)}, but there are {channels} channels.")
    return rgb or ((1, 2, 3) if channels >= 3 else (1,))


def measure(dataset: BandDataset) -> Measured:
    """Measure the pictures of a data set to learn from.

    Raises:
        DataError: they hold different types of numbers.
        ImageError, InputError: one cannot be read, or has other channels.
    """
    count = min(len(dataset), MOST_MEASURED)
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    kind: Kind | None = None
    pixels, shift, total, squares = 0, np.zeros(()), np.zeros(()), np.zeros(())
    samples = []
    for index in map(int, indices):
        values = dataset.values(index)
        found: Kind = values.dtype.name  # type: ignore[assignment]
        if kind not in (None, found):
            raise DataError(
                f"data: picture '{dataset.ids[index]}' holds {found}, others {kind}; their numbers "
                "mean different things. Save all in one type."
            )
        kind = found
        flat = values.reshape(-1, values.shape[2]).astype(np.float64)
        if not pixels:
            shift = flat.mean(0)  # keeps the sums of squares exact where values are large
        flat -= shift
        pixels += len(flat)
        total, squares = total + flat.sum(0), squares + np.square(flat).sum(0)
        samples.append(flat[:: max(1, len(flat) // _SAMPLED)] + shift)
    assert kind is not None
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    mean = mean + shift
    flat_ones = std <= 1e-9 * np.maximum(np.abs(mean), 1)
    shown = choose_shown(len(mean), dataset.rgb)
    low, high = np.percentile(
        np.concatenate(samples)[:, [number - 1 for number in shown]], (BLACK, WHITE), axis=0
    )
    return Measured(
        mean=tuple(map(float, mean)),
        std=tuple(float(one) for one in np.where(flat_ones, 1, std)),
        bands=Bands(
            kind=kind, shown=shown, low=tuple(map(float, low)), high=tuple(map(float, high))
        ),
        constant=tuple(int(number) + 1 for number in np.flatnonzero(flat_ones)),
        pictures=len(indices),
    )


def shown_alone(values: Values, rgb: tuple[int, ...] = ()) -> Any:
    """Return a picture as it is shown where nothing was measured: by its own range, uint8 RGB."""
    shown = choose_shown(values.shape[2], rgb)
    planes = values[:, :, [number - 1 for number in shown]].reshape(-1, len(shown))
    step = max(1, len(planes) // _SAMPLED)
    low, high = np.percentile(planes[::step].astype(np.float64), (BLACK, WHITE), axis=0)
    bands = Bands(
        kind=values.dtype.name,  # type: ignore[arg-type]
        shown=shown,
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
    )
    return bands.show(values)
