"""A tiny network whose classes overlap, as a file that says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deeplab import LabelSet, Segmenter
from deeplab.export import metadata
from tiny_tflite import tiny_network

NAMES = ("animal", "cat", "dog", "tree")
THRESHOLDS = (0.5, 0.35, 0.7, 0.55)


def write_overlapping(path: Path) -> Path:
    """Write the network, with a threshold of its own for each class."""
    content = tiny_network(frame=33, stride=4)
    path.write_bytes(content)
    known = Segmenter(path, labels=LabelSet(NAMES)).card
    labels = LabelSet(
        NAMES, ((230, 60, 60), (250, 190, 40), (60, 110, 230), (70, 180, 90)), overlap=True
    )
    card = dataclasses.replace(known, labels=labels, thresholds=THRESHOLDS)
    path.write_bytes(metadata.write(content, card))
    return path
