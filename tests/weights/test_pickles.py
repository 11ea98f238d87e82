"""Pickles give their tensors, and nothing that they name is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from deeplab.errors import ModelNotFoundError, WeightsError
from deeplab.weights.checkpoints import flatten
from deeplab.weights.pickles import StandIn, StoredTensor, read_array
from deeplab.weights.torch_file import read_torch


class Trainer:
    """A class that nobody but its trainer has."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.started = datetime.date(2024, 2, 3)


class Evil:
    """Unpickling it would run code."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def dump(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": dump,
}


@pytest.fixture(params=WRITERS)
def write(request) -> Callable[[Any, Path], None]:
    return WRITERS[request.param]


def read(path: Path) -> dict[str, torch.Tensor]:
    tensors = flatten(read_torch(path)).tensors
    return {k: v.read() if isinstance(v, StoredTensor) else v for k, v in tensors.items()}


def test_tensors_are_read_beside_whatever_a_trainer_keeps(write, tmp_path: Path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network[1].register_buffer("scratch", torch.ones(2), persistent=False)
    base = torch.randn(6, 8)
    tensors = {
        **network.state_dict(), "view": base.t()[2:5], "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(), "none": torch.empty(0, 3), "flag": torch.tensor(True),
        "parameter": torch.nn.Parameter(torch.randn(2)), "complex": torch.randn(2) * 1j,
    }  # fmt: skip
    content = {
        "model": tensors, "args": argparse.Namespace(lr=0.1, folder=PurePosixPath("runs")),
        "best": np.float64(0.7), "confusion": np.arange(6).reshape(2, 3),
        "when": datetime.datetime(2024, 1, 2),
        "seen": {1, 2}, "defaults": collections.defaultdict(dict, a={}), "raw": b"\x00\xff",
        "trainer": Trainer(network), "device": torch.device("cpu"), "type": torch.float16,
    }  # fmt: skip
    write(content, tmp_path / "checkpoint.pth")
    found = read(tmp_path / "checkpoint.pth")
    for name, value in tensors.items():
        got = found[f"model.{name}"]
        assert got.dtype == value.dtype
        assert torch.equal(got, value.detach()), name
    for name, value in network.state_dict().items():
        assert torch.equal(found[f"trainer.model.{name}"], value)
    assert "trainer.model.1.scratch" not in found
    assert torch.equal(found["confusion"], torch.arange(6).reshape(2, 3))
    assert found["best"].item() == 0.7
    named = read_torch(tmp_path / "checkpoint.pth").names
    assert {"argparse.Namespace", f"{__name__}.Trainer"} <= set(named)
    assert not any(name.startswith(("torch.", "numpy.", "collections.")) for name in named)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", ">f4", "f2", "i2", "b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_whatever_their_type_and_order(dtype: str, order: Any, tmp_path: Path):
    array = np.asarray(np.random.default_rng(1).integers(0, 2, (3, 4)), dtype, order=order)
    for protocol in range(2, 6):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array}, protocol=protocol))
        got = read_array(read_torch(tmp_path / "a.pkl").value["a"])
        if dtype == "b1":
            assert got is None or got.dtype == torch.bool
        else:
            assert got is not None
            np.testing.assert_array_equal(got.numpy(), array)


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch evil"), (eval, "open('evil', 'w')"), (exec, "open('evil', 'w')"),
        (open, "evil", "w"), (Path.touch, Path("evil")), (getattr, Path(), "touch"),
        (__import__, "antigravity"), (torch.load, "x"), (torch.hub.load, "a", "b"),
        (np.load, "evil"), (np.fromfile, "evil"), (os.mkdir, "evil"),
    ],
)  # fmt: skip
def test_nothing_that_a_pickle_names_is_run_and_all_of_it_is_said(
    call: tuple[Any, ...], write, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write({"state_dict": {"a": torch.ones(1)}, "args": Evil(*call)}, tmp_path / "evil.pth")
    before = sorted(tmp_path.iterdir())
    content = read_torch(tmp_path / "evil.pth")
    assert isinstance(content.value["args"], StandIn)
    assert torch.equal(read(tmp_path / "evil.pth")["state_dict.a"], torch.ones(1))
    assert any(call[0].__name__ in name or "getattr" in name for name in content.names)
    assert sorted(tmp_path.iterdir()) == before


def test_a_scripted_network_gives_its_state_dict(tmp_path: Path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    state = network.state_dict()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(network), tmp_path / "scripted.pt")
    found = read(tmp_path / "scripted.pt")
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert read_torch(tmp_path / "scripted.pt").names == ()


def test_what_the_file_cannot_hold_is_refused(tmp_path: Path):
    """Compressed zeros, a value that stands for gigabytes, a storage that is not there."""
    torch.save({"a": torch.zeros(4_000_000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        if name.endswith("/data/0"):
            members[name] = content * 20
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=r"unpack to 3\d\d,\d{3},\d{3} or more"):
        read_torch(tmp_path / "bomb.pth")

    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 10)}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="in 4 bytes"):
        read(tmp_path / "wide.pth")
    torch.save({"a": torch.zeros(1).expand(64)}, tmp_path / "small.pth")
    assert read(tmp_path / "small.pth")["a"].shape == (64,)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_file_is_one_line(kind: str, tmp_path: Path):
    content = {
        "model": {"a": torch.randn(30, 3)},
        "args": argparse.Namespace(lr=1),
        "n": np.ones(3),
    }
    WRITERS[kind](content, tmp_path / "good.pth")
    data = (tmp_path / "good.pth").read_bytes()
    chance = random.Random(kind)
    for _ in range(150):
        changed = bytearray(data)
        if chance.random() < 0.3:
            del changed[chance.randrange(len(data)) :]
        for _ in range(chance.randrange(4)):
            if changed:
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        (tmp_path / "bad.pth").write_bytes(changed)
        words = ""
        try:
            flatten(read_torch(tmp_path / "bad.pth"))
        except WeightsError as error:
            words = str(error)
        assert not words or words.startswith(f"{tmp_path / 'bad.pth'}: ")
        assert "\n" not in words
        assert "weights_only" not in words


def test_loops_and_endless_repetition_come_to_an_end(tmp_path: Path):
    loop: dict[str, Any] = {"a": torch.ones(1)}
    loop["self"] = loop
    again: list[Any] = []
    for _ in range(100):
        again = [again, again, again]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    dump({"loop": loop, "again": again}, tmp_path / "loop.pth")
    assert list(read(tmp_path / "loop.pth")) == ["loop.a"]
    data = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    (tmp_path / "deep.pth").write_bytes(data)
    assert read(tmp_path / "deep.pth") == {}


def test_other_archives_are_named(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(WeightsError, match="network of Keras"):
        read_torch(tmp_path / "net.keras")
    np.savez(tmp_path / "weights.npz", a=np.ones(3))
    with pytest.raises(WeightsError, match="numpy arrays"):
        read_torch(tmp_path / "weights.npz")
    with pytest.raises(ModelNotFoundError):
        read_torch(tmp_path / "nothing.pth")


def test_a_number_far_beyond_its_objects_takes_no_memory(tmp_path: Path):
    """The table of CPython's unpickler is as long as the largest number: here 32 GiB."""
    (tmp_path / "memo.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(WeightsError, match="kept as 2147483647"):
        read_torch(tmp_path / "memo.pkl")
