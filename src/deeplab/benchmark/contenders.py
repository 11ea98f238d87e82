"""Who is measured: models × runtimes × devices × sizes × output strides × threads."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deeplab import zoo
from deeplab.errors import InputError
from deeplab.info import ModelInfo, describe
from deeplab.runtimes import find_engines
from deeplab.segmenter import default_threads

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of running one model.

    Attributes:
        name: of the model, for tables.
        path: its file.
        runtime: the engine.
        threads: per photo.
        device: "cpu", or "cuda" for a release pair on a GPU.
        size: (height, width) of the frame, where it is not the model's own.
        output_stride: where it is not the model's own.
        labels: the classes, where the model does not say; a file or a name.
        precision: of the weights, as the file stores them; None where it does not tell.
        frame_stride: the output stride at which it runs, None where the file does not tell.
        file_bytes: what has to be shipped; for a pair the weights.
    """

    name: str
    path: Path
    runtime: str
    threads: int
    device: Device = "cpu"
    size: tuple[int, int] | None = None
    output_stride: int | None = None
    labels: str | None = None
    precision: str | None = None
    frame_stride: int | None = None
    file_bytes: int = 0

    @property
    def title(self) -> str:
        """What tells it from the others, in one line."""
        parts = [self.name, self.runtime]
        if self.device != "cpu":
            parts.append(self.device)
        if self.size:
            parts.append(f"{self.size[0]}×{self.size[1]}")
        if self.output_stride:
            parts.append(f"output stride {self.output_stride}")
        return ", ".join([*parts, count_threads(self.threads)])

    @property
    def arguments(self) -> dict[str, Any]:
        """What :class:`deeplab.segmenter.Segmenter` is opened with, as JSON knows it."""
        return {
            "model": str(self.path),
            "threads": self.threads,
            "runtime": self.runtime,
            "labels": self.labels,
            "size": self.size,
            "output_stride": self.output_stride,
            "device": self.device if self.runtime == "torch" else None,
        }

    @property
    def without_threads(self) -> Contender:
        """The same for any number of threads: they change the time and nothing else."""
        return dataclasses.replace(self, threads=0)


def count_threads(threads: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def plan_contenders(
    models: Sequence[tuple[str, Path]],
    *,
    runtimes: Sequence[str] = (),
    threads: Sequence[int] = (),
    sizes: Sequence[tuple[int, int]] = (),
    output_strides: Sequence[int] = (),
    devices: Sequence[Device] = ("cpu",),
    labels: str | None = None,
) -> list[Contender]:
    """Return every combination that there is, in the order in which it is asked for.

    Args:
        models: (name as given, file).
        runtimes: each model runs on those that read its kind of file; none means the usual one.
        threads: none means what ``deeplab segment`` would use.
        sizes: (height, width) of release pairs and of files that take any. None means their own.
        output_strides: of release pairs. None means their own.
        devices: of release pairs.
        labels: the classes of models that do not say; a file or a name.

    Raises:
        InputError: no runtime runs one of the models, more threads than cores, sizes or strides
            without a release pair.
        ModelError: a model cannot be read.
        MissingExtraError: a release pair without PyTorch.
    """
    _check_threads(threads)
    models = list(dict.fromkeys(models))
    names = _tell_apart(models)
    found = []
    for name, (given, path) in zip(names, models, strict=True):
        engines = find_engines(path)
        chosen = [runtime for runtime in runtimes if runtime in engines]
        if runtimes and not chosen:
            raise InputError(
                f"--runtime: {', '.join(runtimes)} cannot run {given}; {' or '.join(engines)} can."
            )
        is_pair = engines == ("torch",)
        takes_sizes = is_pair or path.suffix in (".onnx", ".xml")
        for runtime, device, size, stride in itertools.product(
            chosen or engines[:1],
            devices if is_pair else ("cpu",),
            (sizes if takes_sizes else ()) or (None,),
            (output_strides if is_pair else ()) or (None,),
        ):
            info = _describe(path, size, stride)
            found += [
                Contender(
                    name=name,
                    path=path,
                    runtime=runtime,
                    threads=count,
                    device=device,
                    size=size,
                    output_stride=stride,
                    labels=labels,
                    precision=info.precision if info else None,
                    frame_stride=info.output_stride if info else None,
                    file_bytes=(info.file_bytes if info else None) or path.stat().st_size,
                )
                for count in (threads or (default_threads(),))
            ]
    for option, wanted, kept in (
        ("--size", sizes, [one.size for one in found]),
        ("--output-stride", output_strides, [one.output_stride for one in found]),
    ):
        if wanted and not any(kept):
            raise InputError(
                f"{option}: these files were written for their own; only a release pair "
                "(.safetensors and .json) runs with others."
            )
    return list(dict.fromkeys(found))


def find_models(models: Sequence[str], *, progress: zoo.Progress | None = None) -> list[Path]:
    """Return the files of models given by name, by file, or by the name of a release pair.

    Raises:
        ModelNotFoundError: there is no such model.
        DownloadError: a named model could not be downloaded.
    """
    found = []
    for model in models:
        pair = Path(f"{model}.json")
        found.append(pair if pair.is_file() else zoo.locate(model, progress=progress))
    return found


def _describe(path: Path, size: tuple[int, int] | None, stride: int | None) -> ModelInfo | None:
    """Return what the file says of itself; None for kinds that say nothing."""
    if path.suffix in (".tflite", ".json", ".safetensors"):
        return describe(path, size=size, output_stride=stride)
    return None


def _check_threads(threads: Sequence[int]) -> None:
    cores = os.cpu_count() or 1
    for count in threads:
        if not 1 <= count <= cores:
            raise InputError(
                f"--threads: got {count}, expected 1 to {cores}: this machine has {cores} "
                f"core{'s' if cores > 1 else ''}."
            )


def _tell_apart(models: Sequence[tuple[str, Path]]) -> list[str]:
    """Return short names; what was typed, where two would be the same."""
    short = [
        path.stem if Path(given).name == path.name else Path(given).name for given, path in models
    ]
    shared = Counter(short)
    return [
        name if shared[name] == 1 else given for name, (given, _) in zip(short, models, strict=True)
    ]
