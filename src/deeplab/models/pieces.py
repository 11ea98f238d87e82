"""Pieces of the reader's own, by name: ``FILE.py:NAME``, ``MODULE:NAME``, or handed over in Python.

A recipe names them, so that a training that goes on finds them again. What is named is imported,
which runs its code: only a recipe of somebody whom one trusts may do so. A release pair may come
from anywhere, and so never has code imported that nobody has named here: not by a recipe, nor by
``hand_over``, nor in the environment variable ``DEEPLAB_PIECES`` (names with commas between).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from deeplab.errors import InputError, near_matches

_handed: dict[str, Any] = {}  # by name, what a program gave instead of a name
_named: set[str] = set()  # what a person has named in this process


def hand_over(piece: Any) -> str:
    """Let release pairs be opened whose network this function or class makes; return its name.

    Raises:
        InputError: it cannot be called.
    """
    return name_piece(piece, "hand_over")


def find_trusted(name: str) -> Any:
    """Return what a release pair names, where a person has named it, too.

    Raises:
        InputError: nobody has, or :func:`find_piece` does not find it.
    """
    asked = {one.strip() for one in os.environ.get("DEEPLAB_PIECES", "").split(",")}
    if name not in _handed and name not in _named | asked:
        raise InputError(
            f"model.own: this network is made by code of its author, {name}. Where you trust it, "
            f"say so: DEEPLAB_PIECES={name}, or in Python deeplab.models.hand_over(…) the function "
            "that makes it."
        )
    return find_piece(name, "model.own")


def find_piece(name: str, where: str) -> Any:
    """Return what ``FILE.py:NAME`` or ``MODULE:NAME`` names.

    Args:
        name: the file is looked for from the current folder; the module as ``import`` does.
        where: the setting, for messages.

    Raises:
        InputError: there is no such file, module or name, or importing it fails.
    """
    if name in _handed:
        return _handed[name]
    _named.add(name)
    place, _, inner = name.rpartition(":")
    if not place or not inner:
        raise InputError(f"{where}: got '{name}', expected FILE.py:NAME or MODULE:NAME.")
    module = _import_file(Path(place), where) if place.endswith(".py") else _import(place, where)
    found = module
    for part in inner.split("."):
        known = [one for one in vars(found) if not one.startswith("_")]
        if not hasattr(found, part):
            raise InputError(f"{where}: {place} has no '{part}'.{near_matches(part, known)}")
        found = getattr(found, part)
    return found


def name_piece(piece: Any, where: str) -> str:
    """Return the name of a function, class or object, under which :func:`find_piece` finds it.

    Raises:
        InputError: it is neither a name nor anything that can be called.
    """
    if isinstance(piece, str):
        return piece
    if not callable(piece):
        raise InputError(f"{where}: got {piece!r}, expected a function, a class, or its name.")
    if getattr(piece, "__name__", "") == "<lambda>":
        raise InputError(f"{where}: got a lambda; give a function that has a name.")
    named = piece if hasattr(piece, "__qualname__") else type(piece)
    name = f"{named.__module__}:{named.__qualname__}"
    _handed[name] = piece
    return name


def _import(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # somebody's code: anything may happen
        hint = " A file of your own is FILE.py:NAME." if isinstance(error, ImportError) else ""
        raise InputError(f"{where}: {name} cannot be imported: {_words(error)}.{hint}") from error


def _import_file(path: Path, where: str) -> Any:
    path = path.expanduser().resolve()
    name = f"deeplab_piece_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}.")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # data workers and dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{where}: {path} cannot be imported: {_words(error)}.") from error
    return module


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
