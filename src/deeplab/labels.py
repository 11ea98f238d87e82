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
        overlap: a pixel may be of several classes, or of none; there is no background then.

    Raises:
        InputError: no names, more than 256, doubled names, or another count of colours.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    background: int | None = 0
    ignore_index: int = field(default=255)
    unknown: int | None = None
    overlap: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not 1 <= len(self.names) <= 256:
            raise InputError(f"labels: got {len(self.names)} names, expected 1 to 256.")
        colours = self.colours or voc_colours(len(self.names))
        object.__setattr__(self, "colours", tuple(colours))
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            raise InputError(f"labels: names must differ, but these occur twice: {doubled}.")
        if self.overlap and self.background is not None:
            object.__setattr__(self, "background", None)
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
        if not isinstance(name, str):
            raise InputError(
                f"label: got {name!r}, expected the name of a class: {', '.join(self.names)}."
            )
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
        names = names if isinstance(names, Iterable) and not isinstance(names, str) else [names]
        return [self.index(name) for name in names]

    def spell(self, names: Iterable[str]) -> list[str]:
        """Return the names as they are written here, of :meth:`indices`."""
        return [self.names[index] for index in self.indices(names)]

    def to_dict(self) -> dict[str, Any]:
        """Return the label set as values that JSON knows."""
        content: dict[str, Any] = {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "background": self.background,
            "ignore_index": self.ignore_index,
        }
        return {**content, "overlap": True} if self.overlap else content

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
            overlap=bool(values.get("overlap", False)),
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

_ADE20K_NAMES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane",
    "grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant",
    "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror",
    "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub",
    "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter",
    "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs",
    "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
    "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
    "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier",
    "awning", "streetlight", "booth", "television receiver", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
    "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag",
    "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave",
    "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood",
    "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate",
    "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""The 150 classes in the benchmark's order, each by the first of its names in objectInfo150.txt."""

_ADE20K_COLOURS = (
    0x787878, 0xb47878, 0x06e6e6, 0x503232, 0x04c803, 0x787850, 0x8c8c8c, 0xcc05ff, 0xe6e6e6,
    0x04fa07, 0xe005ff, 0xebff07, 0x96053d, 0x787846, 0x08ff33, 0xff0652, 0x8fff8c, 0xccff04,
    0xff3307, 0xcc4603, 0x0066c8, 0x3de6fa, 0xff0633, 0x0b66ff, 0xff0747, 0xff09e0, 0x0907e6,
    0xdcdcdc, 0xff095c, 0x7009ff, 0x08ffd6, 0x07ffe0, 0xffb806, 0x0aff47, 0xff290a, 0x07ffff,
    0xe0ff08, 0x6608ff, 0xff3d06, 0xffc207, 0xff7a08, 0x00ff14, 0xff0829, 0xff0599, 0x0633ff,
    0xeb0cff, 0xa09614, 0x00a3ff, 0x8c8c8c, 0xfa0a0f, 0x14ff00, 0x1fff00, 0xff1f00, 0xffe000,
    0x99ff00, 0x0000ff, 0xff4700, 0x00ebff, 0x00adff, 0x1f00ff, 0x0bc8c8, 0xff5200, 0x00fff5,
    0x003dff, 0x00ff70, 0x00ff85, 0xff0000, 0xffa300, 0xff6600, 0xc2ff00, 0x008fff, 0x33ff00,
    0x0052ff, 0x00ff29, 0x00ffad, 0x0a00ff, 0xadff00, 0x00ff99, 0xff5c00, 0xff00ff, 0xff00f5,
    0xff0066, 0xffad00, 0xff0014, 0xffb8b8, 0x001fff, 0x00ff3d, 0x0047ff, 0xff00cc, 0x00ffc2,
    0x00ff52, 0x000aff, 0x0070ff, 0x3300ff, 0x00c2ff, 0x007aff, 0x00ffa3, 0xff9900, 0x00ff0a,
    0xff7000, 0x8fff00, 0x5200ff, 0xa3ff00, 0xffeb00, 0x08b8aa, 0x8500ff, 0x00ff5c, 0xb800ff,
    0xff001f, 0x00b8ff, 0x00d6ff, 0xff0070, 0x5cff00, 0x00e0ff, 0x70e0ff, 0x46b8a0, 0xa300ff,
    0x9900ff, 0x47ff00, 0xff00a3, 0xffcc00, 0xff008f, 0x00ffeb, 0x85ff00, 0xff00eb, 0xf500ff,
    0xff007a, 0xfff500, 0x0abed4, 0xd6ff00, 0x00ccff, 0x1400ff, 0xffff00, 0x0099ff, 0x0029ff,
    0x00ffcc, 0x2900ff, 0x29ff00, 0xad00ff, 0x00f5ff, 0x4700ff, 0x7a00ff, 0x00ffb8, 0x005cff,
    0xb8ff00, 0x0085ff, 0xffd600, 0x19c2c2, 0x66ff00, 0x5c00ff,
)  # fmt: skip
"""0xRRGGBB of each class, as in the benchmark's own colour table and the original's."""

