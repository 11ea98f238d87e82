"""What can be wrong with a data set, which of it stops a training, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of fault: whether it stops a training, what it is, and the cure."""

    stops: bool
    what: str
    cure: str


KINDS: dict[str, Kind] = {
    # -- files
    "missing-photo": Kind(True, "photos that a list names are missing",
        "Add them, or take their names out of the list."),
    "missing-mask": Kind(True, "photos without a mask",
        "Add the masks under the same names, or take the photos out."),
    "orphan-mask": Kind(False, "masks without a photo",
        "Check the spelling; a mask must have the name of its photo."),
    "unreadable-photo": Kind(True, "photos that cannot be read",
        "Copy or export them again; cut-off downloads are the usual cause."),
    "unreadable-mask": Kind(True, "masks that cannot be read", "Export them again as PNG."),
    "swapped": Kind(True, "photo and mask look swapped",
        "Put the photos into the photos' folder and the masks into the masks'."),
    "passed-over": Kind(False, "files that are neither photo nor mask to us were passed over",
        "Convert those that should count to JPEG or PNG; the rest does no harm."),
    # -- splits
    "split-overlap": Kind(True, "photos that are in two splits at once: a network would be judged "
        "by what it learned",
        "Take them out of one of the two lists, or let names decide: write [splits] into "
        "dataset.toml, and below it train = 0.8 and val = 0.2."),
    "small-split": Kind(False, "so few photos that a score over them says little",
        "Give it more: [splits] in dataset.toml, and below it train = 0.8 and val = 0.2."),
    # -- geometry
    "size": Kind(True, "masks of another size than their photo",
        "Resize masks to the photo's size with nearest neighbour, never smoothly."),
    "turned": Kind(True, "photos turned by EXIF over masks that are not",
        "Rotate the pixels of the photos and drop the tag, or draw the masks upright."),
    "maybe-turned": Kind(False, "photos turned by EXIF whose masks may not be",
        "The sizes cannot tell. Look at the page, whether mask and photo agree."),
    # -- what the pixels mean
    "lossy": Kind(True, "masks in a lossy format, which smears ids at every edge",
        "Export them again as PNG; renaming or converting the JPEG does not bring the ids back."),
    "smeared": Kind(True, "masks that were resized smoothly or went through JPEG",
        "Export them again without anti-aliasing; resize only with nearest neighbour."),
    "rgb": Kind(True, "RGB masks, but the data set names no colours",
        "Write `colours` into dataset.toml, one [red, green, blue] per class."),
    "colours": Kind(True, "masks with colours that belong to no class",
        "Add the colours to `colours` or `ignore_colours` in dataset.toml."),
    "ids": Kind(True, "masks with values that are no class",
        "Correct the class names (are there too few?), or say in dataset.toml which `values` the "
        "classes have and which are to `ignore`."),
    "grey-palette": Kind(True, "palette masks that were turned into grey shades",
        "The values are brightness, not ids. Export palette or index PNG; do not convert to 'L'."),
    "palette-order": Kind(True, "palette masks whose indices and colours name different classes",
        'If the colours are right, write encoding = "colour" into dataset.toml.'),
    "palettes-differ": Kind(True, "palette masks in which one colour has different indices",
        "Every file has its own palette, so indices are not ids. Write `colours` and "
        'encoding = "colour" into dataset.toml.'),
    "ignored-foreground": Kind(True, "255 is used for a class, but is read as 'ignored'",
        "A class must not be what marks unlabelled pixels."),
    "transparent": Kind(False, "masks with transparent pixels",
        'Say what they are if this is not meant: transparent = "ignore", or a class, in '
        "dataset.toml. The colour under them is never read."),
    # -- what there is to learn
    "only-one-class": Kind(True, "the whole split shows a single class",
        "A network would learn to say only that. Are these the right masks?"),
    "nothing-labelled": Kind(True, "every pixel of the split is ignored",
        "Check `ignore` and `values` in dataset.toml."),
    "one-class": Kind(False, "masks of a single class",
        "Fine for empty scenes; else these masks were exported empty."),
    "all-ignored": Kind(False, "masks in which every pixel is ignored",
        "They teach nothing; take them out."),
    "much-ignored": Kind(False, "more than half of the pixels are ignored",
        "Check `ignore` in dataset.toml: is the background meant to be a class?"),
    "absent-class": Kind(False, "classes that never occur",
        "Check the names and ids; a class without pixels cannot be learned nor scored."),
    "rare-class": Kind(False, "classes with less than 0.1 % of the pixels",
        "Use class weights or rare-class crops, or collect more."),
    # -- doubles
    "same-photo": Kind(False, "photos that occur twice in the split",
        "Keep one of each."),
    "same-photo-across": Kind(False, "photos that occur in two splits: scores will be too good",
        "Remove them from one of the two."),
    "near-photo": Kind(False, "photos that are nearly the same within the split",
        "Normal for video; else keep one of each."),
    "near-photo-across": Kind(False, "photos that are nearly the same in two splits",
        "Scores may be too good. Split by scene, not by frame."),
}  # fmt: skip
"""By code; the order is that of reports."""


@dataclass(frozen=True)
class Suspect:
    """One file, class or pair of files that shows a fault.

    Attributes:
        what: a path, or the name of a class.
        note: what was seen there.
        pair: the index in its split, or -1 when it is not a pair of the split.
        twin: the photo that this one is like, or empty.
    """

    what: str
    note: str
    pair: int = -1
    twin: str = ""


@dataclass(frozen=True)
class Fault:
    """One kind of fault in one split.

    Attributes:
        code: its key in :data:`KINDS`.
        split: where it was found.
        suspects: every case, in order.
        line: what to write where, made of what was seen; empty where nothing can be said.
    """

    code: str
    split: str
    suspects: tuple[Suspect, ...]
    line: str = ""

    @property
    def stops(self) -> bool:
        """Whether no training should begin before this is mended."""
        return KINDS[self.code].stops

    @property
    def what(self) -> str:
        """What is wrong, as the end of the sentence "… of the split are …"."""
        return KINDS[self.code].what

    @property
    def cure(self) -> str:
        """What to do about it."""
        return f"{KINDS[self.code].cure} {self.line}".rstrip()

    def __str__(self) -> str:
        first = self.suspects[0]
        name = Path(first.what).name
        more = f", and {len(self.suspects) - 1} more" if len(self.suspects) > 1 else ""
        return f"{self.split}: {self.what} ({name}: {first.note}{more}). {self.cure}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "code": self.code,
            "stops": self.stops,
            "split": self.split,
            "what": self.what,
            "cure": self.cure,
            "suspects": [{"what": s.what, "note": s.note} for s in self.suspects],
        }
