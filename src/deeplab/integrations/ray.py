"""Segmentation in Ray Data: :class:`SegmentPhotos` for ``map_batches``.

    photos = ray.data.from_items([{"path": path} for path in paths])
    masks = photos.map_batches(SegmentPhotos, compute=ray.data.ActorPoolStrategy(size=8))

Each actor opens the model once. Needs the extra ``cluster``.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import ImageError, InputError
from deeplab.photo.draw import keep_only
from deeplab.photo.images import Photo
from deeplab.segmenter import Segmenter

PHOTO_COLUMNS = ("image", "bytes", "path", "item")
"""Where photos are looked for: as ``read_images``, ``read_binary_files``, or people call them."""

Column = npt.NDArray[Any]


class SegmentPhotos:
    """What segments a batch of photos; for ``Dataset.map_batches``, which makes one per actor.

    A batch keeps its columns, and gets two more:

    - ``mask``: (H, W) uint8 class ids of each photo; (0, 0) of one that cannot be read.
    - ``error``: why it cannot be read; empty where all is well.

    Photos come in the first of these columns that is there: ``image``, (H, W, 3) uint8 RGB, as
    ``ray.data.read_images(…, mode="RGB")`` gives them; ``bytes``, whole files, as
    ``read_binary_files`` gives them; ``path`` or ``item``, paths and addresses. Only files are
    turned upright by EXIF: ``read_images`` has thrown that away.

    Args:
        model: what :class:`deeplab.Segmenter` takes.
        column: where the photos are; None looks for them.
        only: the classes to keep; what is not named becomes background. None keeps all.
        threads: for one photo; None takes the CPUs that Ray gave to the actor.
        device: None takes a graphics processor where Ray gave one to the actor, else the CPU.
        **told: what else :class:`deeplab.Segmenter` takes.

    Raises:
        DeepLabError: see :class:`deeplab.Segmenter`.
        InputError: a batch has none of the columns.
    """

    def __init__(
        self,
        model: str | PathLike[str] = "voc",
        *,
        column: str | None = None,
        only: Sequence[str] | None = None,
        threads: int | None = None,
        device: str | None = None,
        **told: Any,
    ) -> None:
        self._column, self._only = column, only
        cpus, gpus = _resources()
        if device is None and gpus:
            device = "auto"
        self.segmenter = Segmenter(
            model, threads=threads or max(1, int(cpus)), device=device, **told
        )

    def __call__(self, batch: dict[str, Column]) -> dict[str, Column]:
        """Segment a batch, in Ray's "numpy" format."""
        name = self._column or next((name for name in PHOTO_COLUMNS if name in batch), None)
        if name is None or name not in batch:
            wanted = f"'{self._column}'" if self._column else ", ".join(PHOTO_COLUMNS)
            raise InputError(
                f"batch: has the columns {', '.join(batch)}, expected one of photos: {wanted}."
            )
        photos = batch[name]
        masks = np.empty(len(photos), object)
        errors = np.full(len(photos), "", object)
        for index, photo in enumerate(photos):
            try:
                masks[index] = self._segment(photo)
            except ImageError as error:
                masks[index] = np.empty((0, 0), np.uint8)
                errors[index] = str(error)
        return {**batch, "mask": masks, "error": errors}

    def _segment(self, photo: Any) -> npt.NDArray[np.uint8]:
        result = self.segmenter(Photo(photo if not isinstance(photo, np.str_) else str(photo)))
        if not self._only:
            return result.mask
        return keep_only(result.mask, self._only, labels=result.labels)[0]


def _resources() -> tuple[float, float]:
    """Return the CPUs and GPUs that Ray gave to this actor; one and none outside of Ray."""
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return 1, 0
    given = ray.get_runtime_context().get_assigned_resources()
    return given.get("CPU", 1), given.get("GPU", 0)
