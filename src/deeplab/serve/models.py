"""Which models are served, under which names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab import zoo
from deeplab.errors import InputError
from deeplab.segmenter import Runtime, Segmenter


def find_models(models: Sequence[str], *, progress: zoo.Progress | None = None) -> dict[str, Path]:
    """Return name → file of models given by name or by file; a file's name is that of its stem.

    Raises:
        InputError: two would have the same name.
        ModelNotFoundError: there is no such model.
        DownloadError: a named model could not be downloaded.
    """
    found: dict[str, Path] = {}
    for model in models:
        path = zoo.locate(model, progress=progress)
        name = Path(model).stem if Path(model).exists() else model
        if name in found:
            raise InputError(
                f"--model: {found[name]} and {path} would both be called '{name}'; rename one."
            )
        found[name] = path
    return found


def open_models(
    files: dict[str, Path],
    *,
    streams: int,
    threads: int = 1,
    runtime: Runtime | None = None,
    device: str | None = None,
    **told: Any,
) -> dict[str, Segmenter]:
    """Return name → segmenter, each for several photos at once.

    Args:
        files: name → file.
        streams: photos at the same time.
        threads: of the network, for each photo.
        runtime: the engine; None takes the usual one of each file.
        device: on what the networks run; None is the CPU.
        **told: what else :class:`~deeplab.segmenter.Segmenter` takes: labels, normalisation, fit,
            size, output_name; for one model only.

    Raises:
        InputError: something is told of several models, or does not fit.
        ModelError: a file cannot be run.
        MissingExtraError: the engine is not installed.
    """
    for name, value in told.items():
        if value is not None and len(files) > 1:
            raise InputError(
                f"--{name.replace('_', '-')}: got '{value}' for {len(files)} models; each has its "
                "own. Serve them in several processes."
            )
    return {
        name: Segmenter(
            path, threads=threads, streams=streams, runtime=runtime, device=device, **told
        )
        for name, path in files.items()
    }
