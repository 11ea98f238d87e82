"""The measured part of a model's card: scores, times, the worst pictures, what it does to photos.

    python benchmarks/card.py voc --data VOC [--rounds 200] [--threads 1 2]

Our file inside the package and the public file of the same family are scored on the same pictures,
by the way of `deeplab evaluate FILE`, each under both geometries; and timed in turn, LiteRT's
invoke alone. docs/models/NAME.json gets the numbers, docs/models/NAME.md the tables made of them,
docs/images/NAME.jpg the example photos. --keep-times keeps those that were measured of the same
graph before, whatever its weights; --tables makes the tables anew and measures nothing.

At the end it prints what the entry in src/deeplab/zoo/entries.py must say.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from deeplab import Segmenter, zoo
from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import list_engines, machine
from deeplab.data import Dataset, open_dataset
from deeplab.evaluation.metrics import ClassTotals, bootstrap_interval, stack
from deeplab.evaluation.protocol import Evaluation, FilePredictor, evaluate
from deeplab.evaluation.report import to_dict
from deeplab.files import hash_file, replacing
from deeplab.runtimes import open_network
from deeplab.zoo.example_photos import list_example_photos

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: benchmarks/card.py -->", "<!-- end of what was measured -->"
PEERS = {
    "voc": "deeplabv3-mobilenetv2-513-int8",
    "voc-fast": "deeplabv3-mobilenetv2-dm05-513-int8",
}
"""The public file of the same family."""

CLASSES = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""A second mean is of these, over the photos of one split: most of the data shows them."""

FITS = ("letterbox", "stretch")
_WORST, _STRIP = 8, 240


def measure(name: str, file: Path, peer: str, dataset: Dataset, subset: Dataset) -> dict[str, Any]:
    """Return everything that the card tells in numbers, but for the times.

    ``subset`` holds those photos of ``dataset`` over which ``CLASSES`` are averaged.
    """
    classes, chosen = dataset.labels.indices(CLASSES), set(subset.ids) & set(dataset.ids)
    files = {name: file, peer: zoo.locate(peer)}
    found: dict[tuple[str, str], Evaluation] = {}
    scores = []
    for model, path in files.items():
        for fit in FITS:
            print(f"evaluating {model}, {fit}", file=sys.stderr)
            segmenter = Segmenter(path, fit=fit)
            found[model, fit] = evaluate(FilePredictor(segmenter, path.name), dataset)
            scores.append(_score(model, path, fit, found[model, fit], classes, chosen))
    ours = found[name, FITS[0]]
    best = max(scores[len(FITS) :], key=lambda one: one["miou"])
    difference = _difference(ours, found[peer, best["fit"]])
    totals = stack([totals for _, totals in ours.pictures.values()])
    return {
        "model": name,
        "file": file.name,
        "sha256": hash_file(file),
        "bytes": file.stat().st_size,
        "peer": peer,
        "subset": {"classes": list(CLASSES), "split": subset.split, "pictures": len(chosen)},
        "split": dataset.split,
        "pictures": len(dataset),
        "shown_in": dict(
            zip(dataset.labels.names, (totals.truth > 0).sum(0).tolist(), strict=True)
        ),
        "scores": scores,
        "difference": {"fit": best["fit"], **difference},
        "worst": [[picture, score] for _, picture, score in ours.worst(_WORST)],
    }


def measure_times(
    name: str, file: Path, peer: str, *, rounds: int, threads: Sequence[int]
) -> dict[str, Any]:
    """Return what the card tells of times, and on what they were measured."""
    files = {name: file, peer: zoo.locate(peer)}
    return {
        "machine": machine(),
        "engine": f"LiteRT {list_engines()['ai-edge-litert']}",
        "rounds": rounds,
        "times_of": hash_file(file),
        "times": [
            {"threads": count, **_time(files, name, peer, rounds=rounds, threads=count)}
            for count in threads
        ],
    }


def keep_times(numbers: Path, file: Path) -> dict[str, Any]:
    """Return the times that ``numbers`` holds of a file of as many bytes: of the same graph."""
    measured: dict[str, Any] = json.loads(numbers.read_text("utf-8"))
    if measured["bytes"] != file.stat().st_size:
        raise SystemExit(f"--keep-times: {numbers} was measured on another graph; measure anew.")
    kept = {key: measured[key] for key in ("machine", "engine", "rounds", "times")}
    return {**kept, "times_of": measured.get("times_of", measured["sha256"])}


