"""Data sets whose classes overlap: a mask for each class of each photo.

With ``overlap = true`` in ``dataset.toml``, one of

    masks/a.tif          all masks of images/a.jpg: a page, or a channel, per class in their order
    masks/a.npy          the same as an array (height, width, classes)
    masks/cat/a.png      a picture per class, in a folder of its name; a class of which a photo has
                         no file, though it has some of others, is not on it

Their values are 0 (not of the class) and 1, and 255 where nobody knows; ``values = [0, 255]`` in
``dataset.toml`` reads white as the class (and then nothing is ignored, unless ``ignore`` says it).
Masks of 0 and 255 alone, as most tools write them, are read so, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplab.data.description import Description
from deeplab.data.masks import IGNORE, NOT_A_CLASS, MaskEncoding, UInt8, read_mask
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError, ImageError
from deeplab.photo.band_pictures import read_values

STACKS = (".tif", ".tiff", ".npy")
_LOOKED_AT = 8


@dataclass(frozen=True)
class OverlappingDataset(FileDataset):
    """A data set of one photo and a mask per class and pair; ``Sample.label`` is (H, W, K).

    Attributes:
        masks: of each pair its stack, or the folder of all masks where classes have files.
    """

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.images) == len(self.masks)
        assert self.labels.overlap

    def label(self, index: int) -> UInt8:
        """Read the masks of a pair: (H, W, K) uint8, 0, 1, or 255 for ignored.

        Raises:
            DataError: as reading a pair.
        """
        path = self.masks[index]
        if path.suffix.lower() in STACKS:
            return self._read_stack(path)
        files = [path / name / f"{self.ids[index]}.png" for name in self.labels.names]
        found = [file for file in files if file.is_file()]
        if not found:
            raise DataError(
                f"{path}: there is no mask of '{self.ids[index]}', neither {self.ids[index]}.tif "
                f"or .npy nor {self.labels.names[0]}/{self.ids[index]}.png."
            )
        planes = {file: read_mask(file, self.encoding) for file in found}
        sizes = {plane.shape for plane in planes.values()}
        if len(sizes) > 1:
            raise DataError(f"{found[0]}: the masks of '{self.ids[index]}' have different sizes.")
        empty = np.zeros(sizes.pop(), np.uint8)
        return np.stack([planes.get(file, empty) for file in files], axis=2)

    def _whose(self, index: int) -> str:
        return f"the masks of '{self.ids[index]}' have"

    def _read_stack(self, path: Path) -> UInt8:
        try:
            _, values = read_values(path)
        except ImageError as error:
            raise DataError(str(error)) from None
        if values.shape[2] != len(self.labels):
            raise DataError(
                f"{path}: holds {values.shape[2]} masks, expected one for each of the "
                f"{len(self.labels)} classes ({', '.join(self.labels.names)})."
            )
        whole = values.astype(np.int64)
        known = (whole == values) & (whole >= 0) & (whole <= 65535)
        label = self.encoding.value_table[np.where(known, whole, 0)]
        wrong = ~known | (label == NOT_A_CLASS)
        if wrong.any():
            some = ", ".join(f"{value:g}" for value in np.unique(values[wrong])[:8])
            raise DataError(
                f"{path}: {100 * wrong.mean():.1f} % of its values are neither "
                f"{self.encoding.values[0]} nor {self.encoding.values[1]} ({some}). Say in "
                "dataset.toml what they are: values = [0, 255]."
            )
        return label


def read_white(dataset: OverlappingDataset) -> OverlappingDataset:
    """Return the data set with white as the class, if the first masks hold black and white alone.

    What is unknown everywhere it is not black would be no mask. Nobody must have said ``values``.
    """
    seen: set[int] = set()
    for index in range(min(len(dataset.ids), _LOOKED_AT)):
        with contextlib.suppress(DataError):  # the doctor tells of it
            seen.update(np.unique(dataset.label(index)).tolist())
    if seen != {0, IGNORE}:
        return dataset
    return dataclasses.replace(
        dataset,
        encoding=MaskEncoding(values=(0, 255), ignore=()),
        assumed=(*dataset.assumed, "masks of 0 and 255 alone: white is the class, nothing ignored"),
    )


def locate_masks(
    root: Path, description: Description, keys: tuple[str, ...], assumed: list[str]
) -> tuple[Path, ...]:
    """Return where the masks of each pair are, and add to ``assumed`` what nobody said."""
    folder = root / description.masks
    found, kinds = [], Counter[str]()
    for key in keys:
        stack = next((p for end in STACKS if (p := folder / f"{key}{end}").is_file()), None)
        found.append(stack or folder)
        kinds[stack.suffix if stack else "folders"] += 1
    if kinds["folders"]:
        assumed.append(
            f"masks in {description.masks}/CLASS/: a class is not on a photo of which it has no "
            "file, where others have one"
        )
    return tuple(found)
