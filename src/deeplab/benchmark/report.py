"""A benchmark told: Markdown, JSON and CSV, all from the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deeplab.benchmark.contenders import count_threads
from deeplab.benchmark.machine import list_engines, name_device, name_system
from deeplab.benchmark.measure import Benchmark, Measurement
from deeplab.benchmark.pareto import draw_pareto
from deeplab.benchmark.timings import Timings
from deeplab.errors import OutputError
from deeplab.files import replacing

Row = dict[str, Any]
FILES = ("benchmark.md", "benchmark.json", "benchmark.csv", "pareto.svg")

_WHO = ("model", "output_stride", "size", "runtime", "precision", "device", "threads")
"""What tells contenders apart."""

_MIB = 1 << 20


def to_rows(benchmark: Benchmark) -> list[Row]:
    """Return one row per contender; milliseconds are medians where nothing else is said.

    ``speed`` is that of the network, relative to the first row. ``memory_mib`` is what opening and
    running the model added to its process, at most.
    """
    rows = []
    for one in benchmark.measurements:
        who, network = one.contender, one.network
        quality = one.quality or {}
        low, high = quality.get("subset", quality).get("miou_95", (None, None))
        rows.append(
            {
                "model": who.name,
                "runtime": who.runtime,
                "device": who.device,
                "threads": who.threads,
                "precision": who.stored if who.precision == "float32" else who.precision,
                "size": f"{one.size[0]}×{one.size[1]}",
                "output_stride": who.frame_stride,
                "file_bytes": who.file_bytes,
                "runs": network.count,
                "init_ms": one.init_ms,
                "first_ms": one.first_ms,
                "decode_ms": Timings(one.runs["decode"]).median,
                "network_ms": network.median,
                "mask_ms": Timings(one.runs["mask"]).median,
                "total_ms": one.total.median,
                "network_min_ms": network.min,
                "network_p5_ms": network.percentile(0.05),
                "network_p95_ms": network.percentile(0.95),
                "network_max_ms": network.max,
                "network_avg_ms": network.avg,
                "network_std_ms": network.std,
                "speed": benchmark.measurements[0].network.median / network.median,
                "memory_mib": _memory(one),
                "miou": one.score,
                "miou_low": low,
                "miou_high": high,
                "pixel_accuracy": quality.get("pixel_accuracy"),
            }
        )
    return rows


def to_csv(benchmark: Benchmark) -> str:
    """Return the rows as CSV; what is not known stays empty."""
    text = io.StringIO()
    rows = to_rows(benchmark)
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_dict(benchmark: Benchmark) -> dict[str, Any]:
    """Return everything as JSON knows it: the rows, the time of every single run, the machine."""
    return {
        "machine": {
            "device": name_device(),
            "gpu": _gpu(benchmark),
            "system": name_system(),
            "engines": list_engines(),
        },
        "settings": asdict(benchmark.settings),
        "photos": [photo.name for photo in benchmark.photos],
        "rows": [
            {
                **row,
                "fit": one.fit,
                "warmup_ms": one.warmup,
                "runs_ms": one.runs,
                "memory_bytes": one.memory,
                "quality": one.quality,
                "operators": asdict(one.profile) if one.profile else None,
            }
            for row, one in zip(to_rows(benchmark), benchmark.measurements, strict=True)
        ],
        "failures": benchmark.failures,
        "notes": benchmark.notes,
    }


def to_markdown(benchmark: Benchmark, *, picture: str | None = None) -> str:
    """Return the page: the table, the summary, and how it was measured.

    Args:
        benchmark: of one contender or more.
        picture: the file of the Pareto picture, beside the page.
    """
    parts = [
        "# Benchmark",
        f"{name_device()}; {name_system()}.",
        to_table(benchmark),
        "## Summary",
        to_summary(benchmark),
    ]
    if picture:
        parts.append(f"![Quality against latency]({picture})")
    return "\n\n".join([*parts, "## How it was measured", _method(benchmark)]) + "\n"


def to_table(benchmark: Benchmark) -> str:
    """Return the Markdown table; what is the same in all rows is said once, above it."""
    rows = to_rows(benchmark)
    different = _differing(rows)
    same = [name for name in _WHO if name not in different]
    head = ", ".join(words for name in same if (words := _say(name, rows[0][name])))
    measured = any(row["miou"] is not None for row in rows)
    columns = {
        **{_TITLES.get(name, name): [_plain(row[name]) for row in rows] for name in different},
        "file": [f"{row['file_bytes'] / 1e6:.1f} MB" for row in rows],
        "init ms": [_ms(row["init_ms"]) for row in rows],
        "first ms": [_ms(row["first_ms"]) for row in rows],
        "decode ms": [_ms(row["decode_ms"]) for row in rows],
        "network ms": [_ms(row["network_ms"]) for row in rows],
        "p5 to p95": [_span(row) for row in rows],
        "mask ms": [_ms(row["mask_ms"]) for row in rows],
        "photo to mask ms": [_ms(row["total_ms"]) for row in rows],
        "runs": [str(row["runs"]) for row in rows],
        "memory MiB": [_plain(row["memory_mib"], ".0f") for row in rows],
    }
    if len(rows) > 1:
        columns["speed"] = [f"{row['speed']:.2f}×" for row in rows]
    if measured:
        columns[_score_title(benchmark)] = [_score(row) for row in rows]
    if len(rows) > 1 and head:
        head = f"In all rows: {head}."
    return "\n\n".join(filter(None, [head, _markdown(columns)]))


def to_summary(benchmark: Benchmark) -> str:
    """Return the table that model pages print: model, size, device, GPU, CPU.

    Source: the overview of image segmentation of TensorFlow Lite.
    """
    rows = to_rows(benchmark)
    by = [name for name in _WHO if name not in ("device", "threads")]
    titles = name_rows(rows, by=by, always=("model",))
    groups: dict[tuple[str, str], list[Row]] = {}
    for title, row in zip(titles, rows, strict=True):
        groups.setdefault((title, f"{row['file_bytes'] / 1e6:.1f} MB"), []).append(row)
    columns: dict[str, list[str]] = {name: [] for name in ("model", "size", "device", "GPU", "CPU")}
    gpu = _gpu(benchmark)
    for (title, size), group in groups.items():
        on_cpu = [row for row in group if row["device"] == "cpu"]
        on_gpu = [row for row in group if row["device"] != "cpu"]
        device = "; ".join([name_device()] * bool(on_cpu) + [gpu or "GPU"] * bool(on_gpu))
        times = ", ".join(
            f"{_ms(row['network_ms'])} ms ({count_threads(row['threads'])})" for row in on_cpu
        )
        fast = ", ".join(f"{_ms(row['network_ms'])} ms" for row in on_gpu)
        values = (title, size, device, fast or "–", times or "–")
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return _markdown(columns)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Find out before the run whether its files can be written.

    Raises:
        OutputError: one is there already and ``overwrite`` is false, or the folder cannot be made.
    """
    there = [folder / name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(
            f"output: {there[0]} exists already. Add --overwrite to replace it, or choose another "
            "folder with -o."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: cannot make the folder {folder}: {error.strerror}.") from error


def write_report(folder: Path, benchmark: Benchmark) -> list[Path]:
    """Write Markdown, JSON and CSV, and the picture where quality is known; return their paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = to_rows(benchmark)
    drawn = draw_pareto(rows, name_rows(rows), _score_title(benchmark), name_device())
    page, told, table, picture = FILES
    texts = {
        page: to_markdown(benchmark, picture=picture if drawn else None),
        told: json.dumps(to_dict(benchmark), indent=1, ensure_ascii=False) + "\n",
        table: to_csv(benchmark),
        **({picture: drawn} if drawn else {}),
    }
    for name, text in texts.items():
        with replacing(folder / name) as partial:
            partial.write_text(text, "utf-8")
    if not drawn:  # what an earlier run drew would be taken for this one's
        (folder / picture).unlink(missing_ok=True)
    return [folder / name for name in texts]


# --- words --------------------------------------------------------------------------------------

_TITLES = {"size": "frame", "output_stride": "output stride"}


def name_rows(
    rows: Sequence[Row], *, by: Sequence[str] = _WHO, always: Sequence[str] = ()
) -> list[str]:
    """Return the shortest words that tell rows apart.

    Args:
        rows: of the report.
        by: in what they may differ, what matters most first.
        always: what is said even where it is the same in all.
    """
    needed: list[str] = list(always)
    for name in by:
        groups: dict[tuple[Any, ...], set[Any]] = {}
        for row in rows:
            groups.setdefault(tuple(row[one] for one in needed), set()).add(row[name])
        if any(len(values) > 1 for values in groups.values()):
            needed.append(name)
    needed = needed or ["model"]
    return [", ".join(filter(None, (_say(name, row[name]) for name in needed))) for row in rows]


def _differing(rows: Sequence[Row]) -> list[str]:
    return [name for name in _WHO if name == "model" or len({row[name] for row in rows}) > 1]


def _say(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "threads":
        return count_threads(value)
    return f"output stride {value}" if name == "output_stride" else str(value)


def _plain(value: Any, form: str = "") -> str:
    return "" if value is None else format(value, form)


def _ms(value: float) -> str:
    """Return milliseconds with three digits that say something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _score_title(benchmark: Benchmark) -> str:
    subsets = [one.quality["subset"] for one in benchmark.measurements if one.quality
               and "subset" in one.quality]  # fmt: skip
    return f"mIoU of {len(subsets[0]['classes'])} classes" if subsets else "mIoU"


def _span(row: Row) -> str:
    return f"{_ms(row['network_p5_ms'])} to {_ms(row['network_p95_ms'])}"


def _score(row: Row) -> str:
    if row["miou"] is None:
        return "n/a"
    if row["miou_low"] is None:
        return f"{row['miou']:.4f}"
    return f"{row['miou']:.4f} ({row['miou_low']:.3f} to {row['miou_high']:.3f})"


def _memory(one: Measurement) -> float | None:
    return None if one.memory is None else (one.memory["peak"] - one.memory["before"]) / _MIB


def _gpu(benchmark: Benchmark) -> str | None:
    return next((one.gpu for one in benchmark.measurements if one.gpu), None)


_WORDS = ("model", "runtime", "device", "precision")
"""Columns of words; all others are of numbers and stand to the right."""


def _markdown(columns: Mapping[str, Sequence[str]]) -> str:
    """Return a table whose source can be read too."""
    padded, rules = [], []
    for name, cells in columns.items():
        width = max(map(len, [name, *cells]))
        words = name in _WORDS
        padded.append([f"{cell:{'<' if words else '>'}{width}}" for cell in [name, *cells]])
        rules.append("-" * (width + 2) if words else "-" * (width + 1) + ":")
    head, *lines = (f"| {' | '.join(cells)} |" for cells in zip(*padded, strict=True))
    return "\n".join([head, f"|{'|'.join(rules)}|", *lines])


def _method(benchmark: Benchmark) -> str:
    settings = benchmark.settings
    names = ", ".join(photo.name for photo in benchmark.photos[:8])
    more = len(benchmark.photos) - 8
    engines = ", ".join(f"{name} {version}" for name, version in list_engines().items())
    lines = [
        "Every contender has a process of its own. They take turns, one photo each per round, in "
        f"the order of the table; the photos follow one another: {names}"
        f"{f' and {more} more' if more > 0 else ''}.",
        "*decode*: reading, decoding, resizing; *network*: normalising, the network, its logits; "
        "*mask*: the logits to a mask of the photo's size. Times are medians. *first* is the very "
        "first run of the network, *init* opening the file. *memory* is what opening and running "
        "added to the process, at most; *speed* is that of the network, relative to the first row.",
        f"Runs per contender: for warm-up at least {settings.warmup_runs} and "
        f"{settings.warmup_min_secs:g} s, then at least {settings.num_runs} and "
        f"{settings.min_secs:g} s.",
        f"Engines: {engines}.",
    ]
    protocols = {
        json.dumps({key: one.quality["protocol"][key] for key in ("split", "pictures")})
        for one in benchmark.measurements
        if one.quality
    }
    for protocol in map(json.loads, sorted(protocols)):
        lines.append(
            f"Quality: {protocol['pictures']} pictures of the split '{protocol['split']}', each "
            "row by its own way from photo to mask, the truth at the photo's own size; in brackets "
            "the 95 % interval over pictures."
        )
    lines += [f"Left out: {words}" for words in benchmark.failures]
    lines += [f"Note: {words}." for words in benchmark.notes]
    return "\n\n".join(lines)
