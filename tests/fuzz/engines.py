"""Changed files of the engines whose formats only they can read: run, or refused in words."""

from __future__ import annotations

import random as rng
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from deeplab import Segmenter
from deeplab.errors import DeepLabError

sys.path.append(str(Path(__file__).parents[1] / "runtimes"))
from tiny_onnx import make_card, write_network

_PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@cache
def _originals() -> dict[str, dict[str, bytes]]:
    """Return kind -> the files of one network, by their endings."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        onnx = write_network(Path(folder) / "net.onnx", card=make_card(), sides=(9, 13))
        openvino.save_model(openvino.Core().read_model(onnx), Path(folder) / "net.xml")
        pair = {suffix: (Path(folder) / f"net{suffix}").read_bytes() for suffix in (".xml", ".bin")}
        return {"onnx": {".onnx": onnx.read_bytes()}, "openvino": pair}


def run_one(random: rng.Random, folder: Path) -> str:
    """Open a changed file as a user would, which tries it in a process of its own first."""
    kind = random.choice(("onnx",) * 5 + ("openvino",) * 4 + ("executorch",))
    if kind == "executorch":
        files = {".pte": b"\x00\x00\x00\x00ET12" + random.randbytes(random.choice((0, 90, 2000)))}
    else:
        files = _originals()[kind]
    changed = random.choice(list(files))
    for suffix, data in files.items():
        content = bytearray(data)
        if suffix == changed:
            for _ in range(random.choice((1, 1, 3))):
                content[random.randrange(len(content))] = random.choice((0, 48, 57, 255))
            if random.random() < 0.1:
                del content[random.randrange(len(content)) :]
        (folder / f"net{suffix}").write_bytes(content)
    path = folder / f"net{next(iter(files))}"
    try:
        result = Segmenter(path, labels=folder_labels(folder))(_PHOTO)
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    assert result.mask.max() < 3
    return "run"


def folder_labels(folder: Path) -> Path:
    """Write a label file of three names."""
    path = folder / "labels.txt"
    path.write_text("ground\ncat\ndog\n")
    return path
