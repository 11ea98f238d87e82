"""Server networks at 513×513: the exported files against PyTorch, which they came from.

    python benchmarks/server.py [--threads 2] [--rounds 5] [--engines openvino onnx litert]
                                [--networks v3-resnet50 v3+-xception65] [--compile] [--bfloat16]

The networks are built with seeded weights, written as a release pair and exported with
``deeplab export``'s own function; every file is opened as a Segmenter opens it, and gets the same
frames. What they answer is compared with PyTorch's before anything is timed. PyTorch runs eagerly,
in inference mode, and with --compile also through torch.compile, which compiles for a minute or
more first. --bfloat16 adds OpenVINO in half the digits; random weights tell nothing of what that
costs in quality, only how far the logits move.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.export import export
from deeplab.labels import VOC
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.runtimes import open_network
from deeplab.weights.release import save

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "astronaut.jpg"
SIDE = 513
NETWORKS = {
    "v3-resnet50": DeepLabConfig(
        version="v3", backbone="resnet_v1_50", output_stride=8, aspp_separable=False
    ),
    "v3+-xception65": DeepLabConfig(version="v3+", backbone="xception_65", output_stride=16),
}
FORMATS = {"openvino": "openvino", "onnx": "onnx", "litert": "tflite"}
SUFFIXES = {"openvino": ".xml", "onnx": ".onnx", "litert": ".tflite"}


def seeded(config: DeepLabConfig) -> DeepLab:
    """Return a network with random weights and the batch norm averages that belong to them."""
    torch.manual_seed(0)
    model = build(config).train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average
    with torch.inference_mode():
        model(torch.randint(0, 256, (2, 3, 129, 129), dtype=torch.uint8))
    return model.eval()


def compiled(model: DeepLab, frame: np.ndarray) -> Callable[[], Any]:
    run = torch.compile(model)
    image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]

    @torch.inference_mode()
    def call() -> np.ndarray:
        return run(image)[0].permute(1, 2, 0).numpy()

    return call


def measure(name: str, config: DeepLabConfig, options: argparse.Namespace, folder: Path) -> None:
    model = seeded(config)
    pair = folder / name
    save(
        pair, config, model.state_dict(), labels=VOC, input_spec=InputSpec(height=SIDE, width=SIDE)
    )
    with Image.open(PHOTO) as photo:
        frame = np.asarray(photo.convert("RGB").resize((SIDE, SIDE)))
    eager = open_network(pair.with_suffix(".json"), runtime="torch", threads=options.threads)
    wanted = eager(frame)
    runs: dict[str, Callable[[], Any]] = {"torch, eager": lambda: eager(frame)}
    if options.compile:
        runs["torch.compile"] = compiled(model, frame)
    for engine in options.engines:
        file = folder / f"{name}{SUFFIXES[engine]}"
        # Random weights leave pixels undecided, so the certificate may find some that differ; the
        # logits are compared here.
        export(pair, FORMATS[engine], file=file, photos=[PHOTO], allow=True)
        network = open_network(file, runtime=engine, threads=options.threads)
        runs[engine] = lambda run=network: run(frame)
        if options.bfloat16 and engine == "openvino":
            half = open_network(file, runtime=engine, threads=options.threads, precision="bfloat16")
            runs["openvino, bfloat16"] = lambda run=half: run(frame)
    answers = {way: run() for way, run in runs.items()}
    ms = interleave(runs, rounds=options.rounds)
    for way, answer in answers.items():
        difference = np.abs(answer - wanted).max() / np.abs(wanted).max()
        same = (answer.argmax(axis=2) == wanted.argmax(axis=2)).mean()
        limit = 0.2 if "bfloat16" in way else 1e-3
        assert difference < limit, f"{name}: {way} differs from torch by {difference:.1e}"
        ratio = ms["torch, eager"] / ms[way]
        cells = [name, way, f"{ms[way]:.0f}", f"{ratio:.2f}×", f"{difference:.0e}", f"{same:.3%}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="*", default=["openvino"], choices=[*FORMATS])
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    print(f"{machine()}; {options.threads} threads, median of {options.rounds}\n")
    print("| network | way | ms | faster | largest difference of a logit | same classes |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            measure(name, NETWORKS[name], options, Path(folder))


if __name__ == "__main__":
    main()
