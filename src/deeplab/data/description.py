"""``dataset.toml``: the few lines that say what the masks of a folder mean.

    classes = ["background", "cat", "dog"]

Everything else has a default; ``docs/dataset-toml.md`` explains every key:

    name = "pets"
    images = "images"            # folder of the photos
    masks = "masks"              # folder of the masks
    mask_suffix = ""             # "_mask" when the mask of a.jpg is a_mask.png
    values = [0, 1, 2]           # the value (or values) of each class in grey and palette masks
    ignore = 255                 # the value (or list of values) of unlabelled pixels
    colours = [[0, 0, 0], …]     # one per class; RGB masks need them
    ignore_colours = [[224, 224, 192]]
    encoding = "value"           # "colour": read palette masks by colour as well
    transparent = "background"   # what transparent pixels are: a class, or "ignore"
    background = "background"    # the class that overlays leave clear; "" for none
    channels = 4                 # the pictures are no photos: all channels, in their own numbers
    rgb = [3, 2, 1]              # which of those are red, green and blue, from 1 on
    overlap = true               # classes may overlap: a mask for each, see ``overlapping.py``

    [splits]
    train = "train.txt"          # a list of names, one a line
    val = "val"                  # or a folder inside images/ (and masks/)
    test = 0.1                   # or a share of what the others leave, by a hash of the names

Values and colours may also stand by name: ``values = { background = 0, cat = [1, 255] }``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from deeplab.data.masks import IGNORE, MaskEncoding
from deeplab.data.pairing import Affixes
from deeplab.errors import DataError, InputError, near_matches
from deeplab.files import TOMLDecodeError, parse_toml, read_text, replacing, to_toml
from deeplab.labels import Colour, LabelSet
from deeplab.photo.bands import MOST_CHANNELS

FILE_NAME = "dataset.toml"
Split: TypeAlias = "str | float | tuple[str, ...]"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What ``dataset.toml`` says; the attributes are its keys, explained in the module's text.

    Raises:
        InputError: classes, values, colours or background contradict each other.
    """

    classes: tuple[str, ...]
    name: str = ""
    images: str = "images"
    masks: str = "masks"
    mask_suffix: str = ""
    mask_prefix: str = ""
    image_suffix: str = ""
    image_prefix: str = ""
    values: tuple[int | tuple[int, ...], ...] = ()
    ignore: tuple[int, ...] = (IGNORE,)
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    encoding: Literal["value", "colour"] = "value"
    transparent: str = ""
    background: str | None = None
    channels: int = 0
    rgb: tuple[int, ...] = ()
    overlap: bool = False
    splits: Mapping[str, Split] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels()
        self.mask_encoding()
        if not 0 <= self.channels <= MOST_CHANNELS:
            raise InputError(
                f"channels: got {self.channels}, expected 1 to {MOST_CHANNELS}; leave it out for "
                "photos."
            )
        wrong = min(self.rgb, default=1) < 1 or max(self.rgb, default=0) > self.channels
        if self.rgb and (len(self.rgb) not in (1, 3) or wrong):
            raise InputError(
                f"rgb: got {list(self.rgb)} of {self.channels} channels, expected three of them, "
                "as red, green and blue, or one as grey, numbered from 1."
            )

    def labels(self) -> LabelSet:
        """Return the classes."""
        names, background = self.classes, None
        if self.overlap:
            if len(names) < 2 or self.background:
                raise InputError(
                    "overlap: is for two classes or more without a background, each of which has "
                    'masks of its own. For one class write ["background", NAME], without it.'
                )
            return LabelSet(names, self.colours, background=None, overlap=True)
        if self.background:
            background = LabelSet(names).index(self.background)
        elif self.background is None and names[:1] and "background" in names[0].lower():
            background = 0
        return LabelSet(names, self.colours, background=background)

    def mask_encoding(self) -> MaskEncoding:
        """Return how the masks hold class ids."""
        if self.overlap:
            return self._plane_encoding()
        values = self.values or tuple(range(len(self.classes)))
        if len(values) != len(self.classes):
            raise InputError(
                f"values: got {len(values)} values for {len(self.classes)} classes; give one each."
            )
        several = [value if isinstance(value, tuple) else (value,) for value in values]
        known = {value for group in several for value in group}
        return MaskEncoding(
            values=tuple(group[0] for group in several),
            ignore=tuple(value for value in self.ignore if self.values or value not in known),
            colours=self.colours,
            ignore_colours=self.ignore_colours,
            by_colour=self.encoding == "colour",
            also=tuple((value, i) for i, group in enumerate(several) for value in group[1:]),
            transparent=self._transparent(),
        )

    def _plane_encoding(self) -> MaskEncoding:
        """Return how the masks of single classes hold 0 (no) and 1 (yes)."""
        values = self.values or (0, 1)
        if len(values) != 2 or not all(isinstance(value, int) for value in values):
            raise InputError(
                f"values: got {list(values)}, expected two where classes overlap: what is not of "
                "the class, and what is: [0, 255]."
            )
        ignore = tuple(value for value in self.ignore if value not in values)
        return MaskEncoding(values=(int(values[0]), int(values[1])), ignore=ignore)  # type: ignore[arg-type]

    @property
    def affixes(self) -> Affixes | None:
        """What is said about the names of photos and masks; None where nothing is."""
        said = Affixes(self.image_prefix, self.image_suffix, self.mask_prefix, self.mask_suffix)
        return None if said == Affixes() else said

    def _transparent(self) -> int:
        """Return the class id of transparent pixels, or IGNORE."""
        labels = self.labels()
        if self.transparent == "ignore":
            return IGNORE
        if self.transparent and (self.transparent in self.classes or labels.background is None):
            return labels.index(self.transparent)
        return IGNORE if labels.background is None else labels.background


