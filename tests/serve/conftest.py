"""A server with a tiny network, and photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import NAMES, Server, draw_photo, encode, serving

from deeplab import LabelSet, Segmenter
from tiny_tflite import tiny_network


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4))
    return path


@pytest.fixture(scope="session")
def labels(model: Path) -> Path:
    path = model.with_name("labels.txt")
    path.write_text("\n".join(NAMES))
    return path


@pytest.fixture(scope="session")
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model, labels=LabelSet(NAMES), threads=1)


@pytest.fixture(scope="session")
def photo() -> bytes:
    return encode(draw_photo(90, 140))


@pytest.fixture(scope="module")
def server(model: Path, labels: Path) -> Iterator[Server]:
    limits = ("--max-megabytes", 1, "--max-megapixels", 0.5, "--transfer-timeout", 1.5)
    with serving("-m", model, "--labels", labels, *limits) as running:
        yield running
