"""ONNX files, ours and other people's, in ONNX Runtime and in OpenVINO; the rest is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tiny_onnx import (
    LABELS,
    SPEC,
    expected,
    make_card,
    write_classifier,
    write_network,
)

from deeplab import Segmenter
from deeplab.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
)
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Variant, onnx, open_network

try:
    import openvino  # noqa: F401

    ENGINES = ["onnx", "openvino"]
except ImportError:
    ENGINES = ["onnx"]

HALVES = ((127.5,) * 3, (127.5,) * 3)


def frame_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_alone_is_enough(engine: str, tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    network = open_network(path, runtime=engine, threads=1)
    assert (network.spec, network.labels) == (SPEC, LABELS)
    assert (network.num_classes, network.output, network.align_corners) == (3, "logits", True)
    for height, width in ((9, 13), (17, 5)):
        frame = frame_of(height, width)
        np.testing.assert_allclose(network(frame), expected(frame), rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_keeps_nothing_from_the_last_frame(engine: str, tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    network = open_network(path, runtime=engine, threads=1)
    first = network(frame_of(9, 13, 1))
    kept = first.copy()
    network(frame_of(9, 13, 2))
    assert (first == kept).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_another_frame_where_the_file_takes_any(engine: str, tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    network = open_network(path, runtime=engine, threads=1, variant=Variant(size=(25, 33)))
    assert network.spec == replace(SPEC, height=25, width=33)
    photo = frame_of(40, 50)
    assert Segmenter(path, runtime=engine, size=(25, 33))(photo).logits.shape == (7, 9, 3)


def test_one_frame_only(tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", sides=(9, 13), card=make_card(any_size=False))
    network = open_network(path, threads=1)
    with pytest.raises(InputError, match=r"frame: got 13×9 pixels, but m\.onnx takes 9×13 only"):
        network(frame_of(13, 9))
    with pytest.raises(InputError, match=r"size: got 25×33, but m\.onnx takes 9×13 only"):
        open_network(path, threads=1, variant=Variant(size=(25, 33)))
    with pytest.raises(InputError, match="was written for its own"):
        open_network(path, threads=1, variant=Variant(output_stride=8))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("input_type", ["uint8", "float32"])
def test_other_peoples_files(
    engine: str, channels_last: bool, input_type: str, tmp_path: Path
) -> None:
    path = write_network(
        tmp_path / "m.onnx", channels_last=channels_last, input_type=input_type, sides=(9, 13)
    )
    normalisation = None if input_type == "uint8" else HALVES
    network = open_network(path, runtime=engine, threads=1, normalisation=normalisation)
    assert network.labels is None
    assert network.num_classes == 3
    assert network.align_corners  # its steps are four pixels
    frame = frame_of(9, 13)
    np.testing.assert_allclose(network(frame), expected(frame), rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_label_map(engine: str, tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", label_map=True, sides=(9, 13))
    network = open_network(path, runtime=engine, threads=1)
    assert (network.output, network.num_classes) == ("label map", None)
    frame = frame_of(9, 13)
    answer = network(frame)
    assert answer.dtype == np.uint8
    assert (answer == expected(frame).argmax(2)).all()


def test_labels_are_asked_for(tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", sides=(9, 13))
    with pytest.raises(ModelError, match="does not say what its 3 classes are called"):
        Segmenter(path)
    assert Segmenter(path, labels=LABELS)(frame_of(20, 30)).mask.shape == (20, 30)


def test_what_a_file_does_not_say_must_be_given(tmp_path: Path) -> None:
    bare = write_network(tmp_path / "bare.onnx", input_type="float32", sides=(9, 13))
    with pytest.raises(InputError, match=r"normalisation: bare\.onnx takes normalised numbers and"):
        open_network(bare, threads=1)
    assumed = open_network(bare, threads=1, assume=replace(SPEC, fit="letterbox"))
    assert assumed.spec == replace(SPEC, fit="letterbox")
    free = write_network(tmp_path / "free.onnx")
    with pytest.raises(InputError, match=r"size: free\.onnx takes pictures of any size and does"):
        open_network(free, threads=1)
    opened = open_network(free, threads=1, variant=Variant(size=(9, 13)))
    assert (opened.spec.height, opened.spec.width) == (9, 13)
    half = write_network(tmp_path / "half.onnx", sides=(9, "width"))
    assumed = open_network(half, threads=1, assume=InputSpec(height=99, width=21))
    assert (assumed.spec.height, assumed.spec.width) == (9, 21)


def test_the_normalisation_inside_stays(tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    with pytest.raises(InputError, match=r"normalisation: m\.onnx has its own inside"):
        open_network(path, threads=1, normalisation=HALVES)


@pytest.mark.parametrize("engine", ENGINES)
def test_damage(engine: str, tmp_path: Path) -> None:
    whole = write_network(tmp_path / "m.onnx", card=make_card()).read_bytes()
    for content in (whole[:200], b"hello" * 99, b""):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx: (.* it is damaged|is not a DeepLab)"):
            open_network(path, runtime=engine, threads=1)
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        open_network(tmp_path / "missing.onnx", runtime=engine, threads=1)
    torn = write_network(tmp_path / "torn.onnx", card=make_card().to_json()[:60])
    with pytest.raises(ModelError, match=r"torn\.onnx: what it says of itself is damaged"):
        open_network(torn, runtime=engine, threads=1)
    other = make_card(labels=LabelSet(("a", "b")))
    changed = write_network(tmp_path / "changed.onnx", card=other)
    with pytest.raises(ModelError, match="names 2 classes, but tells 3 apart"):
        open_network(changed, runtime=engine, threads=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_networks_are_refused(engine: str, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"its output is float32 \[1, 3\], expected logits"):
        open_network(path, runtime=engine, threads=1, normalisation=HALVES)
    many = write_network(tmp_path / "many.onnx", classes=300, sides=(9, 13))
    with pytest.raises(ModelError, match="expected logits of up to 256 classes"):
        open_network(many, runtime=engine, threads=1)


def test_the_engines_that_read_it(tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    with pytest.raises(
        InputError, match=r"'litert' cannot run m\.onnx; what can: onnx or openvino"
    ):
        open_network(path, runtime="litert", threads=1)
    half = path.with_suffix(".bin")
    half.write_bytes(b"")
    path.with_suffix(".xml").write_text("")
    with pytest.raises(ModelError, match=r"second half of an OpenVINO network; open m\.xml"):
        open_network(half, threads=1)


def test_onnxruntime_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_network(tmp_path / "m.onnx", card=make_card())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab\[onnx\]'"):
        onnx.open(path, threads=1)


def test_words_that_are_no_text_are_damage(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.onnx", card=make_card(), sides=(9, 13))
    data = path.read_bytes()
    assert b"ground" in data
    path.write_bytes(data.replace(b"ground", b"gr\xff\xffnd"))
    with pytest.raises(ModelError, match=r"net\.onnx: .*damaged"):
        open_network(path, threads=1)
