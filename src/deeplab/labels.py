"""Label sets: which class id means what, and in which colour it is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, near_matches
from deeplab.files import read_text

Colour = tuple[int, int, int]  # red, green, blue; 0..255

UNKNOWN = 255
"""The id of pixels of which a network is not sure enough."""

UNKNOWN_NAME = "unknown"
UNKNOWN_COLOUR: Colour = (224, 224, 192)
"""That of VOC's colour map for 255."""


def voc_colours(count: int) -> tuple[Colour, ...]:
    """Return the first ``count`` colours of the PASCAL VOC colour map.

    The bits of the class id are dealt out to red, green and blue in turn, most significant bit
    first. Source: VOCcode/VOClabelcolormap.m of the VOC development kit.
    """
    colours = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)


@dataclass(frozen=True)
class LabelSet:
    """The classes of a network: ``names[i]`` and ``colours[i]`` belong to class id ``i``.

    Attributes:
        names: one name per class id, all different, 1 to 256 of them.
        colours: one (red, green, blue), 0..255, per class; the VOC colour map when left out.
        background: the class id that overlays leave transparent; None where every pixel
            belongs to something (streets).
        ignore_index: the value that marks unlabelled pixels in ground truth.
        unknown: the id of pixels of which a network was not sure enough to say a class; None where
            there are none, as in every label set of a model.

    Raises:
        InputError: no names, more than 256, doubled names, or another count of colours.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    background: int | None = 0
    ignore_index: int = field(default=255)
    unknown: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not 1 <= len(self.names) <= 256:
            raise InputError(f"labels: got {len(self.names)} names, expected 1 to 256.")
        colours = self.colours or voc_colours(len(self.names))
        object.__setattr__(self, "colours", tuple(colours))
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise InputError(f"labels: names must differ, but these occur twice: {doubled}.")
        if len(self.colours) != len(self.names):
            raise InputError(
                f"labels: got {len(self.colours)} colours for {len(self.names)} names; "
                "give one colour per name, or none at all."
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """(256, 3) uint8 RGB: the class colours, then the VOC colour map for all other ids."""
        palette = np.array(voc_colours(256), dtype=np.uint8)
        palette[: len(self)] = self.colours
        if self.unknown is not None:
            palette[self.unknown] = UNKNOWN_COLOUR
        return palette

    def name_of(self, index: int) -> str:
        """Return what an id in a mask is called: a class, or unknown."""
        return UNKNOWN_NAME if index == self.unknown else self.names[index]

    def colour_of(self, index: int) -> Colour:
        """Return the official colour of an id in a mask: of a class, or of unknown."""
        return UNKNOWN_COLOUR if index == self.unknown else self.colours[index]

    def with_unknown(self) -> LabelSet:
        """Return this label set for masks in which 255 is unknown.

        Raises:
            InputError: 255 is a class.
        """
        if len(self) > UNKNOWN:
            raise InputError(
                f"unknown: these labels have {len(self)} classes, so 255 is one of them and no id "
                "is left for unknown."
            )
        return replace(self, unknown=UNKNOWN)

    def index(self, name: str) -> int:
        """Return the class id of ``name``; case, spaces, ``-`` and ``_`` do not matter.

        The spellings of the public label files are understood too ("tvmonitor" and "tv",
        "diningtable" and "dining table").

        Raises:
            InputError: no class has that name; the near matches are in the message.
        """
        wanted = _canonical(name)
        for index, known in enumerate(self.names):
            if _canonical(known) == wanted:
                return index
        raise InputError(
            f"label: this model has no class '{name}'.{near_matches(name, self.names)} "
            f"It knows: {', '.join(self.names)}."
        )

    def indices(self, names: Iterable[str]) -> list[int]:
        """Return the class ids of several names (see :meth:`index`); a single one works too."""
        names = [names] if isinstance(names, str) else names
        return [self.index(name) for name in names]

    def to_dict(self) -> dict[str, Any]:
        """Return the label set as values that JSON knows."""
        return {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "background": self.background,
            "ignore_index": self.ignore_index,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSet:
        """Make a label set from what :meth:`to_dict` gave; a known one is that very object.

        Raises:
            InputError: names and colours do not fit.
            KeyError, TypeError, ValueError: a part is missing or of another kind.
        """
        labels = cls(
            names=tuple(values["names"]),
            colours=tuple((int(r), int(g), int(b)) for r, g, b in values["colours"]),
            background=values["background"],
            ignore_index=values["ignore_index"],
        )
        return next((known for known in LABEL_SETS.values() if known == labels), labels)


_SYNONYMS = {"tvmonitor": "tv", "motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa"}


def _canonical(name: str) -> str:
    plain = re.sub(r"[\s_\-]+", "", name.lower())
    return _SYNONYMS.get(plain, plain)


VOC = LabelSet(
    names=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant",
        "sheep", "sofa", "train", "tv",
    ),
)  # fmt: skip
"""PASCAL VOC 2012, in the spelling of the label file that ships with the public TFLite model."""

CITYSCAPES = LabelSet(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    colours=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    background=None,
)  # fmt: skip
"""Cityscapes, the 19 training classes in ``trainId`` order.

Source: cityscapesScripts, helpers/labels.py.
"""

CAMVID = LabelSet(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    colours=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    background=None,
    ignore_index=11,
)  # fmt: skip
"""CamVid in the 11-class split of SegNet; 11 marks unlabelled pixels."""

LABEL_SETS: dict[str, LabelSet] = {"voc": VOC, "cityscapes": CITYSCAPES, "camvid": CAMVID}
"""The label sets that ``--labels NAME`` understands."""


def open_labels(labels: LabelSet | str | PathLike[str]) -> LabelSet:
    """Return a label set as it is, a known one by its name ("voc"), or the one in a label file.

    Raises:
        InputError: neither of these, or the file cannot be read.
    """
    if isinstance(labels, LabelSet):
        return labels
    if not isinstance(labels, (str, PathLike)):
        raise InputError(
            f"labels: got {type(labels).__name__}, expected a name, a path, or LabelSet(names)."
        )
    if isinstance(labels, str) and labels.lower() in LABEL_SETS:
        return LABEL_SETS[labels.lower()]
    try:
        text = read_text(labels)
    except InputError as error:
        raise InputError(
            f"labels: '{labels}' is no label file that can be read ({error}), and no known label "
            f"set ({', '.join(LABEL_SETS)}).{near_matches(str(labels), LABEL_SETS)}"
        ) from None
    return read_label_file(text)


def read_label_file(text: str, *, background: int | None = 0) -> LabelSet:
    """Return the label set in the text of a label file: one name per line, in id order.

    Raises:
        InputError: the text holds no names, or doubled ones.
    """
    names: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError("labels: the label file is empty; write one class name per line.")
    known = {known.names: known for known in LABEL_SETS.values()}
    return known.get(tuple(names)) or LabelSet(tuple(names), background=background)
