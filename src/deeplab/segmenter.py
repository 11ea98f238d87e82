"""Photo in, :class:`~deeplab.results.Segmentation` out, whatever runs the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Literal

from deeplab.errors import DeepLabError
from deeplab.images import Fit, InputSpec, Source
from deeplab.labels import LabelSet
from deeplab.results import Segmentation


class Segmenter:
    """A network, ready for photos.

    Args:
        model: the name of a model (see :mod:`deeplab.zoo`) or the path of a ``.tflite`` file.
        threads: how many threads the network may use; None takes the machine's cores.
        runtime: "litert" or "openvino".
        fit: "letterbox" or "stretch"; None takes what the model asks for.
        labels: a label set, its name ("voc"), or the path of a label file; None takes the model's.
        exact: decode every pixel of a JPEG, also where far fewer are wanted.

    Attributes:
        spec: what the network is fed with.
        labels: its classes.
    """

    spec: InputSpec
    labels: LabelSet

    def __init__(
        self,
        model: str | PathLike[str] = "voc",
        *,
        threads: int | None = None,
        runtime: Literal["litert", "openvino"] = "litert",
        fit: Fit | None = None,
        labels: LabelSet | str | PathLike[str] | None = None,
        exact: bool = False,
    ) -> None:
        raise NotImplementedError

    def __call__(self, photo: Source) -> Segmentation:
        """Segment one photo: a path, bytes, a PIL image or an (H, W, 3) uint8 RGB array."""
        raise NotImplementedError

    def map(
        self,
        photos: Iterable[Source],
        *,
        workers: int | None = None,
        on_error: Literal["raise", "yield"] = "raise",
    ) -> Iterator[Segmentation | DeepLabError]:
        """Segment many photos, in order, over all cores."""
        raise NotImplementedError
