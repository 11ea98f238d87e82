"""Release pairs and checkpoints with something wrong in them: read, or refused in one line.

``mutate`` changes the bytes of a file, ``run_one`` reads the result in every way the package has.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from deeplab.errors import DeepLabError
from deeplab.info import describe
from deeplab.labels import LabelSet
from deeplab.models import DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.segmenter import Segmenter
from deeplab.weights import huggingface, import_file, load_with_report, open_release
from deeplab.weights.release import labels_of
from deeplab.weights.release import save as save_release
from deeplab.weights.state_dicts import _foreign_name

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 10**9, 10**40, -(10**20), 1.5, float("nan"), float("inf"), "", "x",
    "a" * 300, "\x1b[31m", "[/]", [], {}, [[]], [None], [1, 2, 3], [[0, 0, 300]], {"a": 1}, "v3+",
    ["same"] * 21, [1e308] * 3, [0, 0, 0], "\ud800",
)  # fmt: skip


def seeds(folder: Path) -> list[Path]:
    """Write small files of every kind into a folder; of a pair the JSON is named."""
    config = DeepLabConfig(
        version="v3+", depth_multiplier=0.1, head_channels=8, decoder_channels=8, num_classes=3,
    )  # fmt: skip
    state = build(config).state_dict()
    labels = LabelSet(("background", "cat", "dog"))
    save_release(folder / "pair", config, state, labels=labels,
                 input_spec=InputSpec(height=33, width=33))  # fmt: skip
    content = {
        "model": _foreign(), "epoch": np.int64(3), "args": argparse.Namespace(lr=0.1),
        "confusion": np.eye(3), "meta": {"cfg": "model = dict()", "CLASSES": ["a", "b"]},
    }  # fmt: skip
    torch.save(content, folder / "zip.pth")
    torch.save(content, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps({"model": {"a": torch.ones(3)}}))
    (folder / "bare.safetensors").write_bytes(save(state))
    return [folder / name for name in ("pair.json", "zip.pth", "legacy.pth", "plain.pkl",
                                       "bare.safetensors")]  # fmt: skip


def _foreign() -> dict[str, torch.Tensor]:
    """Return the weights of a small network under the names of transformers."""
    config = DeepLabConfig(depth_multiplier=0.25, head_channels=8, num_classes=3)
    table = {ours: (conv, norm) for ours, conv, norm in huggingface._layers()}
    state = build(config).state_dict()
    return {_foreign_name(key, table, None): value for key, value in state.items()}


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes with something wrong: in a JSON its values, else anything anywhere."""
    if data[:1] == b"{" and chance.random() < 0.8:
        content = json.loads(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            _change_value(chance, content)
        if chance.random() < 0.02:
            return b'{"architecture": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        return json.dumps(content).encode("utf-8", "surrogatepass")
    changed = bytearray(data)
    kind = chance.random()
    if kind < 0.15:
        del changed[chance.randrange(len(data)) :]
    elif kind < 0.25:
        at = chance.randrange(len(data))
        changed[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    # The beginnings and the ends of files say where the rest is.
    places = (len(data), min(len(data), 3000), min(len(data), 200))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if changed:
            at = chance.randrange(min(chance.choice(places), len(changed)))
            at = len(changed) - 1 - at if chance.random() < 0.3 else at
            changed[at] = chance.choice((chance.randrange(256), 0, 255, changed[at] ^ 1))
    return bytes(changed)


def _change_value(chance: random.Random, content: Any) -> None:
    """Change, remove or add one value, at a random depth."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(content[key], dict | list) and content[key] and chance.random() < 0.7:
            content = content[key]
            continue
        kind = chance.random()
        if kind < 0.2:
            del content[key]
        elif kind < 0.3 and isinstance(content, dict):
            content[chance.choice(("extra", "\x1b[0m", ""))] = copy.deepcopy(chance.choice(ODD))
        else:
            content[key] = copy.deepcopy(chance.choice(ODD))
        return


def run_one(path: Path) -> str:
    """Read a file in every way; return what was said, "" where it was read.

    Raises:
        Exception: something that is no error of ours, or one of several lines.
    """
    said = ""
    _agree(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (_read, _import, _describe):
            try:
                read(path)
            except DeepLabError as error:
                said = str(error)
                words = said.removesuffix("\n")
                assert "\n" not in words, f"several lines: {words}"
                assert "weights_only" not in words, f"another's advice: {words}"
                assert len(words) < 2000, f"endless: {words}"
    return said


def _read(path: Path) -> None:
    config, state, report = load_with_report(path)
    str(report)
    labels_of(path, config)
    if not report.missing and config.num_classes < 1000 and config.head_channels < 1000:
        build(config, state)


def _import(path: Path) -> None:
    output = path.parent / "imported"
    import_file(path, output)
    release = open_release(output)
    assert len(release.labels) == release.config.num_classes


def _describe(path: Path) -> None:
    if path.suffix == ".json":
        described = describe(path)
        json.dumps(dict(described.scores), default=str)
        Segmenter(path)


def _agree(path: Path) -> None:
    """Write the digest of the weights into the JSON beside them, so that more than it is read."""
    if path.suffix != ".json":
        return
    try:
        content = json.loads(path.read_bytes())
        weights = path.with_suffix(".safetensors").read_bytes()
        content["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
        path.write_text(json.dumps(content), "utf-8")
    except (ValueError, KeyError, TypeError, RecursionError):
        return


def fuzz(folder: Path, *, count: int, seed: int = 0) -> dict[str, int]:
    """Read ``count`` changed files; return how many were read and how many refused.

    Raises:
        AssertionError: names the file that led to something else, which is kept in ``folder``.
    """
    files = seeds(folder)
    chance = random.Random(seed)
    counts = {"read": 0, "refused": 0}
    for number in range(count):
        source = chance.choice(files)
        target = folder / f"case_{source.stem}{source.suffix}"
        target.write_bytes(mutate(chance, source.read_bytes()))
        if source.suffix == ".json":
            weights = (folder / "pair.safetensors").read_bytes()
            changed = mutate(chance, weights) if chance.random() < 0.2 else weights
            target.with_suffix(".safetensors").write_bytes(changed)
        try:
            counts["refused" if run_one(target) else "read"] += 1
        except Exception as error:
            kept = folder / f"found{number}{source.suffix}"
            target.rename(kept)
            raise AssertionError(f"{kept}: {type(error).__name__}: {error}") from error
    return counts
