"""The browser page with its runtime and a model: a folder for any host."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from deeplab import zoo
from deeplab.errors import InputError, ModelError, OutputError
from deeplab.export import Exported, export
from deeplab.files import replacing_all
from deeplab.serve.browser_page import CATALOGUE, PageModel, find_page, offer, write_page
from deeplab.weights.release import find_pair

_FOR_PAIRS = (
    "precision", "output", "size", "output_stride", "calibrate", "keep_float", "integer_io",
    "photos", "dataset", "allow",
)  # fmt: skip
"""Arguments of :func:`deeplab.export.export` that say nothing to a file that is there already."""


@dataclass(frozen=True)
class Website:
    """What was written.

    Attributes:
        folder: the page is its ``index.html``.
        model: the model's file in it.
        certificate: the model's certificate in it; None where the model was not exported now.
    """

    folder: Path
    model: Path
    certificate: Path | None


def export_page(
    model: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    overwrite: bool = False,
    **options: Any,
) -> Website:
    """Write the page, LiteRT.js and a model into a folder that can stand anywhere on any host.

    Args:
        model: a ``.tflite`` file, a name of the zoo, or a release pair, which is exported first
            and brings its certificate.
        folder: a new or empty one.
        overwrite: replace a page that was written there before.
        options: of :func:`deeplab.export.export`, for release pairs.

    Raises:
        OutputError: the page is not built; the folder holds something else, or cannot be written.
        InputError: ``options`` for a file that is there already.
        ModelError, ModelNotFoundError: there is no such model, or browsers cannot run it.
        ExportError, MissingExtraError: as :func:`deeplab.export.export`.
    """
    find_page()
    folder = Path(folder).resolve()
    _check_folder(folder, overwrite=overwrite)
    name = Path(model).stem if Path(model).exists() else Path(model).name
    with tempfile.TemporaryDirectory() as temporary:
        exported: Exported | None = None
        if is_pair(model):
            file = Path(temporary) / f"{name}.tflite"
            exported = export(model, "tflite", file=file, **options)
        else:
            file = zoo.locate(model)
            _check_file(file, options)
        page_model = PageModel(path=file, title=name)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"output: cannot make {folder.parent}: {error.strerror}.") from error
        with replacing_all(folder) as partial:
            write_page(partial, offer([page_model]))
            if exported is not None:
                certificate = exported.certificate_file
                shutil.copyfile(certificate, partial / "models" / certificate.name)
    return Website(
        folder,
        folder / page_model.address,
        folder / "models" / exported.certificate_file.name if exported else None,
    )


def is_pair(model: str | PathLike[str]) -> bool:
    """Return whether this is a release pair, by either of its files or without suffix."""
    return Path(model).suffix in (".safetensors", ".json") or find_pair(model) is not None


def _check_file(file: Path, options: dict[str, Any]) -> None:
    if file.suffix != ".tflite":
        raise ModelError(
            f"model: {file.name} is no .tflite file; browsers run only those. Export it from its "
            "release pair."
        )
    defaults = inspect.signature(export).parameters
    given = [name for name in _FOR_PAIRS if name in options]
    changed = [name for name in given if options[name] and options[name] != defaults[name].default]
    if changed:
        raise InputError(
            f"{changed[0]}: {file.name} is finished already; this is for release pairs. Leave it "
            "out."
        )


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but a page, and that only when asked for."""
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise OutputError(f"output: you are inside {folder}; give the name of a new folder.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"output: {folder} is a file, expected a folder.")
    if not any(folder.iterdir()):
        return
    if not ((folder / "index.html").is_file() and (folder / CATALOGUE).is_file()):
        raise OutputError(
            f"output: {folder} holds something that is no such page; name a new folder."
        )
    if not overwrite:
        raise OutputError(
            f"output: {folder} holds a page already. Add --overwrite to replace all that is in it."
        )