_MAPILLARY_NAMES = (
    "bird", "ground animal", "curb", "fence", "guard rail", "barrier", "wall", "bike lane",
    "crosswalk - plain", "curb cut", "parking", "pedestrian area", "rail track", "road",
    "service lane", "sidewalk", "bridge", "building", "tunnel", "person", "bicyclist",
    "motorcyclist", "other rider", "lane marking - crosswalk", "lane marking - general",
    "mountain", "sand", "sky", "snow", "terrain", "vegetation", "water", "banner", "bench",
    "bike rack", "billboard", "catch basin", "cctv camera", "fire hydrant", "junction box",
    "mailbox", "manhole", "phone booth", "pothole", "street light", "pole",
    "traffic sign frame", "utility pole", "traffic light", "traffic sign (back)",
    "traffic sign (front)", "trash can", "bicycle", "boat", "bus", "car", "caravan",
    "motorcycle", "on rails", "other vehicle", "trailer", "truck", "wheeled slow", "car mount",
    "ego vehicle",
)  # fmt: skip
"""The 65 classes of Mapillary Vistas 1.2, in its order; id 65 is unlabelled."""

_MAPILLARY_COLOURS = (
    0xa52a2a, 0x00c000, 0xc4c4c4, 0xbe9999, 0xb4a5b4, 0x66669c, 0x66669c, 0x8040ff, 0x8c8cc8,
    0xaaaaaa, 0xfaaaa0, 0x606060, 0xe6968c, 0x804080, 0x6e6e6e, 0xf423e8, 0x966464, 0x464646,
    0x96785a, 0xdc143c, 0xff0000, 0xff0000, 0xff0000, 0xc88080, 0xffffff, 0x40aa40, 0x804040,
    0x4682b4, 0xffffff, 0x98fb98, 0x6b8e23, 0x00aa1e, 0xffff80, 0xfa001e, 0x000000, 0xdcdcdc,
    0xaaaaaa, 0xde2828, 0x64aa1e, 0x282828, 0x212121, 0xaaaaaa, 0x00008e, 0xaaaaaa, 0xd2aa64,
    0x999999, 0x808080, 0x00008e, 0xfaaa1e, 0xc0c0c0, 0xdcdc00, 0xb4a5b4, 0x770b20, 0x00008e,
    0x003c64, 0x00008e, 0x00005a, 0x0000e6, 0x005064, 0x804040, 0x00006e, 0x000046, 0x0000c0,
    0x202020, 0x000000,
)  # fmt: skip
"""0xRRGGBB of each class."""


def _unpack(colours: Iterable[int]) -> tuple[Colour, ...]:
    return tuple((value >> 16, value >> 8 & 255, value & 255) for value in colours)


ADE20K = LabelSet(_ADE20K_NAMES, _unpack(_ADE20K_COLOURS), background=None)
"""ADE20K, the 150 classes of the scene parsing benchmark; ids from 0, as here everywhere.

Source: research/deeplab/utils/get_dataset_colormap.py, whose id 0 is "other" and black.
"""

ADE20K_OTHER = LabelSet(("other", *ADE20K.names), ((0, 0, 0), *ADE20K.colours))
"""The same with "other" first, as the networks of the original's model zoo have it."""

MAPILLARY = LabelSet(
    _MAPILLARY_NAMES, _unpack(_MAPILLARY_COLOURS), background=None, ignore_index=65
)
"""Mapillary Vistas 1.2; 65 marks unlabelled pixels. Source: as that of ADE20K."""

LABEL_SETS: dict[str, LabelSet] = {
    "voc": VOC,
    "cityscapes": CITYSCAPES,
    "camvid": CAMVID,
    "ade20k": ADE20K,
    "ade20k-other": ADE20K_OTHER,
    "mapillary": MAPILLARY,
}
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
