"""Which mask belongs to which photo, by their names.

Tools put something before or behind the common part of the two names: a.jpg and a_mask.png,
img_1.png and mask_1.png, a_leftImg8bit.png and a_gtFine_labelIds.png. What that is is found from
all names at once, and said; where two answers are as good, none is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from deeplab.errors import DataError

_ENOUGH = 0.5
"""An affix must pair this share of the photos or of the masks; the rest may be missing."""

_SAMPLED = 2000  # names that are looked at to find the affixes
_MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm")  # none of them smears


@dataclass(frozen=True)
class Affixes:
    """What stands around the common part of the names of a photo and its mask.

    Attributes:
        image_prefix, image_suffix: of the photos' names.
        mask_prefix, mask_suffix: of the masks' names, before ".png".
    """

    image_prefix: str = ""
    image_suffix: str = ""
    mask_prefix: str = ""
    mask_suffix: str = ""

    def key_of_photo(self, name: str) -> str | None:
        """Return the common part of a photo's name, folders included; None when it is no photo."""
        return _strip(name, self.image_prefix, self.image_suffix)

    def key_of_mask(self, name: str) -> str | None:
        """Return the common part of a mask's name, folders included; None when it is no mask."""
        return _strip(name, self.mask_prefix, self.mask_suffix)

    def mask_name(self, key: str) -> str:
        """Return the name of the mask that belongs to a common part."""
        folder, slash, last = key.rpartition("/")
        return f"{folder}{slash}{self.mask_prefix}{last}{self.mask_suffix}"

    @property
    def photo_pattern(self) -> str:
        """How photos are called, NAME for the common part."""
        return f"{self.image_prefix}NAME{self.image_suffix}"

    @property
    def mask_pattern(self) -> str:
        """How masks are called, NAME for the common part."""
        return f"{self.mask_prefix}NAME{self.mask_suffix}"

    def __str__(self) -> str:
        return f"the mask of {self.photo_pattern} is {self.mask_pattern}"

    @property
    def lines(self) -> str:
        """What says the same in dataset.toml."""
        stated = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f'{name} = "{text}"' for name, text in stated if text)


def find_affixes(photos: Collection[str], masks: Collection[str], where: Path) -> Affixes:
    """Return the affixes by which most names pair; none at all where names are equal.

    Args:
        photos: the names of the photos, without suffix, folders included.
        masks: the names of the masks.
        where: the folder, for messages.

    Raises:
        DataError: several affixes pair equally many names.
    """
    if not photos or not masks or not set(photos).isdisjoint(masks):
        return Affixes()
    prefix, suffix = _shared(photos)
    for image_prefix, image_suffix in (("", ""), ("", suffix), (prefix, ""), (prefix, suffix)):
        keys = {_strip(name, image_prefix, image_suffix) for name in photos} - {None}
        counts = _count(masks, keys, image_prefix, image_suffix)
        best = _best(counts, len(photos), len(masks), where)
        if best is not None:
            return best
    return Affixes()


def divide(
    files: Iterable[Path], folder: Path, affixes: Affixes | None
) -> tuple[dict[str, Path], dict[str, Path], Affixes]:
    """Divide the pictures of one folder into photos and masks, both by their names.

    Args:
        files: every picture in it.
        folder: names are relative to it.
        affixes: what tells masks; None to find out.

    Returns:
        Photos and masks by name, and the affixes; both are empty when nothing tells them apart.

    Raises:
        DataError: several affixes are equally good.
    """
    named = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    if affixes is None:
        affixes = _affixes_within(named.values(), folder)
    if affixes == Affixes():
        return *_divide_by_ending(named), affixes
    masks = {name: path for path, name in named.items() if affixes.key_of_mask(name) is not None}
    photos = {name: path for path, name in named.items() if path not in set(masks.values())}
    return photos, masks, affixes


def _affixes_within(names: Collection[str], where: Path) -> Affixes:
    """Return the affix of the masks among names of photos and masks."""
    known, half = set(names), len(names) // 2
    return _best(_count(known, known, "", ""), half, half, where) or Affixes()


def _divide_by_ending(named: Mapping[Path, str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Divide a.jpg, a.png, b.jpg, b.png, …"""
    jpegs = {name: path for path, name in named.items() if path.suffix.lower() in (".jpg", ".jpeg")}
    rest = {name: path for path, name in named.items() if path.suffix.lower() in _MASK_ENDINGS}
    if jpegs and len(jpegs.keys() & rest.keys()) >= _ENOUGH * max(len(jpegs), len(rest)):
        return jpegs, rest
    return {}, {}


def _best(counts: Counter[Affixes], photos: int, masks: int, where: Path) -> Affixes | None:
    if not counts:
        return None
    sampled = min(1.0, _SAMPLED / max(1, masks))
    most = max(counts.values())
    if most < max(1, _ENOUGH * sampled * min(photos, masks)):
        return None
    best = [affixes for affixes, count in counts.items() if count == most]
    if len(best) > 1:
        choices = " or ".join(sorted(affixes.lines for affixes in best)[:6])
        raise DataError(
            f"{where}: there are several masks for each photo. Write the one that is meant into "
            f"dataset.toml: {choices}."
        )
    return best[0]


def _count(
    masks: Collection[str], keys: Collection[str | None], image_prefix: str, image_suffix: str
) -> Counter[Affixes]:
    """Count how many masks each affix pairs with one of the photos' keys."""
    counts: Counter[Affixes] = Counter()
    for name in _some(masks):
        around = set(_around(name, keys))
        if name in keys and (image_prefix or image_suffix):
            around.add(("", ""))
        counts.update(Affixes(image_prefix, image_suffix, p, s) for p, s in around)
    return counts


def _around(name: str, known: Collection[str | None]) -> Iterator[tuple[str, str]]:
    """Give what stands before and behind each known name that begins or ends ``name``."""
    folder, slash, last = name.rpartition("/")
    for at in range(1, len(last)):
        if f"{folder}{slash}{last[:at]}" in known:
            yield "", last[at:]
        if f"{folder}{slash}{last[at:]}" in known:
            yield last[:at], ""


def _shared(names: Collection[str]) -> tuple[str, str]:
    """Return what all names begin and end with; digits count up, so they are no part of it."""
    lasts = [PurePosixPath(name).name for name in names]
    if len(lasts) < 2:
        return "", ""
    prefix = _shared_start(lasts).rstrip("0123456789")
    suffix = _shared_start([last[::-1] for last in lasts]).rstrip("0123456789")[::-1]
    return prefix, suffix


def _shared_start(texts: Collection[str]) -> str:
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((place for place, (a, b) in pairs if a != b), len(first))]


def _some(names: Collection[str]) -> list[str]:
    ordered = sorted(names)
    return ordered[:: max(1, len(ordered) // _SAMPLED)][:_SAMPLED]


def _strip(name: str, prefix: str, suffix: str) -> str | None:
    folder, slash, last = name.rpartition("/")
    if len(last) <= len(prefix) + len(suffix):
        return None
    if not last.startswith(prefix) or not last.endswith(suffix):
        return None
    return f"{folder}{slash}{last[len(prefix) : len(last) - len(suffix)]}"
