"""``timm``, imported without torchvision where that is not there or does not start.

timm names torchvision as a dependency, and so pip brings one, which brings a torch of its own: for
somebody with a torch for the CPU, gigabytes of CUDA in its place. Of all that, timm's networks need
one class to compare with (``FrozenBatchNorm2d``); the rest is for its data pipeline. So while timm
is imported, and only then, names of a torchvision that cannot be imported stand for themselves. Who
calls one is told so.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from deeplab.errors import MissingExtraError


def import_timm() -> Any:
    """Return the package.

    Raises:
        MissingExtraError: it is not installed.
    """
    if "timm" in sys.modules:
        return sys.modules["timm"]
    if importlib.util.find_spec("timm") is None:
        raise MissingExtraError("A timm backbone", package="timm", extra="timm")
    if _has_torchvision():
        return importlib.import_module("timm")
    with _stand_in():
        return importlib.import_module("timm")


def _has_torchvision() -> bool:
    try:
        importlib.import_module("torchvision.ops.misc")
    except Exception:  # built for another torch: it fails in many ways
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


@contextmanager
def _stand_in() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


class _Name(type):
    """A class that is no more than its name."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        raise ImportError(
            f"torchvision.{cls.__name__}: torchvision could not be imported when timm was."
        )


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if not name[:1].isupper():  # a module of that name is looked for then
            raise AttributeError(name)
        made = _Name(name, (), {})
        setattr(self, name, made)
        return made


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        first, _, second = fullname.partition(".")
        # timm does without torchvision.models by itself, and says so where it cannot.
        if first != "torchvision" or second.startswith("models"):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
