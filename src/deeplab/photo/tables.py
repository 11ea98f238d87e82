"""A segmentation in the shapes that other packages know; each is imported when it is asked for."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError, MissingExtraError
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]


def list_planes(mask: UInt8, labels: LabelSet) -> list[dict[str, Any]]:
    """Return what a transformers pipeline for "image-segmentation" gives: a plane per class."""
    return [
        {
            "score": None,
            "label": labels.name_of(index),
            "mask": Image.fromarray(np.where(mask == index, 255, 0).astype(np.uint8)),
        }
        for index in sorted(_count(mask))
    ]


def _count(mask: UInt8) -> dict[int, int]:
    """Return the pixels of every id that is present, the largest first."""
    counts = Image.fromarray(mask).histogram()  # in place, where numpy would widen the mask
    present = [index for index in range(256) if counts[index]]
    return {index: counts[index] for index in sorted(present, key=lambda i: (-counts[i], i))}


def make_frame(mask: UInt8, labels: LabelSet, photo: str) -> Any:
    """Return a pandas ``DataFrame``: a row per class that is present.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("to_pandas", package="pandas", extra="friends") from error
    counts = _count(mask)
    return pandas.DataFrame(
        {
            "photo": [photo] * len(counts),
            "id": list(counts),
            "class": [labels.name_of(index) for index in counts],
            "pixels": list(counts.values()),
            "share": [pixels / mask.size for pixels in counts.values()],
        }
    )


def make_detections(mask: UInt8, labels: LabelSet) -> Any:
    """Return ``supervision.Detections``: one mask per class that is present; neither
    background nor unknown.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingExtraError("to_supervision", package="supervision", extra="friends") from error
    left_out = (labels.background, labels.unknown)
    ids = np.array([i for i in sorted(_count(mask)) if i not in left_out], np.int64)
    if not len(ids):
        return supervision.Detections.empty()
    planes = mask == ids.astype(np.uint8)[:, None, None]
    boxes = []
    for plane in planes:
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1], rows[-1]))
    return supervision.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=planes,
        class_id=ids,
        data={"class_name": np.array([labels.names[i] for i in ids])},
    )


def make_fiftyone(mask: UInt8) -> Any:
    """Return a ``fiftyone.Segmentation`` of class ids; the names go to ``mask_targets``.

    Raises:
        InputError: fiftyone is not installed. It brings a database, so that no extra names it.
    """
    try:
        import fiftyone
    except ImportError as error:
        raise InputError(
            "to_fiftyone needs 'fiftyone', which is not installed. Install it with: "
            "pip install fiftyone"
        ) from error
    return fiftyone.Segmentation(mask=mask)


def draw_page(png: bytes, mask: UInt8, labels: LabelSet) -> str:
    """Return HTML with the overlay and a table of the classes' shares."""
    rows = []
    for index, pixels in _count(mask).items():
        colour = "#{:02x}{:02x}{:02x}".format(*labels.colour_of(index))
        rows.append(
            f'<tr><td style="background:{colour};width:1em"></td>'
            f'<td style="text-align:left">{escape(labels.name_of(index))}</td>'
            f"<td>{100 * pixels / mask.size:.1f} %</td></tr>"
        )
    picture = base64.b64encode(png).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{picture}" style="max-width:100%" alt="overlay">'
        f"<table><tr><th></th><th>class</th><th>share</th></tr>{''.join(rows)}</table>"
    )
