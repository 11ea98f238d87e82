"""Tiny models and a photo for programs of other libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.export import metadata
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import NetworkCard
from tiny_tflite import tiny_network

PHOTO = Path(__file__).parents[2] / "examples/photos/dog.jpg"

LABELS = LabelSet(("ground", "tree", "a sheep", "sky"))


def write_model(path: Path, *, frame: int, **given: object) -> Path:
    """Write a network of four classes with metadata; every logit may be below 0."""
    spec = InputSpec(height=frame, width=frame, fit="stretch")
    card = NetworkCard(spec=spec, labels=LABELS, output="logits", align_corners=True)
    path.write_bytes(metadata.write(tiny_network(frame=frame, **given), card))
    return path


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """Return a folder with ``float``, ``small`` and ``bare`` .tflite, a frame and a photo."""
    folder = tmp_path_factory.mktemp("work")
    write_model(folder / "float.tflite", frame=65)  # which resizes its logits inside
    write_model(folder / "small.tflite", frame=64, resize=False)
    (folder / "bare.tflite").write_bytes(tiny_network(frame=65))
    with Image.open(PHOTO) as photo:
        picture = photo.convert("RGB").resize((320, 180))
    picture.save(folder / "photo.png")
    np.save(folder / "frame.npy", np.asarray(picture))
    return folder
