"""Which pairs belong to which split: lists of names, folders, and shares of what these leave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deeplab.data.description import FILE_NAME, Split
from deeplab.errors import DataError, InputError
from deeplab.files import read_text
from deeplab.photo.formats import PHOTO_SUFFIXES

_LONGEST_LINE = 1024
_SPLIT_LINES = f"Write into {FILE_NAME}: [splits], and below it train = 0.8 and val = 0.2"


@dataclass(frozen=True)
class Member:
    """One line of a list.

    Attributes:
        key: of the pair.
        photo, mask: the paths in the line, where it has them.
    """

    key: str
    photo: str = ""
    mask: str = ""


class SplitRules:
    """The splits of a data set.

    Args:
        rules: what makes each split.
        root: the folder of the data set; lists are inside it.
        keys: the keys of all pairs, sorted; folders are the beginning of a key.
        spellings: how else lists may call a pair -> its key.
    """

    def __init__(
        self,
        rules: Mapping[str, Split],
        root: Path,
        keys: Iterable[str],
        spellings: Mapping[str, str],
    ) -> None:
        self._rules, self._root, self._keys = rules, root, list(keys)
        self._spellings = {**spellings, **{key: key for key in self._keys}}

    def members(self, split: str) -> list[Member]:
        """Return the pairs of ``split``, in the order of its list, else sorted.

        Raises:
            DataError: the list is missing, wrong or outside the data set, or the split is empty.
        """
        if split == "all":
            return [Member(key) for key in self._keys]
        rule = self._rules[split]
        if isinstance(rule, float):
            members = [Member(key) for key in self._dealt()[split]]
        else:
            members = self._stated(split, rule)
        if members:
            return members
        if isinstance(rule, float):
            left = len(self._keys) - len(self._taken())
            raise DataError(
                f"splits.{split}: {rule:g} of the {left} photos that the other splits leave is "
                f"none at all. {_SPLIT_LINES}, instead of the lists."
            )
        raise DataError(f"splits.{split}: {rule!r} holds no names. {_SPLIT_LINES}.")

    def _stated(self, split: str, rule: str | tuple[str, ...]) -> list[Member]:
        if not isinstance(rule, str):
            return [self._member(name, f"splits.{split}") for name in rule]
        if self._path(split, rule).is_file():
            return self._read(self._path(split, rule))
        inside = [Member(key) for key in self._keys if key.startswith(f"{rule}/")]
        if not inside:
            raise DataError(
                f"splits.{split}: '{rule}' is neither a list in {self._root} nor a folder with "
                "photos."
            )
        return inside

    def _path(self, split: str, rule: str) -> Path:
        """Return where a list is; what stands outside the data set is never read."""
        path = self._root / rule
        try:
            inside = path.resolve().is_relative_to(self._root.resolve())
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise DataError(
                f"splits.{split}: got '{rule}', expected a list or folder inside {self._root}."
            )
        return path

    def _read(self, path: Path) -> list[Member]:
        try:
            lines = read_text(path).splitlines()
        except InputError as error:
            raise DataError(str(error)) from None
        return [
            self._member(line.strip(), f"{path}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]

    def _member(self, line: str, where: str) -> Member:
        """Return the pair that a line names: "a", "images/a.jpg", or "images/a.jpg masks/a.png"."""
        if len(line) > _LONGEST_LINE or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
            raise DataError(f"{where}: is no name of a photo. A list has one name a line.")
        photo, mask = line, ""
        parts = re.split(r"[\s,;]+", line)
        if len(parts) == 2 and all(_is_picture(part) for part in parts):
            photo, mask = parts
        if ".." in PurePosixPath(photo).parts or ".." in PurePosixPath(mask).parts:
            raise DataError(f"{where}: leads out of the data set; a list has names inside it.")
        photo, mask = (part.replace("\\", "/").lstrip("/") for part in (photo, mask))
        return Member(self._key(photo), photo, mask)

    def _key(self, name: str) -> str:
        """Return the key of a name; the longest end of its path that is known decides.

        A name without a photo stays as it is: reading it fails, and the doctor lists it.
        """
        if name in self._spellings:
            return self._spellings[name]
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for spelling in (end, _without_suffix(end)):
                if spelling in self._spellings:
                    return self._spellings[spelling]
        return _without_suffix("/".join(parts)) or name

    def _taken(self) -> set[str]:
        """Return the keys that lists and folders name."""
        stated = ((s, rule) for s, rule in self._rules.items() if not isinstance(rule, float))
        return {m.key for split, rule in stated for m in self._stated(split, rule)} & {*self._keys}

    def _dealt(self) -> dict[str, list[str]]:
        """Deal out what is left by share, by a hash of the names: stable, blind to neighbours."""
        shares = {name: rule for name, rule in self._rules.items() if isinstance(rule, float)}
        if sum(shares.values()) > 1 + 1e-9:
            raise DataError(f"splits: the shares add up to {sum(shares.values()):g}, more than 1.")
        taken = self._taken()
        left = (key for key in self._keys if key not in taken)
        order = sorted(left, key=lambda key: hashlib.sha256(key.encode()).digest())
        dealt, start, total = {}, 0, 0.0
        for split, share in shares.items():
            total += share
            end = round(total * len(order))
            dealt[split] = sorted(order[start:end])
            start = end
        return dealt


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def _without_suffix(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)] if _is_picture(name) else name
