"""Server networks at 513×513: the exported files against PyTorch, which they came from.

    python benchmarks/server.py --keep build/server [--threads 2] [--rounds 5] [--compile]
        [--networks v3-resnet50 v3+-xception65] [--ways "OpenVINO int8" …]
    python benchmarks/server.py --keep build/server --data CAMVID --rounds 0

The networks are ``NAME.safetensors`` with ``NAME.json`` in the folder ``--keep``; where there are
none, they get seeded weights, and with ``--data`` a classifier fitted to 40 photos. They are
exported with ``deeplab export``'s own function, int8 with the photos of ``--calibrate``; the files
stay in the folder, are opened as a Segmenter opens them and get the same frames. What they answer
is compared with PyTorch's before anything is timed. PyTorch runs eagerly, in inference mode, and
with --compile also through torch.compile, which compiles for a minute or more first.

Seeded weights tell the time, but nothing of what fewer digits cost. ``--data`` tells that of the
networks with a fitted classifier, which know a little, or of better ones that lie in the folder:
mIoU, and the share of pixels that keep the class that PyTorch gives them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from deeplab import Segmenter
from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.data import FileDataset, open_dataset
from deeplab.evaluation.protocol import FilePredictor, evaluate
from deeplab.export import export
from deeplab.labels import VOC
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.photo.formats import PHOTO_SUFFIXES
from deeplab.photo.images import InputSpec
from deeplab.runtimes import open_network
from deeplab.training.fit import fit_classifier
from deeplab.weights.release import open_release, save

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "astronaut.jpg"
SIDE = 513
FITTED = 40  # photos
NETWORKS = {
    "v3-resnet50": DeepLabConfig(
        version="v3", backbone="resnet_v1_50", output_stride=8, aspp_separable=False
    ),
    "v3+-xception65": DeepLabConfig(version="v3+", backbone="xception_65", output_stride=16),
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A file, and the engine that runs it.

    Attributes:
        to: the format of the file.
        suffix: of its name.
        runtime: what runs it.
        stored: the precision that it is exported with.
        computed: what the engine computes real numbers in.
    """

    to: str
    suffix: str
    runtime: Literal["openvino", "onnx", "litert"]
    stored: Literal["float32", "int8"] = "float32"
    computed: Literal["float32", "bfloat16"] = "float32"


_onnx = functools.partial(Way, to="onnx", suffix=".onnx", runtime="onnx")
_openvino = functools.partial(Way, to="openvino", suffix=".xml", runtime="openvino")
_tflite = functools.partial(Way, to="tflite", suffix=".tflite", runtime="litert")
WAYS = {
    "ONNX Runtime": _onnx(),
    "OpenVINO": _openvino(),
    "LiteRT": _tflite(),
    "OpenVINO bfloat16": _openvino(computed="bfloat16"),
    "ONNX Runtime int8": _onnx(stored="int8"),
    "OpenVINO int8": _openvino(stored="int8"),
    "OpenVINO int8, the rest bfloat16": _openvino(stored="int8", computed="bfloat16"),
}
EAGER = "PyTorch, eager"
_LARGEST = {"float32": 1e-3, "bfloat16": 0.2, "int8": 0.5}
"""How far a logit may move, of the largest: more is a fault, not rounding."""


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


def find_pair(name: str, folder: Path, data: Path | None) -> Path:
    """Return the release pair of that name, without suffix; made where there is none."""
    pair = folder / name
    if pair.with_name(f"{name}.json").exists():
        return pair
    config, labels = NETWORKS[name], VOC
    frame = InputSpec(height=SIDE, width=SIDE)
    if data is None:
        network = seeded(config)
    else:
        dataset = open_dataset(data, split="train")
        labels = dataset.labels
        network = seeded(dataclasses.replace(config, num_classes=len(labels)))
        fit_classifier(network, spread(dataset, FITTED), frame=frame)
    save(pair, network.config, network.state_dict(), labels=labels, input_spec=frame)
    return pair