def _score(
    model: str,
    path: Path,
    fit: str,
    found: Evaluation,
    classes: Sequence[int],
    chosen: Collection[str],
) -> dict[str, Any]:
    told = to_dict(found)
    subset = stack([totals for picture, totals in found.pictures.values() if picture in chosen])
    together = ClassTotals(
        intersection=subset.intersection.sum(0),
        truth=subset.truth.sum(0),
        prediction=subset.prediction.sum(0),
    )
    return {
        "model": model,
        "fit": fit,
        "bytes": path.stat().st_size,
        "miou": told["miou"],
        "miou_95": told["miou_95"],
        "subset_miou": float(together.mean_iou(classes)),
        "subset_miou_95": list(bootstrap_interval(subset, classes=classes)),
        "objects": told["objects"],
        "pixel_accuracy": told["pixel_accuracy"],
        "iou": told["iou"],
        "protocol": {key: value for key, value in told["protocol"].items() if key != "classes"},
    }


def _difference(ours: Evaluation, theirs: Evaluation) -> dict[str, Any]:
    """Return the difference of the means and its 95 % interval: both draw the same pictures."""
    count = len(ours.pictures)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 1000)
    drawn = []
    for found in (ours, theirs):
        pictures = stack([found.pictures[index][1] for index in sorted(found.pictures)])
        resampled = ClassTotals(
            intersection=draws @ pictures.intersection,
            truth=draws @ pictures.truth,
            prediction=draws @ pictures.prediction,
        )
        drawn.append(resampled.mean_iou())
    means = [found.miou for found in (ours, theirs)]
    low, high = np.nanquantile(drawn[0] - drawn[1], [0.025, 0.975])
    return {"miou": means[0] - means[1], "miou_95": [float(low), float(high)]}


def _time(
    files: dict[str, Path], name: str, peer: str, *, rounds: int, threads: int
) -> dict[str, float]:
    """Return median milliseconds of the network alone, run in turn."""
    print(f"timing, {threads} threads", file=sys.stderr)
    ways: dict[str, Callable[[], Any]] = {}
    for model, path in files.items():
        network = open_network(path, runtime="litert", threads=threads)
        ways[model] = _prepare(network.network.content, threads).invoke
    ways["as published"] = _prepare(files[peer].read_bytes(), threads).invoke
    ms = interleave(ways, rounds=rounds, warmup_rounds=5)
    return {"ms": ms[name], "peer_ms": ms[peer], "as_published_ms": ms["as published"]}


def _prepare(content: bytes, threads: int) -> Interpreter:
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    noise = np.random.default_rng(0).integers(0, 256, entry["shape"])
    if entry["dtype"] == np.float32:
        noise = noise / 127.5 - 1
    interpreter.set_tensor(entry["index"], noise.astype(entry["dtype"]))
    return interpreter


# --- what is written --------------------------------------------------------------------------


