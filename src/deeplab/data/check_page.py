"""The doctor's page: one HTML file with the numbers, the faults and thumbnails of the suspects."""

from __future__ import annotations

import dataclasses
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab.data.check import Report, Split
from deeplab.data.check_pictures import (
    IGNORED_COLOUR,
    WRONG_COLOUR,
    augment,
    encode,
    small_mask,
    small_photo,
)
from deeplab.data.faults import Fault, Suspect
from deeplab.data.sample import FileDataset
from deeplab.files import replacing

if TYPE_CHECKING:
    from deeplab.data.transforms import TrainTransform

SHOWN_SUSPECTS = 12
"""Suspects with a thumbnail per fault; all of them are listed by name."""

_LISTED_SUSPECTS = 1000
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c62828; --warn: #b26a00;
  --good: #2e7d32; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .2rem .6rem; text-align: right;
  border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
.bar { display: inline-block; height: .7em; background: currentColor; opacity: .45; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid var(--line);
  margin-right: .5em; vertical-align: -.05em; }
.fault { border-left: 5px solid var(--warn); background: var(--soft); padding: .7rem 1rem;
  margin: 1rem 0; } .fault.stops { border-color: var(--bad); }
.fault h3 { margin: 0; font-size: 1rem; } .fault p { margin: .2rem 0 .6rem; }
.badge { font-size: .75rem; color: #fff; background: var(--warn); padding: .1rem .5rem;
  border-radius: 1em; margin-right: .5em; } .stops .badge { background: var(--bad); }
.verdict { font-size: 1.1rem; font-weight: 600; color: var(--good); }
.verdict.bad { color: var(--bad); }
.classes { table-layout: fixed; } .classes td:nth-child(5) { text-align: left; }
.suspects { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; max-width: 370px; }
.pair { display: flex; gap: 4px; } .pair img { height: 135px; max-width: 100%;
  object-fit: contain; image-rendering: pixelated; }
figure.wide { max-width: 760px; } .entry { margin-right: 1rem; white-space: nowrap; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; } summary { cursor: pointer; }
code { font-size: .9em; }
"""


_FAULTS_HEADING = (
    "<h2>Faults</h2><p>Masks are drawn in the colours of their classes; "
    f"<span class='swatch' style='background:rgb{WRONG_COLOUR}'></span>is no class, "
    f"<span class='swatch' style='background:rgb{IGNORED_COLOUR}'></span>is ignored.</p>"
)
_CLASS_WIDTHS = "".join(f"<col style='width:{width}%'>" for width in (20, 6, 9, 21, 26, 18))


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file; it appears under its name when it is complete."""
    dataset = report.splits[0].dataset
    title = f"{dataset.root.name}: data set check"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p><code>{escape(str(dataset.root))}</code>, "
        f"layout “{escape(dataset.layout)}”, {len(dataset.labels)} classes</p>",
        *(f"<p>Assumed: {escape(sentence)}.</p>" for sentence in report.assumed),
        _verdict(report),
        _overview(report),
        *([_FAULTS_HEADING] if report.faults else []),
        *(_fault(fault, _dataset_of(report, fault)) for fault in report.faults),
        _pairs(report),
        *(_classes(split, report) for split in report.splits),
        "</body></html>",
    ]
    with replacing(path) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")


def _dataset_of(report: Report, fault: Fault) -> FileDataset:
    return next(s.dataset for s in report.splits if s.dataset.split == fault.split)


def _verdict(report: Report) -> str:
    if report.stops:
        count = len(report.stops)
        kinds = "1 fault stops" if count == 1 else f"{count} faults stop"
        return f"<p class='verdict bad'>Do not train on this yet: {kinds} it.</p>"
    return "<p class='verdict'>Ready to train on.</p>"


def _overview(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(split.dataset.split)}</td><td>{len(split.dataset)}</td>"
        f"<td>{split.median_size[0]} × {split.median_size[1]}</td>"
        f"<td>{100 * split.counts.ignored_share:.1f} %</td></tr>"
        for split in report.splits
    )
    height, width = report.crop_size
    return (
        "<table><tr><th>split</th><th>pairs</th><th>median height × width</th>"
        f"<th>ignored pixels</th></tr>{rows}</table>"
        f"<p>Suggested crop: <b>{height} × {width}</b>.</p>"
    )


