"""A page that shows what a batch of a training looks like, after all that happens to pictures."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from deeplab import weights
from deeplab.data.loader import Batch
from deeplab.data.masks import IGNORE
from deeplab.errors import InputError
from deeplab.files import replacing
from deeplab.labels import LabelSet
from deeplab.models import DeepLabConfig
from deeplab.training.feed import open_feed
from deeplab.training.initialise import choose_config, locate_start
from deeplab.training.processes import Processes
from deeplab.training.settings import Settings

_SIDE = 260  # pixels of a picture on the page
_IGNORED = (224, 224, 192)
_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid var(--line);
  margin-right: .4em; vertical-align: -.05em; }
.batch { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
figure img { display: inline-block; margin-right: 3px; max-width: 48%; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
figure { max-width: 540px; } code { font-size: .9em; }
"""


def write_batch_page(settings: Settings, path: Path, *, steps: int = 2) -> int:
    """Write the first batches of a training as one HTML file; return how many pictures it shows.

    The pictures are those that the training will see: same order, same augmentation.

    Args:
        settings: of the training; the doctor is not asked.
        path: of the page; appears when it is whole.
        steps: how many batches.

    Raises:
        InputError, DataError, WeightsError: settings, data or starting weights do not fit.
        OutputError: the page cannot be written.
    """
    alone = Processes(0, 1, torch.device("cpu"))
    values = settings.to_dict()
    values["data"] |= {"check": False, "memory_gb": 0.0, "workers": 0}
    values["run"] |= {"steps": steps}
    shown = Settings.from_dict(values)
    told: list[str] = []
    feed = open_feed(shown, alone, told.append)
    if feed.measured is not None or feed.labels.overlap:
        raise InputError(
            "data show: draws photos with one class per pixel; `deeplab data check --page` shows "
            "other pictures, and classes that overlap."
        )
    config = _config(settings, len(feed.labels))
    stream = feed.batches(shown, config, alone)(0)
    batches = [next(stream) for _ in range(steps)]
    changed = {
        name: value
        for name, value in settings.to_dict()["augment"].items()
        if value != getattr(type(settings.augment)(), name)
    }
    words = ", ".join(f"{name} {value}" for name, value in changed.items()) or "nothing"
    height, width = settings.data.crop_size
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(settings.name)}: batches</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(settings.name)}: what the network sees</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in told),
        f"<p>Crops of {height} × {width}, scaled by {settings.data.scale_range[0]} to "
        f"{settings.data.scale_range[1]}{', mirrored' if settings.data.flip else ''}; "
        f"<code>[augment]</code>: {escape(words)}.</p>",
        f"<p class='legend'>{_legend(feed.labels)}</p>",
        *(_batch(number, batch, feed.labels) for number, batch in enumerate(batches)),
        "</body></html>",
    ]
    with replacing(path) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")
    return sum(len(batch.ids) for batch in batches)


def _config(settings: Settings, classes: int) -> DeepLabConfig:
    if not settings.init.path:
        return settings.network(classes)
    found, _, _ = weights.load_with_report(
        locate_start(settings.init.path), backbone=settings.model.get("backbone")
    )
    return choose_config(settings.model, found, classes)


def _legend(labels: LabelSet) -> str:
    entries = [*zip(labels.names, labels.colours, strict=True), ("(ignored)", _IGNORED)]
    return "".join(
        f"<span><i class='swatch' style='background:rgb{tuple(colour)}'></i>{escape(name)}</span>"
        for name, colour in entries
    )


def _batch(number: int, batch: Batch, labels: LabelSet) -> str:
    palette = labels.palette.copy()
    palette[IGNORE] = _IGNORED
    figures = []
    for image, label, name in zip(batch.image, batch.label, batch.ids, strict=True):
        mask = palette[label.numpy()]
        ignored = float((label == IGNORE).float().mean())
        note = f"{escape(name)}; {100 * ignored:.0f} % ignored"
        photo = image.permute(1, 2, 0).numpy()
        figures.append(
            f"<figure>{_picture(photo, lossless=False)}{_picture(mask, lossless=True)}"
            f"<figcaption>{note}</figcaption></figure>"
        )
    return f"<h2>Step {number + 1}</h2><div class='batch'>{''.join(figures)}</div>"


def _picture(pixels: npt.NDArray[np.uint8], *, lossless: bool) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    nearest, smooth = Image.Resampling.NEAREST, Image.Resampling.LANCZOS
    scale = _SIDE / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    image = image.resize((size[0], size[1]), nearest if lossless or scale > 1 else smooth)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=85, lossless=lossless)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' src='data:image/webp;base64,{data}'>"
