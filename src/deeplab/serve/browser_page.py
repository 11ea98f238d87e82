"""The page that runs networks in a browser: where it is, which models it lists, how it is served.

``web/`` holds its sources, ``make web`` builds it into this package. The page asks nothing of its
host but files: its own, ``models.json`` next to them, and the models which that lists. So a folder
that :func:`write_page` has written can stand anywhere on any host.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from deeplab import zoo
from deeplab.errors import DeepLabError, InputError, ModelError, OutputError
from deeplab.files import hash_file
from deeplab.labels import LABEL_SETS, LabelSet
from deeplab.runtimes import describe
from deeplab.runtimes.network_card import refuse_bands

BUILT = Path(__file__).parents[1] / "web"

CATALOGUE = "models.json"
"""The list of models, next to the page."""

_LIVE = "voc-fast"
"""Which of the models that come inside the package the page takes for moving pictures."""

HEADERS = {
    # Together these two isolate the page from other origins, which is what lets it use threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    "style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; "
    "worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer of the page's host should carry. A host that cannot send them works too: the
page then adds the first three itself, by its service worker."""

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".txt": "text/plain; charset=utf-8",
    ".tflite": "application/octet-stream",
}
"""Endings of the page's files and their types; operating systems do not agree on them."""


@dataclass(frozen=True, kw_only=True)
class PageModel:
    """One model that the page offers.

    Attributes:
        path: a ``.tflite`` file.
        title: what people read in the list.
        labels: its classes, where the file itself does not say; None takes the zoo's.
        graphics: the same network with 16-bit weights, which the page loads where a graphics
            processor runs it; None where there is none.
    """

    path: Path
    title: str
    labels: LabelSet | None = None
    graphics: Path | None = None

    @property
    def address(self) -> str:
        """Where the page looks for the file, relative to itself."""
        return f"models/{self.path.name}"

    @property
    def files(self) -> dict[str, Path]:
        """Address → file of all that the page may load of this model."""
        files = {self.address: self.path}
        if self.graphics is not None:
            files[f"models/{self.graphics.name}"] = self.graphics
        return files


def find_page() -> Path:
    """Return the folder of the built page.

    Raises:
        OutputError: it is not built.
    """
    if not (BUILT / "index.html").is_file():
        raise OutputError(
            "page: the browser page is not built in this copy of deeplab. Build it from a clone "
            "with: make web"
        )
    return BUILT


def offer(models: Sequence[PageModel]) -> list[PageModel]:
    """Return what a page offers that is to show these models.

    One that comes inside the package brings its file for graphics processors, and the others from
    inside the package: of two networks the page takes the faster for moving pictures.
    """
    for model in models:
        _refuse_others(model.path)
    offered = [_with_graphics(model) for model in models]
    if not any((entry := zoo.find_by_file(model.path)) and entry.comes_inside for model in models):
        return offered
    names = {model.path.name for model in models}
    for entry in zoo.MODELS:
        path = zoo.find(entry) if entry.comes_inside and entry.file_name not in names else None
        if path is not None:
            offered.append(_with_graphics(PageModel(path=path, title=entry.name)))
    return offered


def _refuse_others(path: Path) -> None:
    """Refuse a network for other pictures than photos, which browsers do not read."""
    try:
        card = describe(path).card
    except DeepLabError:  # that is said where the file is opened
        return
    refuse_bands(card, f"page: {path.name}")


def has_one_size(path: Path) -> bool:
    """Return whether a ``.tflite`` takes pictures of one size, as LiteRT.js runs them.

    Raises:
        ModelError: it is no segmentation network.
    """
    try:
        return not describe(path).card.any_size
    except InputError:  # of any size, and it does not say of which
        return False


def _with_graphics(model: PageModel) -> PageModel:
    entry = zoo.find_by_file(model.path)
    return replace(model, graphics=zoo.find_float16(entry)) if entry else model


def describe_models(models: Sequence[PageModel]) -> dict[str, Any]:
    """Return what ``models.json`` says: the models, the first of them the default.

    It also tells the page what this package knows of other files that people may drop on it: the
    public ones by their hash, and the colours of known label sets.

    Raises:
        ModelError: a file is no segmentation network, or not one that browsers run.
        InputError: two files have the same name.
    """
    names = [Path(address).name for model in models for address in model.files]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"models: two files have the name {doubled[0]}; rename one of them.")
    return {
        "models": [_describe(model) for model in models],
        "label_sets": [labels.to_dict() for labels in LABEL_SETS.values()],
        "known_files": {
            entry.sha256: {**_hints(entry, None), "card": _card(entry)}
            for entry in zoo.MODELS
            if entry.input
        },
    }


def write_page(folder: str | PathLike[str], models: Sequence[PageModel]) -> None:
    """Write the page, its runtime and the models into a new folder, for any host.

    Raises:
        OutputError: the page is not built, the folder exists and is not empty, or it cannot be
            written.
        ModelError, InputError: as :func:`describe_models`.
    """
    folder = Path(folder)
    page = find_page()
    catalogue = json.dumps(describe_models(models), ensure_ascii=False)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"output: {folder} exists and is not an empty folder; name a new one.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary) / "page"
            shutil.copytree(page, fresh)
            (fresh / "models").mkdir()
            for address, file in [one for model in models for one in model.files.items()]:
                shutil.copyfile(file, fresh / address)
            (fresh / CATALOGUE).write_text(catalogue, encoding="utf-8")
            fresh.replace(folder)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"output: cannot write {folder}: {reason}.") from error


def _describe(model: PageModel) -> dict[str, Any]:
    if model.path.suffix != ".tflite":
        raise ModelError(f"model: {model.path.name} is no .tflite file; browsers run only those.")
    if not has_one_size(model.path):
        raise ModelError(
            f"model: {model.path.name} takes pictures of any size, and browsers run one only; "
            "export it at that size."
        )
    entry = zoo.find_by_file(model.path)
    address, *others = model.files
    described: dict[str, Any] = {
        "title": model.title,
        **_describe_file(address, model.path),
        "live": entry is not None and entry.name == _LIVE,
    }
    for other in others:
        described["graphics"] = _describe_file(other, model.files[other])
    if entry is not None:
        described["card"] = _card(entry)
    return described | _hints(entry, model.labels)


def _describe_file(address: str, file: Path) -> dict[str, Any]:
    return {"file": address, "sha256": hash_file(file), "bytes": file.stat().st_size}


def _card(entry: zoo.ZooModel) -> dict[str, Any]:
    """Return what people read of a model before they choose it."""
    return {"miou": entry.miou, "protocol": entry.protocol, "licence": entry.licence}


def _hints(entry: zoo.ZooModel | None, labels: LabelSet | None) -> dict[str, Any]:
    """Return what is known of a file beside what it says itself."""
    hints: dict[str, Any] = {}
    labels = labels or (entry.labels if entry else None)
    if labels is not None:
        hints["labels"] = labels.to_dict()
    if entry is not None and entry.input is not None:
        hints |= {"mean": entry.input.mean, "std": entry.input.std}
    return hints