def _pairs(report: Report) -> str:
    """Show pairs of every split, and what augmentation makes of those to learn from."""
    transform, told = None, ""
    try:
        from deeplab.data.transforms import TrainTransform

        height, width = report.crop_size
        channels = report.splits[0].dataset.channels
        transform = TrainTransform(crop_size=report.crop_size)
        if channels:
            transform = dataclasses.replace(transform, mean_pixel=(0.0,) * channels)
        told = (
            f" The right half is what a training with crops of {height} × {width} may see of the "
            "pair: scaled by 0.5 to 2, cropped, mirrored."
        )
    except ImportError:
        told = " Install deeplab[train] to see what augmentation makes of them."
    labels = report.splits[0].dataset.labels
    legend = "".join(
        f"<span class='entry'>{_swatch(colour)}{escape(name)}</span>"
        for name, colour in zip(labels.names, labels.colours, strict=True)
    )
    legend += f"<span class='entry'>{_swatch(IGNORED_COLOUR)}(ignored)</span>"
    parts = [
        f"<section id='pairs'><h2>Pairs</h2><p>Do the colours of each mask name what its photo "
        f"shows?{told}</p><p class='legend'>{legend}</p>"
    ]
    for split in report.splits:
        first = split is report.splits[0]
        figures = (
            _pair(split.dataset, index, transform if first else None) for index in split.examples
        )
        parts.append(
            f"<h3>{escape(split.dataset.split)}</h3><div class='suspects'>{''.join(figures)}</div>"
        )
    return "".join(parts) + "</section>"


def _pair(dataset: FileDataset, index: int, transform: TrainTransform | None) -> str:
    photo = small_photo(dataset.images[index], dataset)
    mask = small_mask(dataset, index)
    pictures = [(photo, False), (mask, True)]
    if transform is not None:
        seen = augment(dataset, index, transform)
        pictures += [(picture, place == 1) for place, picture in enumerate(seen)]
    images = "".join(
        f"<img alt='' src='{encode(picture, lossless=lossless)}'>"
        for picture, lossless in pictures
        if picture is not None
    )
    name = escape(dataset.ids[index])
    return (
        f"<figure class='wide'><div class='pair'>{images}</div>"
        f"<figcaption>{name}</figcaption></figure>"
    )


def _classes(split: Split, report: Report) -> str:
    labels, counts = split.dataset.labels, split.counts
    largest = max(float(counts.shares.max()), 1e-9)
    first = split is report.splits[0]
    rows = []
    for index, name in enumerate(labels.names):
        share = float(counts.shares[index])
        weight = f"{report.class_weights[index]:.3g}" if first else ""
        rows.append(
            f"<tr><td>{_swatch(labels.colours[index])}{escape(name)}</td><td>{index}</td>"
            f"<td>{counts.photos[index]}</td><td>{100 * share:.3g} %</td>"
            f"<td><span class='bar' style='width:{100 * share / largest:.1f}%'></span></td>"
            f"<td>{weight}</td></tr>"
        )
    weight = "suggested weight" if first else ""
    return (
        f"<h2>Classes of {escape(split.dataset.split)}</h2><table class='classes'>{_CLASS_WIDTHS}"
        "<tr><th>class</th><th>id</th><th>photos</th><th>share of labelled pixels</th><th></th>"
        f"<th>{weight}</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _swatch(colour: tuple[int, int, int]) -> str:
    return f"<span class='swatch' style='background:rgb{tuple(colour)}'></span>"


def _fault(fault: Fault, dataset: FileDataset) -> str:
    stops = " stops" if fault.stops else ""
    word = "stops training" if fault.stops else "look at this"
    shown = "".join(_figure(suspect, dataset) for suspect in fault.suspects[:SHOWN_SUSPECTS])
    rest = fault.suspects[SHOWN_SUSPECTS:_LISTED_SUSPECTS]
    listed = "<br>".join(f"{escape(s.what)}: {escape(s.note)}" for s in rest)
    count = len(fault.suspects) - SHOWN_SUSPECTS
    more = f"<details><summary>{count} more</summary>{listed}</details>" if rest else ""
    return (
        f"<section class='fault{stops}'><h3><span class='badge'>{word}</span>"
        f"{escape(fault.split)}: {len(fault.suspects)} × {escape(fault.what)}</h3>"
        f"<p>{_text(fault.cure)}</p><div class='suspects'>{shown}</div>{more}</section>"
    )


def _text(text: str) -> str:
    """Return a text as HTML, what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _figure(suspect: Suspect, dataset: FileDataset) -> str:
    photo, twin, mask = None, None, None
    if suspect.pair >= 0:
        photo = small_photo(dataset.images[suspect.pair], dataset)
        if suspect.twin:
            twin = small_photo(Path(suspect.twin), dataset)
        else:
            mask = small_mask(dataset, suspect.pair)
    images = "".join(
        f"<img alt='' src='{encode(picture, lossless=picture is mask)}'>"
        for picture in (photo, twin, mask)
        if picture is not None
    )
    name = suspect.what.removeprefix(f"{dataset.root}/")
    return (
        f"<figure><div class='pair'>{images}</div>"
        f"<figcaption><b>{escape(name)}</b><br>{_text(suspect.note)}</figcaption></figure>"
    )
