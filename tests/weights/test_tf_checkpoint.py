from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from bundles import mask, write_checkpoint

from deeplab.errors import ModelNotFoundError, WeightsError
from deeplab.weights.crc32c import crc32c, unmask
from deeplab.weights.tf_checkpoint import read_checkpoint, read_variables

FIXTURE = "parity/tf_checkpoint_mnv2_dm05"


@pytest.fixture
def seeded(reference: Path):
    sys.path.insert(0, str(reference / "parity"))
    import seeded_weights

    return seeded_weights


# Source of the digests: RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_gives_the_published_digests(data: bytes, digest: int):
    assert crc32c(data) == digest
    assert unmask(mask(digest)) == digest


def test_crc32c_equals_the_bit_by_bit_definition_at_every_length():
    data = np.random.default_rng(0).bytes(700)
    remainder = 0xFFFFFFFF
    for length, byte in enumerate(data, start=1):
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
        assert crc32c(data[:length]) == remainder ^ 0xFFFFFFFF


def _tensors() -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    rng = np.random.default_rng(1)
    kinds = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}
    tensors = {}
    for number, kind in kinds.items():
        values = rng.integers(0, 2, (3, 2, 5)).astype(kind)
        tensors[f"net/layer_{number}/weights"] = (number, (3, 2, 5), values.tobytes())
    return tensors


@pytest.mark.parametrize("shards", [1, 3])
def test_every_numeric_type_comes_back_exactly(tmp_path: Path, shards: int):
    tensors = _tensors()
    tensors["scalar"] = (9, (), np.int64(-7).tobytes())
    tensors["empty"] = (1, (0, 4), b"")
    got = read_checkpoint(write_checkpoint(tmp_path, tensors, shards=shards))
    assert set(got) == set(tensors)
    assert got["scalar"] == -7
    assert got["scalar"].shape == ()
    assert got["empty"].shape == (0, 4)
    for name, (_, shape, content) in tensors.items():
        assert got[name].shape == shape
        assert got[name].tobytes() == content


def test_bfloat16_becomes_float32(tmp_path: Path):
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    content = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    got = read_checkpoint(write_checkpoint(tmp_path, {"w": (14, (3,), content)}))
    assert got["w"].dtype == np.float32
    np.testing.assert_array_equal(got["w"], values)


def test_strings_are_left_out_and_said(tmp_path: Path):
    tensors = {"w": (1, (1,), np.float32(1).tobytes()), "name": (7, (1,), b"\x03abc")}
    variables, skipped = read_variables(write_checkpoint(tmp_path, tensors))
    assert list(variables) == ["w"]
    assert skipped == ["name (string)"]


@pytest.mark.reference
@pytest.mark.parametrize(
    "suffix",
    ["", "checkpoint", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"],
)
def test_the_original_checkpoint_by_every_name_of_it(reference: Path, seeded, suffix: str):
    folder = reference / FIXTURE
    spec = json.loads((folder / "spec.json").read_text())["variables"]
    got = read_checkpoint(folder / suffix)
    assert {name: list(value.shape) for name, value in got.items()} == {
        name: entry["shape"] for name, entry in spec.items()
    }
    assert got["global_step"] == 12345
    for name in set(got) - {"global_step"}:
        np.testing.assert_array_equal(got[name], seeded.seeded_weight(name, got[name].shape))


@pytest.mark.reference
def test_a_release_archive_is_read_in_place(reference: Path, tmp_path: Path):
    archive = tmp_path / "deeplabv3_mnv2.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(reference / FIXTURE, "deeplabv3_mnv2")
        climbing = tarfile.TarInfo("../../climbing.txt")
        climbing.size = 2
        tar.addfile(climbing, io.BytesIO(b"no"))
    before = sorted(tmp_path.rglob("*"))
    got = read_checkpoint(archive)
    assert len(got) == 273
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent.parent / "climbing.txt").exists()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"cut\.tar\.gz"):
        read_checkpoint(cut)


def test_the_checkpoint_file_decides_among_several(tmp_path: Path):
    for step, value in ((5, 5.0), (40, 40.0), (300, 300.0)):
        content = {"w": (1, (), np.float32(value).tobytes())}
        write_checkpoint(tmp_path, content, name=f"model.ckpt-{step}")
    assert read_checkpoint(tmp_path)["w"] == 300
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-40"\n')
    assert read_checkpoint(tmp_path)["w"] == 40
    assert read_checkpoint(tmp_path / "checkpoint")["w"] == 40
    assert read_checkpoint(tmp_path / "model.ckpt-5")["w"] == 5


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match="no TensorFlow checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"model\.ckpt\.index"):
        read_checkpoint(tmp_path / "model.ckpt")
    path = write_checkpoint(tmp_path, _tensors(), shards=2)
    (tmp_path / "model.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(WeightsError, match=r"data-00001-of-00002 is missing"):
        read_checkpoint(path)


def test_other_kinds_are_refused_in_words(tmp_path: Path):
    path = write_checkpoint(tmp_path, _tensors(), compression=1)
    with pytest.raises(WeightsError, match="compression 1"):
        read_checkpoint(path)
    path = write_checkpoint(tmp_path, _tensors(), endianness=1)
    with pytest.raises(WeightsError, match="big-endian"):
        read_checkpoint(path)
    (tmp_path / "model.ckpt.index").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(WeightsError, match="no TensorFlow V2 checkpoint"):
        read_checkpoint(path)


def test_one_wrong_byte_of_a_tensor_is_noticed(tmp_path: Path):
    path = write_checkpoint(tmp_path, _tensors())
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net/layer_\d+/weights: the checksum is wrong"):
        read_checkpoint(path)


def test_every_cut_of_either_file_is_an_error_in_words(tmp_path: Path):
    path = write_checkpoint(tmp_path, _tensors())
    for file in sorted(tmp_path.iterdir()):
        content = file.read_bytes()
        for length in range(0, len(content), 7):
            file.write_bytes(content[:length])
            with pytest.raises(WeightsError, match=r"cut off|damaged"):
                read_checkpoint(path)
        file.write_bytes(content)
    read_checkpoint(path)


@pytest.mark.reference
def test_damage_of_the_original_index_never_gives_wrong_values(reference: Path, tmp_path: Path):
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        shutil.copy(reference / FIXTURE / name, tmp_path)
    whole = read_checkpoint(tmp_path)
    index = tmp_path / "model.ckpt.index"
    index.chmod(0o644)
    content = index.read_bytes()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(content), 12):
        damaged = bytearray(content)
        damaged[at] ^= int(rng.integers(1, 256))
        index.write_bytes(damaged)
        try:
            got = read_checkpoint(tmp_path)
        except WeightsError:
            continue
        assert got.keys() == whole.keys()  # the byte was padding, or the unused meta index
        assert all((got[name] == whole[name]).all() for name in whole)
