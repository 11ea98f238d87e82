"""``dataset.toml``: the few lines that say what the masks of a folder mean.

    classes = ["background", "cat", "dog"]

Everything else has a default:

    name = "pets"
    images = "images"            # folder of the photos
    masks = "masks"              # folder of the masks
    mask_suffix = ""             # "_mask" when the mask of a.jpg is a_mask.png
    values = [0, 1, 2]           # the value of each class in greyscale and palette masks
    ignore = 255                 # the value (or list of values) of unlabelled pixels
    colours = [[0, 0, 0], …]     # one per class; RGB masks need them
    ignore_colours = [[224, 224, 192]]
    encoding = "value"           # "colour": read palette masks by colour as well
    background = "background"    # the class that overlays leave clear; "" for none

    [splits]
    train = "train.txt"          # a list of names, one a line
    val = "val"                  # or a folder inside images/ (and masks/)
    test = 0.1                   # or a share of all pairs, chosen by a hash of their names
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from deeplab.data.masks import IGNORE, MaskEncoding
from deeplab.errors import DataError, InputError, near_matches
from deeplab.files import TOMLDecodeError, parse_toml, replacing, to_toml
from deeplab.labels import Colour, LabelSet

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
    values: tuple[int, ...] = ()
    ignore: tuple[int, ...] = (IGNORE,)
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    encoding: Literal["value", "colour"] = "value"
    background: str | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels()
        self.mask_encoding()

    def labels(self) -> LabelSet:
        """Return the classes."""
        names, background = self.classes, None
        if self.background:
            background = LabelSet(names).index(self.background)
        elif self.background is None and names[:1] and "background" in names[0].lower():
            background = 0
        return LabelSet(names, self.colours, background=background)

    def mask_encoding(self) -> MaskEncoding:
        """Return how the masks hold class ids."""
        values = self.values or tuple(range(len(self.classes)))
        if len(values) != len(self.classes):
            raise InputError(
                f"values: got {len(values)} values for {len(self.classes)} classes; give one each."
            )
        return MaskEncoding(
            values=values,
            ignore=tuple(value for value in self.ignore if self.values or value not in values),
            colours=self.colours,
            ignore_colours=self.ignore_colours,
            by_colour=self.encoding == "colour",
        )


def read_description(path: Path) -> Description:
    """Read a ``dataset.toml``.

    Raises:
        DataError: it is no TOML, has an unknown key, or contradicts itself.
    """
    try:
        table = parse_toml(path.read_text(encoding="utf-8"))
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not TOML ({error}).") from None
    known = [item.name for item in fields(Description)]
    for key in table:
        if key not in known:
            raise DataError(
                f"{path}: unknown key '{key}'.{near_matches(key, known)} "
                f"It may hold: {', '.join(known)}."
            )
    if "classes" not in table:
        raise DataError(f"{path}: the key 'classes' is missing: the class names, in id order.")
    try:
        settings: dict[str, Any] = {key: _READERS[key](key, table[key]) for key in table}
        return Description(**settings)
    except InputError as error:
        raise DataError(f"{path}: {error}") from None


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
    "name": _text, "images": _text, "masks": _text, "mask_suffix": _text, "background": _text,
    "classes": _texts, "values": _numbers, "ignore": _numbers, "colours": _colours,
    "ignore_colours": _colours, "encoding": _encoding, "splits": _splits,
}  # fmt: skip
