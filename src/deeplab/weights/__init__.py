"""Weights of other origin, turned into a configuration and a state dict of ours.

>>> from deeplab import weights
>>> config, state_dict = weights.load("deeplabv3_mnv2_pascal_trainval.tar.gz")

This room is the only place that knows foreign names. Each origin has its file; ``load`` finds out
by content which one it is. Nothing foreign is executed: no framework but torch is needed, and what
a pickle names is not run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deeplab.errors import MissingExtraError

if TYPE_CHECKING:
    from deeplab.weights.convert import import_file as import_file
    from deeplab.weights.dispatch import load as load
    from deeplab.weights.dispatch import load_with_report as load_with_report
    from deeplab.weights.release import Release as Release
    from deeplab.weights.release import open_release as open_release
    from deeplab.weights.report import ImportReport as ImportReport
    from deeplab.weights.state_dicts import from_state_dict as from_state_dict
    from deeplab.weights.tensorflow import from_tensorflow as from_tensorflow
    from deeplab.weights.tf_checkpoint import read_checkpoint as read_checkpoint

_HOMES = {
    "ImportReport": "deeplab.weights.report",
    "Release": "deeplab.weights.release",
    "from_state_dict": "deeplab.weights.state_dicts",
    "from_tensorflow": "deeplab.weights.tensorflow",
    "import_file": "deeplab.weights.convert",
    "load": "deeplab.weights.dispatch",
    "load_with_report": "deeplab.weights.dispatch",
    "open_release": "deeplab.weights.release",
    "read_checkpoint": "deeplab.weights.tf_checkpoint",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import torch only when weights are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("Reading weights", package="torch", extra="train") from error