def write_tables(measured: dict[str, Any]) -> str:
    """Return the measured part of the card's page; nothing but the numbers given goes in."""
    name, peer, scores = measured["model"], measured["peer"], measured["scores"]
    own = scores[0]
    theirs = max((one for one in scores if one["model"] == peer), key=lambda one: one["miou"])
    difference = measured["difference"]
    low, high = difference["miou_95"]
    subset, shown = measured["subset"], measured["shown_in"]
    count = sum(photos > 0 for photos in shown.values())
    lines = [
        f"`{measured['file']}`: {measured['bytes']:,} bytes, sha256 `{measured['sha256']}`.",
        "",
        f"Mean IoU of {count} classes, {measured['pictures']} photos ({measured['split']}) at "
        "their own size, one look, exact masks, as `deeplab evaluate` counts them; with the 95 % "
        "bootstrap interval over photos. Beside it the mean of "
        f"{len(subset['classes'])} classes ({', '.join(subset['classes'])}) over the "
        f"{subset['pictures']} photos of them that are in {subset['split']}; and how many objects "
        "are in two colours, where two classes cover a tenth or more of an object of one class:",
        "",
        f"| File | Photos | {count} classes | 95 % | {len(subset['classes'])} classes | 95 % | "
        "Pixel accuracy | In two colours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in scores:
        lines.append(
            f"| `{one['model']}` | {one['protocol']['input']} | {_number(one['miou'])} | "
            f"{_span(*one['miou_95'])} | {_number(one['subset_miou'])} | "
            f"{_span(*one['subset_miou_95'])} | {_number(one['pixel_accuracy'])} | "
            f"{one['objects']['two_coloured']} of {one['objects']['count']} |"
        )
    lines += [
        "",
        f"`{name}`, letterboxed, minus `{peer}` under its better geometry ({difference['fit']}): "
        f"{100 * difference['miou']:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f}, "
        f"the same photos drawn for both), {count} classes.",
        "",
        f"| Class | Photos that show it | `{name}` | `{peer}` |",
        "|---|---|---|---|",
    ]
    for label in own["iou"]:
        lines.append(
            f"| {label} | {shown[label]} | {_number(own['iou'][label])} | "
            f"{_number(theirs['iou'][label])} |"
        )
    lines += [
        "",
        "Few photos show each of most classes, so the score of one class is uncertain by several "
        "points, up to ten.",
        "",
        f"Milliseconds of the network alone, {measured['engine']}, median of "
        f"{measured['rounds']} rounds in turn; {measured['machine']}{_whose(measured)}:",
        "",
        f"| Threads | `{name}` | `{peer}` | faster | as published | faster |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured["times"]:
        lines.append(
            f"| {row['threads']} | {row['ms']:.1f} | {row['peer_ms']:.1f} | "
            f"{row['peer_ms'] / row['ms']:.2f}× | {row['as_published_ms']:.1f} | "
            f"{row['as_published_ms'] / row['ms']:.2f}× |"
        )
    worst = ", ".join(f"{picture} ({_number(score)})" for picture, score in measured["worst"])
    lines += ["", f"The worst photos, with their own mean IoU: {worst}."]
    return "\n".join(lines)


def fill(page: str, tables: str) -> str:
    """Return the page with the part between the markers replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def draw_strip(segmenter: Segmenter, photos: Sequence[Path]) -> Image.Image:
    """Draw what it makes of photos, side by side."""
    pictures = []
    for photo in photos:
        picture = segmenter(photo).overlay()
        width = round(picture.width * _STRIP / picture.height)
        pictures.append(picture.convert("RGB").resize((width, _STRIP), Image.Resampling.LANCZOS))
    strip = Image.new("RGB", (sum(picture.width for picture in pictures), _STRIP))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    return strip


def _whose(measured: dict[str, Any]) -> str:
    """Say it where the times are those of an earlier file."""
    if measured["times_of"] == measured["sha256"]:
        return ""
    return f"; measured on an earlier file of the same graph, sha256 `{measured['times_of'][:8]}…`"


def _number(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"


def _span(low: float | None, high: float | None) -> str:
    return f"{_number(low)} to {_number(high)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--data", type=Path, help="folder of PASCAL VOC 2012 or a part of it")
    parser.add_argument("--split", default="val21", help="of all classes (default: val21)")
    parser.add_argument("--subset", default="val", help="of the second mean (default: val)")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer", help="another file to compare with")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help=argparse.SUPPRESS)
    parser.add_argument("--keep-times", action="store_true", help="of the same graph, as measured")
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    options = parser.parse_args()
    name, page = options.name, options.docs / "models" / f"{options.name}.md"
    numbers = page.with_suffix(".json")
    if options.tables:
        measured = json.loads(numbers.read_text("utf-8"))
    elif options.data is None:
        parser.error("--data: name the folder of the data set")
    else:
        file = ROOT / "src" / "deeplab" / "zoo" / "bundled" / f"{name}.tflite"
        peer = options.peer or PEERS[name]
        splits = [open_dataset(options.data, split=one) for one in (options.split, options.subset)]
        if options.keep_times:
            times = keep_times(numbers, file)
        else:
            times = measure_times(name, file, peer, rounds=options.rounds, threads=options.threads)
        measured = {**measure(name, file, peer, *splits), **times}
        with replacing(numbers) as partial:
            partial.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", "utf-8")
        strip = draw_strip(Segmenter(file), list_example_photos())
        strip.save(options.docs / "images" / f"{name}.jpg", quality=85, optimize=True)
    text = fill(page.read_text("utf-8"), write_tables(measured))
    with replacing(page) as partial:
        partial.write_text(text, "utf-8")
    print(f'sha256="{measured["sha256"]}",\nsize={measured["bytes"]},')
    print(f"miou={measured['scores'][0]['miou']:.3f},")


if __name__ == "__main__":
    main()
