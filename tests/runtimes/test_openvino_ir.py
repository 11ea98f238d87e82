"""OpenVINO's own pair of files opens alone, and says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnx")

from tiny_onnx import LABELS, SPEC, expected, make_card, write_network  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import (  # noqa: E402
    InputError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
)
from deeplab.runtimes import open_network  # noqa: E402
from deeplab.runtimes.network_card import KEY, NetworkCard  # noqa: E402


def write(folder: Path, card: NetworkCard | None) -> Path:
    model = openvino.convert_model(write_network(folder / "m.onnx"))
    if card is not None:
        model.set_rt_info(card.to_json(), [KEY])
    openvino.save_model(model, folder / "m.xml", compress_to_fp16=False)
    return folder / "m.xml"


def test_the_pair_alone_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path, make_card())
    network = open_network(path, threads=1)
    assert (network.spec, network.labels, network.align_corners) == (SPEC, LABELS, True)
    for shape in ((9, 13, 3), (17, 5, 3)):
        frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_allclose(network(frame), expected(frame), rtol=0, atol=1e-5)
    assert Segmenter(path).labels == LABELS


def test_without_a_card_the_frame_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, None)
    with pytest.raises(InputError, match=r"size: m\.xml takes pictures of any size"):
        Segmenter(path, labels=LABELS)
    assert Segmenter(path, labels=LABELS, size=(9, 13)).spec.height == 9


def test_half_a_pair(tmp_path: Path) -> None:
    path = write(tmp_path, make_card())
    whole = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelNotFoundError, match=r"a pair, m\.xml and m\.bin; keep both"):
        open_network(path, threads=1)
    path.with_suffix(".bin").write_bytes(whole[:3])
    with pytest.raises(ModelError, match=r"m\.xml: OpenVINO cannot run this file; it is damaged"):
        open_network(path, threads=1)


def test_openvino_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, make_card())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab\[openvino\]'"):
        open_network(path, threads=1)


def test_networks_of_one_thread_share_the_cores(tmp_path: Path) -> None:
    """Bound to cores, as OpenVINO does by itself, all of them would run on the first one."""
    path = write(tmp_path, make_card())
    network = open_network(path, threads=1)
    compiled = network.request.get_compiled_model()  # type: ignore[attr-defined]
    assert not compiled.get_property("ENABLE_CPU_PINNING")
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
