"""Semantic segmentation with every DeepLab: a photo in, an exact full-size mask out.

>>> import deeplab
>>> segmenter = deeplab.Segmenter("voc")
>>> result = segmenter("photo.jpg")
>>> result.overlay().save("overlay.png")

The names below are imported when first used, so ``import deeplab`` costs next to nothing and
never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplab.errors import DeepLabError as DeepLabError
    from deeplab.evaluation.scores import Scores as Scores
    from deeplab.evaluation.scores import evaluate as evaluate
    from deeplab.labels import LabelSet as LabelSet
    from deeplab.photo.results import Segmentation as Segmentation
    from deeplab.photo.upsample import argmax_bilinear as argmax_bilinear
    from deeplab.segmenter import Segmenter as Segmenter
    from deeplab.training.run import Run as Run
    from deeplab.training.run import train as train

__version__ = "0.1.0"

_HOMES = {
    "DeepLabError": "deeplab.errors",
    "LabelSet": "deeplab.labels",
    "Run": "deeplab.training.run",
    "Scores": "deeplab.evaluation.scores",
    "Segmentation": "deeplab.photo.results",
    "Segmenter": "deeplab.segmenter",
    "argmax_bilinear": "deeplab.photo.upsample",
    "evaluate": "deeplab.evaluation.scores",
    "train": "deeplab.training.run",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deeplab' has no attribute '{name}'")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from deeplab.errors import MissingExtraError

        raise MissingExtraError(f"deeplab.{name}", package="torch", extra="train") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
