"""Photos as a network sees them, for finding the ranges of its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deeplab.export.plan import Plan
from deeplab.photo.band_pictures import fill_frame, open_photo
from deeplab.photo.images import Geometry

Float32 = npt.NDArray[np.float32]


def frames(plan: Plan) -> Iterator[Float32]:
    """Yield each calibration photo as (1, H, W, 3) float32 RGB, normalised as at inference.

    Raises:
        ImageError: a photo cannot be read.
    """
    spec = plan.card.spec
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    for path in plan.calibration:
        photo = open_photo(path, spec)
        geometry = Geometry(photo.size, plan.size, spec.fit)
        frame = fill_frame(geometry, photo, spec)
        yield ((frame - mean) / std)[None].astype(np.float32, copy=False)
