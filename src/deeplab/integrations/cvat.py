"""CVAT's automatic annotation: a function that its command line and its agents run.

::

    cvat-cli task auto-annotate 137 --function-module deeplab.integrations.cvat -p model=str:voc
    cvat-cli function create-native Pets --function-module deeplab.integrations.cvat \
        -p model=str:pets.tflite
    cvat-cli function run-agent 12 --function-module deeplab.integrations.cvat \
        -p model=str:pets.tflite

Source: docs.cvat.ai, "Auto-annotation API"; cvat-ai/cvat, cvat-sdk/cvat_sdk/auto_annotation.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from deeplab.data.run_lengths import encode_runs
from deeplab.data.writing import Shapes, flat
from deeplab.errors import InputError
from deeplab.photo.outlines import FoundObject, find_objects
from deeplab.photo.polygons import TOLERANCE, make_polygons
from deeplab.photo.results import Segmentation
from deeplab.segmenter import Segmenter

try:
    import cvat_sdk.auto_annotation as cvat
except ImportError as error:
    raise InputError(
        "deeplab.integrations.cvat needs 'cvat-sdk', which is not installed. Install it with: "
        "pip install cvat-sdk cvat-cli"
    ) from error


def create(
    model: str = "voc",
    shapes: str = "masks",
    tolerance: float = TOLERANCE,
    only: str = "",
    min_area: int = 0,
    threads: int | None = None,
) -> DetectionFunction:
    """Return the function; CVAT calls this with what ``-p`` says.

    Args:
        model: a name or a file.
        shapes: "masks" or "polygons".
        tolerance: pixels by which polygons may leave the outline.
        only: names of classes, with commas; all of the model's where it is empty.
        min_area: smaller objects, in pixels, are left out.
        threads: of the network; all cores when left out.

    Raises:
        InputError: there is no such class, or the values make no sense.
        ModelError: there is no such model.
    """
    if shapes not in get_args(Shapes):
        raise InputError(f"shapes: got '{shapes}', expected {' or '.join(get_args(Shapes))}.")
    if tolerance < 0 or min_area < 0:
        raise InputError(
            f"tolerance, min_area: got {tolerance} and {min_area}, expected pixels, 0 or more."
        )
    segmenter = Segmenter(model, threads=threads)
    names = [name.strip() for name in only.split(",") if name.strip()]
    return DetectionFunction(
        segmenter, shapes == "polygons", tolerance=tolerance, only=names, min_area=min_area
    )


class DetectionFunction:
    """What CVAT calls for each photo; each connected region of a class is an object.

    Attributes:
        spec: the classes, without the background.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        as_polygons: bool = False,
        *,
        tolerance: float = TOLERANCE,
        only: list[str] | None = None,
        min_area: int = 0,
    ) -> None:
        self._segmenter, self._as_polygons = segmenter, as_polygons
        self._tolerance, self._min_area = tolerance, min_area
        labels = segmenter.labels
        wanted = labels.indices(only) if only else range(len(labels))
        self._ids = frozenset(index for index in wanted if index != labels.background)
        kind = "polygon" if as_polygons else "mask"
        self.spec = cvat.DetectionFunctionSpec(
            labels=[cvat.label_spec(labels.names[i], i, type=kind) for i in sorted(self._ids)]
        )

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Return CVAT's shapes of one photo.

        Args:
            context: of CVAT. Objects whose mean confidence is below its ``conf_threshold`` are
                left out, and with ``conv_mask_to_poly`` masks are polygons.
            image: the photo, as PIL has it.

        Raises:
            InputError: there is a threshold, and the model does not say how sure it is.
        """
        result = self._segmenter(image)
        as_polygons = self._as_polygons or bool(context.conv_mask_to_poly)
        found = find_objects(
            result.mask,
            labels=result.labels,
            min_area=self._min_area,
            outlines=as_polygons,
            pixels=True,
        )
        shapes = []
        for one in found:
            if one.class_id not in self._ids or not _is_sure(one, result, context.conf_threshold):
                continue
            if as_polygons:
                for polygon in make_polygons(one.rings, tolerance=self._tolerance):
                    shapes.append(cvat.polygon(one.class_id, flat(polygon)))
            else:
                shapes.append(cvat.mask(one.class_id, _encode(one)))
        return shapes


def _is_sure(one: FoundObject, result: Segmentation, least: float | None) -> bool:
    if not least:
        return True
    x, y, width, height = one.box
    inside = result.confidence[y : y + height, x : x + width][one.where]
    return float(np.mean(inside, dtype=np.float64)) >= least


def _encode(one: FoundObject) -> list[int]:
    """Return run lengths of the box, row by row, zeros first; then its corners, both inside."""
    assert one.where is not None
    x, y, width, height = one.box
    return [*encode_runs(one.where.ravel()).tolist(), x, y, x + width - 1, y + height - 1]
