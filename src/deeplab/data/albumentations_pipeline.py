"""A pipeline of Albumentations as one of our augmentations (extra ``albumentations``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.data.augment import labels_as_bytes
from deeplab.data.masks import IGNORE
from deeplab.data.sample import Sample
from deeplab.errors import InputError


class AlbumentationsPipeline:
    """``A.Compose([...])`` on a sample, seeded by the sample's generator.

    Masks are resized by the nearest pixel, and what comes from outside the picture is ignored,
    whatever the transforms say (theirs is class 0). ``mask`` dropouts that leave masks alone do so.
    """

    def __init__(self, pipeline: Any) -> None:
        """Take the pipeline as it is; its transforms are set to the above.

        Raises:
            InputError: it is no ``Compose``.
        """
        if not is_pipeline(pipeline):
            raise InputError(
                f"augment.own: got {type(pipeline).__name__}, expected an albumentations.Compose."
            )
        self._pipeline = pipeline
        _settle(pipeline)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Apply it."""
        self._pipeline.set_random_seed(int(generator.integers(2**31)))
        made = self._pipeline(image=sample.image, mask=sample.label)
        return Sample(
            image=np.ascontiguousarray(made["image"]),
            label=labels_as_bytes(made["mask"]),
            id=sample.id,
        )


def is_pipeline(value: Any) -> bool:
    """Return whether something is a Compose, without importing Albumentations."""
    return any(
        kind.__name__ == "BaseCompose" and kind.__module__.startswith("albumentations.")
        for kind in type(value).__mro__
    ) and hasattr(value, "set_random_seed")


def read_pipeline(path: Path) -> AlbumentationsPipeline:
    """Read what ``albumentations.save`` wrote: JSON, or YAML.

    Raises:
        InputError: there is no such file, it holds no pipeline, or Albumentations is missing.
    """
    if not path.is_file():
        raise InputError(f"augment.pipeline: there is no file {path}.")
    # It asks its home for a newer version when imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise InputError(
            "augment.pipeline: needs Albumentations: pip install 'deeplab[albumentations]'."
        ) from error
    kind = "json" if path.suffix == ".json" else "yaml"
    try:
        return AlbumentationsPipeline(albumentations.load(path, data_format=kind))
    except InputError:
        raise
    except Exception as error:  # many kinds, for a file that is none
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"augment.pipeline: {path} holds no pipeline: {words}.") from error


def _settle(transform: Any) -> None:
    for inner in getattr(transform, "transforms", ()):
        _settle(inner)
    if hasattr(transform, "mask_interpolation"):
        transform.mask_interpolation = 0  # cv2.INTER_NEAREST
    if getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = IGNORE
