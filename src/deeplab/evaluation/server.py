"""Predictions in the form that the benchmark servers take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.data.cityscapes import LABEL_IDS
from deeplab.errors import InputError, near_matches
from deeplab.files import replacing
from deeplab.labels import LabelSet
from deeplab.photo.palette_png import encode_palette_png

ServerFormat = Literal["voc", "cityscapes"]

_VOC_FOLDER = Path("results/VOC2012/Segmentation/comp6_test_cls")


class ServerWriter:
    """Writes one PNG per picture.

    ``voc``: palette PNGs of class ids in the folders that the VOC server unpacks.
    ``cityscapes``: greyscale PNGs of label ids (not train ids), all in one folder.

    Raises:
        InputError: an unknown format, or classes that are not those of the benchmark.
    """

    def __init__(self, folder: Path, kind: str, labels: LabelSet) -> None:
        kinds = get_args(ServerFormat)
        if kind not in kinds:
            raise InputError(
                f"server format: got '{kind}', expected one of {', '.join(kinds)}."
                f"{near_matches(kind, kinds)}"
            )
        expected = 21 if kind == "voc" else 19
        if len(labels) != expected:
            raise InputError(
                f"server format: '{kind}' has {expected} classes, the data set {len(labels)}."
            )
        self.kind, self.palette = kind, labels.palette
        self.folder = folder / _VOC_FOLDER if kind == "voc" else folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, index: int, name: str, mask: npt.NDArray[np.uint8]) -> None:
        """Write one mask: (H, W) uint8 class ids of the picture ``name``."""
        stem = Path(name).name
        if self.kind == "cityscapes":
            stem = f"{stem.removesuffix('_leftImg8bit')}_pred"
        with replacing(self.folder / f"{stem}.png") as partial:
            if self.kind == "voc":
                partial.write_bytes(encode_palette_png(mask, self.palette))
            else:
                table = np.zeros(256, np.uint8)
                table[: len(LABEL_IDS)] = LABEL_IDS
                Image.fromarray(table[mask]).save(partial, format="PNG")
