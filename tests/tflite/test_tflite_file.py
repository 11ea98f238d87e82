"""TFLite files are read right, and damage is told in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deeplab.errors import ModelError, ModelNotFoundError
from deeplab.labels import VOC
from deeplab.tflite import edit as tflite_edit
from deeplab.tflite import file as tflite_file
from deeplab.tflite.metadata import read_metadata
from tiny_tflite import tiny_network, with_files


def test_graph_weights_and_options() -> None:
    file = tflite_file.parse(tiny_network(classes=5, argmax=True))
    assert [op.name for op in file.operators] == ["CONV_2D", "RESIZE_BILINEAR", "ARG_MAX"]
    convolution, resize, _ = file.operators
    assert convolution.options["stride_w"] == 4
    assert convolution.options["dilation_w_factor"] == 1
    assert resize.options["align_corners"] is True
    weights = file.tensors[convolution.inputs[1]]
    wanted = np.random.default_rng(0).normal(size=(5, 1, 1, 3)).astype(np.float32)
    assert (weights.values == wanted).all()
    assert file.tensors[file.outputs[0]].type == "INT64"
    assert file.producer(file.outputs[0]).name == "ARG_MAX"
    assert file.consumers(file.inputs[0]) == [convolution]
    with pytest.raises(ModelError, match="is computed, not stored"):
        _ = file.tensors[file.inputs[0]].values


def test_cut_changes_sixteen_bytes_at_most_and_reads_back() -> None:
    data = tiny_network(argmax=True)
    file = tflite_file.parse(data)
    cut = tflite_edit.cut(file, file.operators[0].outputs[0])
    assert len(cut) == len(data)
    assert sum(a != b for a, b in zip(cut, data, strict=True)) <= 8
    again = tflite_file.parse(cut)
    assert [op.name for op in again.operators] == ["CONV_2D"]
    assert again.outputs == file.operators[0].outputs


def test_packed_files() -> None:
    file = tflite_file.parse(with_files(tiny_network(), {"labels.txt": b"a\nb\n"}))
    assert file.associated_files == {"labels.txt": b"a\nb\n"}
    assert tflite_file.parse(tiny_network()).associated_files == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got an empty file"),
        (b"hello, I am text", "got 16 bytes that begin with b'hello"),
        (b"<!DOCTYPE html><html></html>", "got a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(100), "damaged or cut off"),
        (b"\x00\x00\x00\x00TFL3", "damaged or cut off|has no graph"),
    ],
)
def test_not_a_model(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tflite_file.parse(data)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        tflite_file.read(tmp_path / "a.tflite")
    with pytest.raises(ModelError, match="is a folder"):
        tflite_file.read(tmp_path)


def test_every_truncation_is_an_error_or_reads_the_same() -> None:
    data = tiny_network()
    whole = tflite_file.parse(data)
    for length in range(0, len(data), 7):
        try:
            part = tflite_file.parse(data[:length])
        except ModelError:
            continue
        assert [t.buffer for t in part.tensors] == [t.buffer for t in whole.tensors]


@pytest.mark.parametrize("seed", range(200))
def test_damage_never_escapes_as_another_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(tiny_network())
    for place in rng.integers(8, len(data), 6):
        data[place] = rng.integers(256)
    try:
        file = tflite_file.parse(bytes(data))
        read_metadata(file)
    except ModelError:
        pass


@pytest.mark.reference
def test_the_metadata_of_the_public_file(reference: Path) -> None:
    file = tflite_file.read(reference / "models" / "deeplabv3_with_metadata.tflite")
    metadata = read_metadata(file)
    assert metadata is not None
    assert metadata.name == "DeepLabV3"
    assert (metadata.mean, metadata.std) == ((127.5,), (127.5,))
    assert metadata.labels == VOC
    plain = tflite_file.read(reference / "models" / "deeplabv3_257_mv_gpu.tflite")
    assert read_metadata(plain) is None
    stored = [{t.name: t.values for t in f.tensors if t.is_constant} for f in (file, plain)]
    assert all((stored[0][name] == values).all() for name, values in stored[1].items())


@pytest.mark.reference
def test_quantisation_of_the_public_file(reference: Path) -> None:
    file = tflite_file.read(reference / "models" / "deeplabv3_mnv2_dm05_pascal_quant.tflite")
    picture = file.tensors[file.inputs[0]]
    assert picture.quantization is not None
    assert picture.quantization.scale.tolist() == [1 / 128]
    assert picture.quantization.zero_point.tolist() == [128]
    weights = file.tensors[file.operators[0].inputs[1]]
    assert weights.values.dtype == np.uint8
    assert np.abs(weights.dequantize()).max() < 20


@pytest.mark.reference
def test_damaged_metadata(reference: Path) -> None:
    data = (reference / "models" / "deeplabv3_with_metadata.tflite").read_bytes()
    start = data.index(b"M001") - 4
    for place in range(start, start + 200):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            read_metadata(tflite_file.parse(bytes(damaged)))
        except ModelError:
            continue
