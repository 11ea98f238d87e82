"""What a data set is: photos, their masks, and what the ids in the masks mean."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deeplab.data.mask_files import UInt8
from deeplab.data.masks import IGNORE, MaskEncoding, read_mask
from deeplab.errors import DataError, near_matches
from deeplab.labels import LabelSet
from deeplab.photo import find, images
from deeplab.photo.band_pictures import read_values
from deeplab.photo.bands import Values
from deeplab.photo.formats import PHOTO_SUFFIXES as PHOTO_SUFFIXES


@dataclass(frozen=True)
class Sample:
    """One photo with its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright. Of data sets of other pictures, (H, W, C) uint8,
            uint16 or float32 in their own units.
        label: (H, W) uint8 class ids; 255 = ignored, whatever the files use. Where classes
            overlap, (H, W, K) uint8, 0 or 1 for each, 255 = ignored.
        id: the name of the pair within its data set.
    """

    image: Values
    label: UInt8
    id: str


class Dataset(Protocol):
    """Photos with their masks; what training, evaluation and the doctor ask for."""

    @property
    def labels(self) -> LabelSet:
        """The classes; ``ignore_index`` is always 255, as in ``Sample.label``."""

    @property
    def split(self) -> str:
        """The name of the split: "train", "val", …"""

    @property
    def ids(self) -> Sequence[str]:
        """The name of every pair."""

    @property
    def images(self) -> Sequence[Path]:
        """The photo of every index; empty where there are no files."""

    @property
    def masks(self) -> Sequence[Path]:
        """The mask of every index; empty where there are no files."""

    @property
    def encoding(self) -> MaskEncoding:
        """How the mask files hold class ids; of no use where there are none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class FileDataset:
    """A data set of one photo file and one mask file per pair. Nothing is read until asked for.

    Attributes:
        layout: the name of the layout it was recognised by.
        root: its folder.
        split, labels, encoding, ids, images, masks: see :class:`Dataset`.
        orphans: masks that belong to no photo; the doctor reports them.
        passed_over: how many files beside the photos and masks were not looked at, by suffix.
        assumed: what was taken to be so because nothing said otherwise, a sentence each.
        channels: of its pictures, where they are no photos, see :mod:`deeplab.data.channels`; 0
            of photos.
        rgb: which of those are shown as red, green and blue, or the one shown as grey, from 1 on;
            () takes the first.
    """

    layout: str
    root: Path
    split: str
    labels: LabelSet
    encoding: MaskEncoding
    ids: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    orphans: tuple[Path, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    channels: int = 0
    rgb: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        labels = dataclasses.replace(self.labels, ignore_index=IGNORE)
        object.__setattr__(self, "labels", labels)
        assert len(self.ids) == len(self.images) == len(self.masks)
        assert len(self.labels) == len(self.encoding.values)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            ImageError: the photo is missing or damaged.
            DataError: the mask is missing, damaged or holds what is no class, or its size is
                not the photo's.
            IndexError: there is no such index.
        """
        image = self.image(index)
        label = self.label(index)
        if image.shape[:2] != label.shape[:2]:
            raise DataError(
                f"{self.masks[index]}: {self._whose(index)} {label.shape[0]}×{label.shape[1]} "
                f"pixels, its photo {image.shape[0]}×{image.shape[1]} (height × width). They must "
                "be equal; resize masks only with nearest neighbour."
            )
        return Sample(image=image, label=label, id=self.ids[index])

    def label(self, index: int) -> UInt8:
        """Read the truth of a pair, without its photo: see ``Sample.label``.

        Raises:
            DataError: as reading a pair.
        """
        return read_mask(self.masks[index], self.encoding)

    def _whose(self, index: int) -> str:
        """Return the words for a pair's masks in messages."""
        return "the mask has"

    def image(self, index: int) -> Values:
        """Read a photo, or another picture: see ``Sample.image``.

        Raises:
            ImageError, DataError: as reading a pair.
        """
        return self.values(index) if self.channels else images.read(self.images[index])

    def values(self, index: int) -> Values:
        """Return the numbers of a picture that is no photo, as its file holds them: (H, W, C).

        Raises:
            ImageError: it is missing or damaged.
            DataError: it has another number of channels than the data set.
        """
        name, values = read_values(self.images[index])
        if values.shape[2] != self.channels:
            raise DataError(
                f"{name}: has {values.shape[2]} channels, the data set's pictures {self.channels}."
            )
        return values


def join(datasets: Sequence[FileDataset]) -> FileDataset:
    """Return the pairs of several data sets, one after the other, as one; it is named by the first.

    Raises:
        DataError: their classes, or the values of their masks, differ.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if other.channels != first.channels or other.labels.overlap != first.labels.overlap:
            raise DataError(
                f"{other.root}: its pictures have not the channels of those of {first.root}, or "
                "classes overlap in one of them only."
            )
        if other.labels.names != first.labels.names or other.encoding != first.encoding:
            raise DataError(
                f"{other.root}: its classes or mask values are not those of {first.root}; data "
                "sets are joined where both are the same. `deeplab data convert` writes masks anew."
            )
    return dataclasses.replace(
        first,
        ids=tuple(name for one in datasets for name in one.ids),
        images=tuple(path for one in datasets for path in one.images),
        masks=tuple(path for one in datasets for path in one.masks),
        orphans=tuple(path for one in datasets for path in one.orphans),
    )


def list_pictures(
    folder: Path, passed_over: Counter[str] | None = None, *, arrays: bool = False
) -> dict[str, Path]:
    """Return every picture below ``folder``: {path without suffix, "/" between parts: file}.

    Args:
        folder: searched to the bottom; equal names in different folders are kept apart.
        passed_over: gets the count of all other files, by suffix or kind.
        arrays: ``.npy`` files are pictures too.

    Raises:
        DataError: two pictures differ only in their suffix.
    """
    listing = find.list_pictures(folder, arrays=arrays)
    if passed_over is not None:
        passed_over.update(listing.passed_over)
    found: dict[str, Path] = {}
    for path in listing.pictures:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{path}: there is also {found[name].name}; keep one picture per name.")
        found[name] = path
    return dict(sorted(found.items(), key=lambda item: Path(item[0])))


def choose_split(split: str, splits: Sequence[str], root: Path) -> str:
    """Return ``split`` if it exists.

    Raises:
        DataError: it does not; the message lists those that do.
    """
    if split in splits:
        return split
    line = ""
    if split in ("train", "val") and splits:
        line = " Write into dataset.toml: [splits], and below it train = 0.8 and val = 0.2."
    raise DataError(
        f"split: {root} has no split '{split}'.{near_matches(split, splits)} "
        f"It has: {', '.join(splits) or 'none'}.{line}"
    )
