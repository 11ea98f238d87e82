"""Every setting with what it does, taken from the records: for the terminal and for the docs.

python -m deeplab.training.settings_page > docs/settings.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deeplab.errors import InputError
from deeplab.files import to_toml
from deeplab.models.backbones import DERIVED
from deeplab.models.config import DeepLabConfig
from deeplab.training.limits import limits_of
from deeplab.training.settings import Settings
from deeplab.training.tables import describe_kind, hint

_HEAD = """# Settings

Every setting of a recipe, and of `-s NAME=VALUE`; `deeplab train --settings` lists them, and
`deeplab train --settings WORD` looks for one. This page is made from the code
(`python -m deeplab.training.settings_page`).
"""


@dataclass(frozen=True)
class Entry:
    """A setting.

    Attributes:
        name: dotted, as ``-s`` takes it.
        kind: what it takes, in words.
        default: as TOML; empty where there is none.
        text: what it does.
    """

    name: str
    kind: str
    default: str
    text: str


def list_settings() -> list[Entry]:
    """Return every setting, in the order of the records."""
    entries: list[Entry] = []
    for field in dataclasses.fields(Settings):
        part = field.default_factory() if callable(field.default_factory) else None
        if dataclasses.is_dataclass(part):
            entries += _entries(type(part), f"{field.name}.", _attributes(type(part)))
        elif field.name == "model":
            entries += _entries(DeepLabConfig, "model.", _docstrings(DeepLabConfig))
        else:
            entries += _entries(Settings, "", _docstrings(Settings), only=field.name)
    return [entry for entry in entries if entry.name != "model.num_classes"]


def find_settings(word: str) -> list[Entry]:
    """Return the settings whose name or text holds a word, those with it in the name first.

    Raises:
        InputError: there is none; with what may be meant.
    """
    entries, low = list_settings(), word.lower()
    named = [entry for entry in entries if low in entry.name]
    told = [entry for entry in entries if low in entry.text.lower() and entry not in named]
    meant = hint(word)
    also = [entry for entry in entries if meant.startswith(f" {entry.name}") and meant]
    found = list(dict.fromkeys([*also, *named, *told]))
    if not found:
        raise InputError(f"--settings: nothing is called or says '{word}'.")
    return found


def to_markdown() -> str:
    """Return the page."""
    lines, table = [_HEAD], ""
    for entry in list_settings():
        head = entry.name.rpartition(".")[0] or "recipe"
        if head != table:
            table = head
            title = "The recipe itself" if head == "recipe" else f"`[{head}]`"
            lines += [f"\n## {title}\n", "| Setting | Default | What |", "|---|---|---|"]
        text = re.sub(r"``([^`]*)``", r"`\1`", entry.text).replace("|", "\\|")
        default = f"`{entry.default}`" if entry.default else ""
        lines.append(f"| `{entry.name}` | {default} | {text} *{entry.kind}* |")
    return "\n".join(lines) + "\n"


def _entries(
    record: type[Any], where: str, texts: dict[str, str], only: str | None = None
) -> Iterator[Entry]:
    kinds = typing.get_type_hints(record, include_extras=True)
    for field in dataclasses.fields(record):
        if only not in (None, field.name):
            continue
        limits, kind = limits_of(kinds[field.name]), kinds[field.name]
        if typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
        words = describe_kind(kind) + (f", {limits}" if limits else "")
        yield Entry(f"{where}{field.name}", words, _default(field), texts.get(field.name, ""))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is DERIVED and "None" not in str(field.type):
        return "derived"
    if field.default is not dataclasses.MISSING:
        return "none" if field.default is None else to_toml(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return to_toml(field.default_factory())
    return ""


def _attributes(record: type[Any]) -> dict[str, str]:
    """Return what the docstring says under "Attributes:"."""
    _, _, part = inspect.cleandoc(record.__doc__ or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in part.splitlines():
        start = re.match(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            texts[name] = start[2]
        elif line.startswith("        ") and name:
            texts[name] += " " + line.strip()
        else:
            name = ""
    return {name: text[0].upper() + text[1:] for name, text in texts.items()}


def _docstrings(record: type[Any]) -> dict[str, str]:
    """Return the strings that stand below the fields."""
    body: list[ast.stmt] = []
    for one in reversed(record.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body += tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        before.target.id: " ".join(str(node.value.value).split())
        for before, node in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
    }


if __name__ == "__main__":
    print(to_markdown(), end="")