def read_description(path: Path, *, beside: Description | None = None) -> Description:
    """Read a ``dataset.toml``.

    Args:
        path: the file.
        beside: what another file says of the classes; keys of ``path`` go before it.

    Raises:
        DataError: it is no TOML, has an unknown key, or contradicts itself.
    """
    try:
        table = parse_toml(read_text(path))
    except TOMLDecodeError as error:
        raise DataError(f"{path}: is not TOML ({error}).") from None
    except (InputError, RecursionError) as error:
        raise DataError(f"{path}: {error}") from None
    known = [item.name for item in fields(Description)]
    for key in table:
        if key not in known:
            raise DataError(
                f"{path}: unknown key '{key}'.{near_matches(key, known)} "
                f"It may hold: {', '.join(known)}."
            )
    by_name = next((table[key] for key in ("values", "colours") if _is_table(table.get(key))), None)
    if "classes" not in table and beside is None and by_name is not None:
        table["classes"] = list(by_name)
    if "classes" not in table and beside is None:
        raise DataError(f"{path}: the key 'classes' is missing: the class names, in id order.")
    try:
        settings: dict[str, Any] = {}
        if beside is not None and "classes" not in table:
            settings = {item.name: getattr(beside, item.name) for item in fields(beside)}
        classes = table.get("classes", settings.get("classes", ()))
        for key, value in table.items():
            named = key in ("values", "colours") and _is_table(value)
            settings[key] = _READERS[key](key, _in_order(key, value, classes) if named else value)
        return Description(**settings)
    except InputError as error:
        raise DataError(f"{path}: {error}") from None


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _in_order(key: str, table: Mapping[str, Any], classes: Sequence[str]) -> list[Any]:
    """Return what a table says by class name, in the order of the classes."""
    for name in table:
        if name not in classes:
            raise InputError(
                f"{key}: there is no class '{name}'.{near_matches(name, classes)} "
                f"The classes are: {', '.join(map(str, classes))}."
            )
    missing = [name for name in classes if name not in table]
    if missing:
        raise InputError(f"{key}: nothing is said of {', '.join(map(str, missing))}.")
    return [table[name] for name in classes]


def write_description(path: Path, description: Description) -> None:
    """Write a ``dataset.toml``; keys that hold their default are left out."""
    lines = []
    for item in fields(description):
        value = getattr(description, item.name)
        if item.name != "splits" and value != item.default:
            lines.append(f"{item.name} = {to_toml(value)}")
    if description.splits:
        lines += ["", "[splits]"]
        lines += [f"{to_toml(key)} = {to_toml(value)}" for key, value in description.splits.items()]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key}: got {value!r}, expected a text in quotes.")
    return value


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(f"{key}: got {value!r}, expected a list of texts.")
    return tuple(value)


def _values(key: str, value: Any) -> tuple[int | tuple[int, ...], ...]:
    """Read one value per class, or a list of values where a class has several."""
    if not isinstance(value, list):
        return _numbers(key, value)
    if [] in value:
        raise InputError(f"{key}: got {value!r}, expected at least one value for each class.")
    return tuple(
        _numbers(key, item) if isinstance(item, list) else _numbers(key, item)[0] for item in value
    )


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{key}: got {value!r}, expected true or false.")
    return value


def _number(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key}: got {value!r}, expected a whole number.")
    return value


def _numbers(key: str, value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise InputError(f"{key}: got {value!r}, expected whole numbers.")
    return tuple(numbers)


def _colours(key: str, value: Any) -> tuple[Colour, ...]:
    if not isinstance(value, list) or not all(_is_colour(item) for item in value):
        raise InputError(f"{key}: got {value!r}, expected [[red, green, blue], …], each 0 to 255.")
    return tuple((item[0], item[1], item[2]) for item in value)


def _is_colour(item: Any) -> bool:
    return (
        isinstance(item, list)
        and len(item) == 3
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= 255 for n in item)
    )


def _encoding(key: str, value: Any) -> str:
    if value not in ("value", "colour"):
        raise InputError(f"{key}: got {value!r}, expected 'value' or 'colour'.")
    return str(value)


def _splits(key: str, value: Any) -> dict[str, Split]:
    if not isinstance(value, dict):
        raise InputError(f"{key}: got {value!r}, expected a table: [splits].")
    splits: dict[str, Split] = {}
    for name, content in value.items():
        if isinstance(content, str):
            splits[name] = content
        elif isinstance(content, list):
            splits[name] = _texts(f"{key}.{name}", content)
        elif isinstance(content, float) and 0 < content < 1:
            splits[name] = content
        else:
            raise InputError(
                f"{key}.{name}: got {content!r}, expected the name of a list or folder, a list of "
                "names, or a share between 0 and 1."
            )
    return splits


_READERS = {
    "name": _text, "images": _text, "masks": _text, "mask_suffix": _text, "mask_prefix": _text,
    "image_suffix": _text, "image_prefix": _text, "background": _text, "transparent": _text,
    "classes": _texts, "values": _values, "ignore": _numbers, "colours": _colours,
    "ignore_colours": _colours, "encoding": _encoding, "splits": _splits,
    "channels": _number, "rgb": _numbers, "overlap": _flag,
}  # fmt: skip
