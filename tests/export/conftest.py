"""One tiny release pair, written as .tflite once per session: the converter takes a while."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deeplab.export.network import ExportNetwork


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of a tiny pair."""
    pytest.importorskip("torch")
    from pairs import write_pair

    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def two_scales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of a tiny pair that runs each of its layers twice."""
    pytest.importorskip("torch")
    from pairs import CONFIG, write_pair

    config = dataclasses.replace(CONFIG, mirror_scale=0.6)
    return write_pair(tmp_path_factory.mktemp("two_scales"), config)


@pytest.fixture(scope="session")
def _lowered() -> dict[str, bytes]:
    return {}


@pytest.fixture
def convert_once(_lowered: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let equal networks of one size be converted once per session, whatever comes after."""
    pytest.importorskip("litert_torch")
    from deeplab.export import tflite

    lower = tflite.lower

    def remember(network: ExportNetwork, size: tuple[int, int]) -> bytes:
        key = hashlib.sha256(repr((network.config, size, network.output)).encode())
        for value in network.state_dict().values():
            key.update(value.numpy().tobytes())
        name = key.hexdigest()
        if name not in _lowered:
            _lowered[name] = lower(network, size)
        return _lowered[name]

    monkeypatch.setattr(tflite, "lower", remember)
