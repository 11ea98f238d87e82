"""Look at one photo and its mask, and name what is wrong with the pair."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.data.channels import channels_of, shown_alone
from deeplab.data.duplicates import Hash, perceptual_hash
from deeplab.data.mask_files import Bools, Integers, MaskFile, UInt8, open_mask
from deeplab.data.masks import IGNORE, NOT_A_CLASS, MaskEncoding, count_colours, describe_wrong
from deeplab.data.overlapping import OverlappingDataset
from deeplab.data.sample import Dataset
from deeplab.errors import DataError, ImageError
from deeplab.labels import Colour
from deeplab.photo.images import Photo

_SIDE_OF_HASHES = 43  # a JPEG is decoded at three times this or larger; plenty for a 17×16 grid
_LARGE_PIXELS = 32_000_000
_BLOCK_PIXELS = 1 << 22
_LISTED_COLOURS = 256
_SAMPLED_PIXELS = 4096

# A drawing has few colours even after JPEG; a photo's sample has more than half as many as pixels.
_COLOURS_OF_A_DRAWING = 256

# Of 3,749 real masks of VOC and CamVid none has a single in-between value, and at most 0.6 % of a
# mask's pixels differ from all their neighbours.
_IN_BETWEEN_VALUES = 2
_IN_BETWEEN_SHARE = 0.8
_LONE_SHARE = 0.02
_SMEARED_COLOURS = 12


_large = threading.Lock()


@dataclass
class Pair:
    """What was seen of one pair.

    Attributes:
        split, index: where the pair stands.
        size: (height, width) of the upright photo; None when it cannot be read.
        digest: of the photo file's bytes.
        hash: see ``duplicates.perceptual_hash``.
        histogram: (256,) int64 of the label: classes, IGNORE, NOT_A_CLASS.
        values: what occurs in a greyscale or palette mask, ascending.
        palette: colour -> index, of the entries that a palette mask uses.
        colours: the colours of an RGB mask that the data set names none for, the commonest first.
        is_transparent: whether some of the mask's pixels are.
        findings: fault code -> what was seen.
    """

    split: str
    index: int
    size: tuple[int, int] | None = None
    digest: bytes = b""
    hash: Hash | None = None
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    values: tuple[int, ...] = ()
    palette: dict[Colour, int] = field(default_factory=dict)
    colours: tuple[Colour, ...] = ()
    is_transparent: bool = False
    findings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Photo:
    size: tuple[int, int]
    stored_size: tuple[int, int]
    orientation: int
    digest: bytes
    hash: Hash | None
    colours: int


def inspect_pair(dataset: Dataset, index: int) -> Pair:
    """Look at one pair; whatever is wrong with it is a finding, never an error."""
    pair = Pair(split=dataset.split, index=index)
    photo = _look_at_photo(dataset, pair)
    if photo is not None:
        pair.size, pair.digest, pair.hash = photo.size, photo.digest, photo.hash
    path = dataset.masks[index]
    if isinstance(dataset, OverlappingDataset):
        _look_at_planes(dataset, pair)
        return pair
    if not path.is_file():
        pair.findings["missing-mask"] = "there is no such file"
        return pair
    with _one_at_a_time(pair.size or (1, 1)):
        _look_at_both(path, photo, dataset.encoding, pair)
    return pair


def _look_at_planes(dataset: OverlappingDataset, pair: Pair) -> None:
    """Look at the masks of all classes: what is of none counts as no class, like ignored pixels."""
    try:
        label = dataset.label(pair.index)
    except DataError as error:
        text = str(error)
        missing = "there is no mask of" in text
        pair.findings["missing-mask" if missing else "unreadable-mask"] = text
        return
    if pair.size is not None and label.shape[:2] != pair.size:
        pair.findings["size"] = (
            f"photo {_times(pair.size)}, masks {_times(label.shape[:2])} (height × width)"
        )
    pair.histogram[: label.shape[2]] = (label == 1).sum((0, 1))
    unknown = (label == IGNORE).all(2)
    pair.histogram[IGNORE] = int(unknown.sum())
    if unknown.all():
        pair.findings["all-ignored"] = "every pixel is ignored"


def _look_at_both(path: Path, photo: _Photo | None, encoding: MaskEncoding, pair: Pair) -> None:
    try:
        mask = open_mask(path)
    except DataError as error:
        pair.findings["unreadable-mask"] = str(error).removeprefix(f"{path}: ")
        return
    if photo is not None:
        if _is_swapped(photo, mask):
            pair.findings["swapped"] = (
                f"the photo has {photo.colours} colours where the mask has more"
            )
            return
        pair.findings.update(_compare_sizes(photo, mask))
    _look_at_mask(mask, encoding, pair)


# -- the photo -----------------------------------------------------------------------------------


def _look_at_photo(dataset: Dataset, pair: Pair) -> _Photo | None:
    path = dataset.images[pair.index]
    if not path.is_file():
        pair.findings["missing-photo"] = "there is no such file"
        return None
    try:
        data = path.read_bytes()
        photo = Photo(data, name=str(path)) if not channels_of(dataset) else _show(dataset, pair)
        with _one_at_a_time(photo.size):
            rgb = photo.decode(at_least=(_SIDE_OF_HASHES, _SIDE_OF_HASHES))
            return _Photo(
                size=photo.size,
                stored_size=photo.size[::-1] if photo.orientation >= 5 else photo.size,
                orientation=photo.orientation,
                digest=hashlib.blake2b(data, digest_size=16).digest(),
                hash=perceptual_hash(rgb),
                colours=_count_colours(np.asarray(rgb)),
            )
    except (OSError, ImageError, DataError) as error:
        pair.findings["unreadable-photo"] = str(error).removeprefix(f"{path}: ")
        return None


def _show(dataset: Any, pair: Pair) -> Photo:
    """Return a picture that is no photo as it is shown, for comparing it with others."""
    return Photo(shown_alone(dataset.values(pair.index), dataset.rgb))


def _one_at_a_time(size: tuple[int, int]) -> AbstractContextManager[Any]:
    """Return what lets small pictures pass and makes large ones wait for each other."""
    return _large if size[0] * size[1] > _LARGE_PIXELS else nullcontext()


def _count_colours(rgb: UInt8) -> int:
    """Return how many colours an even sample of the pixels has."""
    pixels = rgb.reshape(-1, 3)
    sample = pixels[:: max(1, len(pixels) // _SAMPLED_PIXELS)].astype(np.uint32)
    return len(np.unique(sample[:, 0] << 16 | sample[:, 1] << 8 | sample[:, 2]))


# -- photo and mask ------------------------------------------------------------------------------


def _is_swapped(photo: _Photo, mask: MaskFile) -> bool:
    if mask.pixels.ndim != 3 or photo.colours > _COLOURS_OF_A_DRAWING:
        return False
    return _count_colours(mask.pixels.astype(np.uint8)) > max(64, 2 * photo.colours)


def _compare_sizes(photo: _Photo, mask: MaskFile) -> Iterator[tuple[str, str]]:
    turned = photo.orientation != 1
    if mask.size != photo.size:
        sizes = f"photo {_times(photo.size)}, mask {_times(mask.size)} (height × width)"
        if turned and mask.size == photo.stored_size:
            yield "turned", f"EXIF turns the photo (orientation {photo.orientation}): {sizes}"
        else:
            yield "size", sizes
    elif turned and photo.size == photo.stored_size:
        yield "maybe-turned", f"EXIF turns the photo (orientation {photo.orientation})"


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


# -- the mask ------------------------------------------------------------------------------------


def _look_at_mask(mask: MaskFile, encoding: MaskEncoding, pair: Pair) -> None:
    label = encoding.decode(mask)
    pair.histogram = np.bincount(label.ravel(), minlength=256)
    pair.is_transparent = mask.transparent is not None
    grey = None if encoding.reads_colours(mask) and mask.palette is None else mask.grey
    if grey is not None:
        pair.values = _values(grey)
        if mask.palette is not None:
            pair.palette = {_colour(mask.palette[value]): value for value in pair.values}
    wrong = label == NOT_A_CLASS
    if mask.is_lossy:
        pair.findings["lossy"] = f"is a {mask.format} file"
    elif wrong.any():
        code = _cause_of_wrong(mask, encoding, wrong, pair.values)
        pair.findings[code] = describe_wrong(mask, encoding, wrong)
        if code in ("rgb", "colours"):
            found, counts = count_colours(mask)
            order = np.argsort(-counts)[:_LISTED_COLOURS]
            pair.colours = tuple(_colour(found[i]) for i in order)
    elif grey is not None and (smeared := _describe_smear(grey, pair.values)):
        pair.findings["smeared"] = smeared
    elif not encoding.by_colour and (swapped := _misplaced_colours(pair.palette, encoding)):
        pair.findings["palette-order"] = swapped
    elif np.count_nonzero(pair.histogram) == 1:
        shown = int(pair.histogram.argmax())
        if shown == IGNORE:
            pair.findings["all-ignored"] = "every pixel is ignored"
        else:
            pair.findings["one-class"] = f"every pixel is class {shown}"


def _values(grey: Integers) -> tuple[int, ...]:
    """Return what occurs, ascending."""
    if grey.dtype == np.uint8:
        found: Integers = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    else:
        found = np.unique(grey)
    return tuple(map(int, found))


def _colour(rgb: UInt8) -> Colour:
    return int(rgb[0]), int(rgb[1]), int(rgb[2])


def _cause_of_wrong(
    mask: MaskFile, encoding: MaskEncoding, wrong: Bools, values: tuple[int, ...]
) -> str:
    """Return the fault code for a mask with pixels that are no class."""
    if mask.pixels.ndim == 3 and not encoding.colours and mask.grey is None:
        return "rgb"
    if encoding.reads_colours(mask):
        found, _ = count_colours(mask, wrong)
        many = len(found) >= max(_SMEARED_COLOURS, len(encoding.colours))
        return "smeared" if many and wrong.mean() < 0.5 else "colours"
    assert mask.grey is not None
    greys = {_grey(colour) for colour in (*encoding.colours, *encoding.ignore_colours)}
    if greys and mask.palette is None and set(values) <= greys | {0, IGNORE} and len(values) > 1:
        return "grey-palette"
    found = np.unique(mask.grey[wrong])
    if len(found) >= _SMEARED_COLOURS and wrong.mean() < 0.5:
        return "smeared"
    return "ids"


def _grey(colour: Colour) -> int:
    """Return the grey that Pillow and most programs make of a colour (ITU-R 601)."""
    red, green, blue = colour
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _describe_smear(pixels: Integers, values: tuple[int, ...]) -> str:
    """Return what betrays smooth resizing or JPEG in ids that all look allowed, or nothing."""
    if len(values) < _IN_BETWEEN_VALUES + 2 or min(pixels.shape) < 3:
        return ""
    lone_pixels, wide = 0, set[int]()
    for middle, up, down, left, right in _neighbourhoods(pixels):
        lone = (middle != up) & (middle != down) & (middle != left) & (middle != right)
        lone_pixels += int(np.count_nonzero(lone))
        solid = (middle == up) & (middle == down) & (middle == left) & (middle == right)
        wide.update(_values(middle[solid]))
    share = lone_pixels / ((pixels.shape[0] - 2) * (pixels.shape[1] - 2))
    if share > _LONE_SHARE:
        return f"{100 * share:.1f} % of the pixels differ from all their neighbours"
    # A smoothed edge between classes 0 and 15 shows 1 to 14, each a pixel wide and between its
    # neighbours. A class that is really there is somewhere wider than that.
    thin = sorted(set(values) - wide - {IGNORE})
    if len(thin) < _IN_BETWEEN_VALUES:
        return ""
    seen, steps = dict.fromkeys(thin, 0), dict.fromkeys(thin, 0)
    for middle, up, down, left, right in _neighbourhoods(pixels):
        between = _is_between(middle, left, right) | _is_between(middle, up, down)
        for value in thin:
            at = middle == value
            seen[value] += int(np.count_nonzero(at))
            steps[value] += int(np.count_nonzero(at & between))
    suspects = [v for v in thin if seen[v] and steps[v] / seen[v] >= _IN_BETWEEN_SHARE]
    if len(suspects) < _IN_BETWEEN_VALUES:
        return ""
    some = ", ".join(map(str, suspects[:8])) + (", …" if len(suspects) > 8 else "")
    return f"the values {some} occur only as steps between their neighbours"


def _neighbourhoods(pixels: Integers) -> Iterator[tuple[Integers, ...]]:
    """Give the inner pixels and those above, below, left and right, some rows at a time."""
    height, width = pixels.shape
    rows = max(1, _BLOCK_PIXELS // width)
    for start in range(1, height - 1, rows):
        end = min(start + rows, height - 1)
        yield (
            pixels[start:end, 1:-1],
            pixels[start - 1 : end - 1, 1:-1],
            pixels[start + 1 : end + 1, 1:-1],
            pixels[start:end, :-2],
            pixels[start:end, 2:],
        )


def _is_between(middle: Integers, first: Integers, second: Integers) -> Bools:
    between: Bools = (middle > np.minimum(first, second)) & (middle < np.maximum(first, second))
    return between


def _misplaced_colours(palette: dict[Colour, int], encoding: MaskEncoding) -> str:
    """Return which palette entries have the colour of another class than their index."""
    if not encoding.colours or not palette:
        return ""
    colours = np.array(list(palette), np.uint8)
    meant = encoding.classes_of_colours(colours)
    read = encoding.value_table[list(palette.values())]
    wrong = (meant != NOT_A_CLASS) & (meant != read)
    if not wrong.any():
        return ""
    places = np.flatnonzero(wrong)
    index = list(palette.values())[places[0]]
    return (
        f"{len(places)} of {len(palette)} palette entries have another class's colour: "
        f"index {index} has the colour of class {meant[places[0]]}"
    )
