"""Every error that the package raises on purpose.

    DeepLabError
    ├── InputError            (ValueError)   an argument or setting is wrong
    │   └── ConfigError                      a network configuration contradicts itself
    ├── ImageError            (ValueError)   a photo cannot be read
    │   ├── ImageFormatError                 it is no picture, or in a format unknown here
    │   └── ImageSizeError                   it has more pixels than are allowed
    ├── ModelError            (ValueError)   a model file or name cannot be used
    │   ├── ModelNotFoundError               no such name, no such file
    │   └── WeightsError                     foreign weights that do not fit
    ├── DataError             (ValueError)   a data set is broken
    ├── TrainingError         (RuntimeError) a training cannot go on
    ├── ExportError           (RuntimeError) a network cannot be written in a format
    ├── DownloadError         (OSError)      an address gave no file, or the wrong one
    ├── OutputError           (OSError)      a result cannot be written
    └── MissingExtraError     (ImportError)  an optional dependency is not installed

A message names the field, what was got, what was expected, and what to do. The command line
prints the message alone and exits 2; everything that is not a DeepLabError is our own bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeepLabError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(DeepLabError, ValueError):
    """An argument or a setting is wrong."""


class ConfigError(InputError):
    """A network configuration contradicts itself or asks for something that does not exist."""


class ImageError(DeepLabError, ValueError):
    """A photo cannot be read."""


class ImageFormatError(ImageError):
    """It is no picture, or one in a format that is not known here."""


class ImageSizeError(ImageError):
    """It has more pixels than are allowed."""


class ModelError(DeepLabError, ValueError):
    """A model file or name cannot be used."""


class ModelNotFoundError(ModelError):
    """There is no model of that name, or no file at that path."""


class WeightsError(ModelError):
    """Foreign weights cannot be read, or do not fit the network."""


class DataError(DeepLabError, ValueError):
    """A data set is broken."""


class TrainingError(DeepLabError, RuntimeError):
    """A training cannot go on; the message names the likely cause."""


class ExportError(DeepLabError, RuntimeError):
    """A network cannot be written in a format, or the file does not compute the same."""


class DownloadError(DeepLabError, OSError):
    """An address gave no file, or a file with the wrong hash."""


class OutputError(DeepLabError, OSError):
    """A result cannot be written."""


class MissingExtraError(DeepLabError, ImportError):
    """An optional dependency is not installed.

    >>> raise MissingExtraError("The torch runtime", package="torch", extra="train")
    Traceback (most recent call last):
    deeplab.errors.MissingExtraError: The torch runtime needs 'torch', which is not installed. \
Install it with: pip install 'deeplab[train]'
    """

    def __init__(self, what: str, *, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs '{package}', which is not installed. "
            f"Install it with: pip install 'deeplab[{extra}]'"
        )


def near_matches(name: str, names: Iterable[str]) -> str:
    """Return ``" Did you mean 'a' or 'b'?"``, or an empty string when nothing is near."""
    known = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if not near:
        return ""
    return " Did you mean " + " or ".join(f"'{known[n]}'" for n in near) + "?"
