"""Small files that say they are large: refused in words, before anything is taken."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deeplab.errors import WeightsError
from deeplab.labels import LabelSet
from deeplab.models import DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.weights import load, open_release
from deeplab.weights.archive import Archive
from deeplab.weights.release import is_release, save
from deeplab.weights.tf_graph import parse_graph


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 << 20


def _zeros(name: str, size: int) -> bytes:
    """Return a gzip of a tar that holds a file of zeros, written a piece at a time."""
    target = io.BytesIO()
    info = tarfile.TarInfo(name)
    info.size = size
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1) as packed:
        packed.write(info.tobuf())
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    return target.getvalue()


def test_an_archive_of_zeros_is_refused_by_its_headers(tmp_path: Path):
    path = tmp_path / "net.tar.gz"
    path.write_bytes(_zeros("model.ckpt.index", 300 << 20))
    with pytest.raises(WeightsError, match=r"unpack to 314,572,800 or more"):
        load(path)


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path):
    """The names of a tar may be of any length, in a header of their own."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    path = tmp_path / "net.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(4096)))
    with pytest.raises(WeightsError, match="unpack to"):
        load(path)


def test_an_honest_archive_is_read_as_before(tmp_path: Path):
    with tarfile.open(tmp_path / "net.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("folder/a.pb")
        info.size = 50_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    archive = Archive.open(tmp_path / "net.tar.gz")
    assert archive.names == ("folder/a.pb",)
    assert len(archive.read("folder/a.pb")) == 50_000_000


def _field(number: int, value: bytes | int) -> bytes:
    def varint(n: int) -> bytes:
        out = b""
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = _field(1, name.encode()) + _field(2, op.encode())
    parts += b"".join(_field(3, source.encode()) for source in inputs)
    for key, value in attributes.items():
        parts += _field(5, _field(1, key.encode()) + _field(2, value))
    return _field(1, parts)


def _constant(shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(2, _field(1, size)) for size in shape)
    return _field(8, _field(1, 1) + _field(2, dims) + _field(5, np.float32([1]).tobytes()))


def test_a_graph_that_leads_in_a_circle_comes_to_an_end():
    graph = parse_graph(memoryview(
        _node("a", "Identity", "b") + _node("b", "Identity", "a") + _node("c", "Add", "c", "a")
    ))  # fmt: skip
    assert graph.constant("a") is None


def test_a_constant_of_a_few_bytes_does_not_become_a_gigabyte(tmp_path: Path):
    path = tmp_path / "frozen.pb"
    path.write_bytes(_node("logits/semantic/weights", "Const", value=_constant((1 << 28,))))
    with pytest.raises(WeightsError):
        load(path)
    path.write_bytes(_node("logits/semantic/weights", "Const", value=_constant((1 << 40, 1 << 40))))
    with pytest.raises(WeightsError, match="damaged"):
        load(path)


def _pair(folder: Path) -> DeepLabConfig:
    config = DeepLabConfig(depth_multiplier=0.1, head_channels=8, num_classes=2)
    save(folder / "pair", config, build(config).state_dict(),
         labels=LabelSet(("a", "b")), input_spec=InputSpec(height=33, width=33))  # fmt: skip
    return config


def test_the_umask_decides_who_reads_a_pair(tmp_path: Path):
    _pair(tmp_path)
    (tmp_path / "other").touch()
    for name in ("pair.json", "pair.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == stat.S_IMODE(
            (tmp_path / "other").stat().st_mode
        )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("provenance", []), ("provenance", "x"), ("scores", [1, 2]), ("licence", 3),
        ("labels.colours", [[1, 2]] * 2), ("labels.colours", [["v", 1, 1]] * 2),
        ("labels.names", 7), ("input.height", "x"), ("input.fit", []), ("input", None),
        ("weights", []), ("architecture.head_channels", 10**40), ("architecture", [1]),
        ("architecture.num_classes", 10**12), ("format_version", [2]),
    ],
)  # fmt: skip
def test_an_odd_value_in_a_pair_s_json_is_one_line(path: str, value: object, tmp_path: Path):
    _pair(tmp_path)
    json_path = tmp_path / "pair.json"
    content = json.loads(json_path.read_text("utf-8"))
    *outer, last = path.split(".")
    target = content
    for key in outer:
        target = target[key]
    target[last] = value
    json_path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(WeightsError) as caught:
        load(json_path)
    assert "\n" not in str(caught.value)


def test_a_pair_s_json_of_endless_depth_is_one_line(tmp_path: Path):
    _pair(tmp_path)
    (tmp_path / "pair.json").write_text("[" * 100_000 + "]" * 100_000)
    assert not is_release(tmp_path / "pair.json")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        open_release(tmp_path / "pair")


def test_weights_of_another_network_are_refused_in_one_line():
    state = build(DeepLabConfig(depth_multiplier=0.1, head_channels=8)).state_dict()
    with pytest.raises(WeightsError) as caught:
        build(DeepLabConfig(depth_multiplier=0.2, head_channels=8), state)
    assert "\n" not in str(caught.value)
    assert "weights do not fit" in str(caught.value)