def spread(dataset: FileDataset, count: int) -> FileDataset:
    """Return so many pairs, evenly spread over a data set."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    parts = {
        field: tuple(getattr(dataset, field)[index] for index in chosen)
        for field in ("ids", "images", "masks")
    }
    return dataclasses.replace(dataset, **parts)


def find_file(pair: Path, way: Way, calibrate: Sequence[Path]) -> Path:
    """Return the exported file of a pair; made where there is none."""
    middle = "" if way.stored == "float32" else f".{way.stored}"
    file = pair.with_name(f"{pair.name}{middle}{way.suffix}")
    if not file.exists():
        # Weights that know little leave pixels undecided, so the certificate may find some that
        # differ; the logits are compared here.
        photos = calibrate if way.stored == "int8" else ()
        export(
            pair,
            way.to,
            file=file,
            precision=way.stored,
            output_stride=NETWORKS[pair.name].output_stride,
            size=(SIDE, SIDE),
            calibrate=photos,
            photos=[PHOTO],
            allow=True,
        )
    return file


def compiled(pair: Path, frame: np.ndarray) -> Callable[[], Any]:
    """Return a call of the network through torch.compile."""
    release = open_release(pair)
    model = build(release.config)
    model.load_state_dict(release.state_dict())
    run = torch.compile(model.eval())
    image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]
    stride = NETWORKS[pair.name].output_stride

    @torch.inference_mode()
    def call() -> np.ndarray:
        return run(image, stride)[0].permute(1, 2, 0).numpy()

    return call


def measure_times(pair: Path, files: dict[str, Path], options: argparse.Namespace) -> None:
    """Print a line for each way: its time, and how far its logits are from PyTorch's."""
    with Image.open(PHOTO) as photo:
        frame = np.asarray(photo.convert("RGB").resize((SIDE, SIDE)))
    threads = options.threads
    eager = Segmenter(
        pair.with_name(f"{pair.name}.json"),
        threads=threads,
        output_stride=NETWORKS[pair.name].output_stride,
        size=(SIDE, SIDE),
    ).network
    wanted = eager(frame)
    runs: dict[str, Callable[[], Any]] = {EAGER: lambda: eager(frame)}
    if options.compile:
        runs["torch.compile"] = compiled(pair, frame)
    for name, file in files.items():
        way = WAYS[name]
        network = open_network(file, runtime=way.runtime, threads=threads, precision=way.computed)
        runs[name] = lambda run=network: run(frame)
    answers = {way: run() for way, run in runs.items()}
    ms = interleave(runs, rounds=options.rounds)
    for name, answer in answers.items():
        difference = np.abs(answer - wanted).max() / np.abs(wanted).max()
        same = (answer.argmax(axis=2) == wanted.argmax(axis=2)).mean()
        way = WAYS.get(name, _openvino())
        limit = max(_LARGEST[way.stored], _LARGEST[way.computed])
        assert difference < limit, f"{pair.name}: {name} differs from torch by {difference:.1e}"
        ratio = ms[EAGER] / ms[name]
        cells = [f"{ms[name]:.0f}", f"{ratio:.2f}×", f"{difference:.0e}", f"{same:.2%}"]
        print(f"| {pair.name} | {name} | {' | '.join(cells)} |", flush=True)


def measure_quality(pair: Path, files: dict[str, Path], options: argparse.Namespace) -> None:
    """Print a line for each way: mIoU on a data set, and how many pixels are PyTorch's."""
    part = spread(open_dataset(options.data, split="val"), options.pictures)
    stride = NETWORKS[pair.name].output_stride
    opened = {EAGER: Segmenter(f"{pair}.json", output_stride=stride, size=(SIDE, SIDE))}
    for name, file in files.items():
        way = WAYS[name]
        opened[name] = Segmenter(file, runtime=way.runtime, precision=way.computed)
    wanted: dict[int, np.ndarray] = {}
    for name, segmenter in opened.items():
        masks: dict[int, np.ndarray] = {}
        found = evaluate(
            FilePredictor(segmenter, name),
            part,
            each=lambda index, _, mask, masks=masks: masks.update({index: mask}),
        )
        wanted = wanted or masks
        same = np.mean([(masks[index] == wanted[index]).mean() for index in masks])
        if name == EAGER:
            best = found.miou
        cells = [f"{100 * found.miou:.2f}", f"{100 * (best - found.miou):+.2f}", f"{same:.2%}"]
        print(f"| {pair.name} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder of the networks and their files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="*", default=["ONNX Runtime", "OpenVINO"], choices=WAYS)
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--calibrate", type=Path, default=PHOTO.parent, help="folder of photos")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data", type=Path, help="a data set with a split 'val'")
    parser.add_argument("--pictures", type=int, default=30)
    options = parser.parse_args()
    photos = sorted(p for p in options.calibrate.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    print(f"{machine()}; {options.threads} threads, median of {options.rounds}\n")
    with tempfile.TemporaryDirectory() as folder:
        kept = options.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        pairs = [find_pair(name, kept, options.data) for name in options.networks]
        files = {
            pair: {way: find_file(pair, WAYS[way], photos) for way in options.ways}
            for pair in pairs
        }
        if options.rounds:
            print("| network | way | ms | faster | largest difference of a logit | same classes |")
            print("|---|---|---|---|---|---|")
            for pair in pairs:
                measure_times(pair, files[pair], options)
        if options.data:
            print("\n| network | way | mIoU | lost | same pixels |\n|---|---|---|---|---|")
            for pair in pairs:
                measure_quality(pair, files[pair], options)


if __name__ == "__main__":
    main()
