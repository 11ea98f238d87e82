"""Who is measured: models × runtimes × devices × sizes × output strides × threads."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deeplab import zoo
from deeplab.errors import InputError
from deeplab.info import ModelInfo, describe
from deeplab.runtimes import Precision, find_engines
from deeplab.segmenter import default_threads
from deeplab.tflite import file as tflite_file
from deeplab.weights.release import find_pair

Device = str


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of running one model.

    Attributes:
        name: of the model, for tables.
        path: its file.
        runtime: the engine.
        threads: per photo.
        device: on what it runs, as :class:`deeplab.segmenter.Segmenter` takes it.
        size: (height, width) of the frame, where it is not the model's own.
        output_stride: where it is not the model's own.
        precision: in what the engine computes; "bfloat16" with OpenVINO only.
        labels: the classes, where the model does not say; a file or a name.
        told: what else it does not say: normalisation, fit, output_name, in pairs.
        stored: the precision of the weights in the file; None where it does not tell.
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
    precision: Precision = "float32"
    labels: str | None = None
    told: tuple[tuple[str, str], ...] = ()
    stored: str | None = None
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
        if self.precision != "float32":
            parts.append(self.precision)
        return ", ".join([*parts, count_threads(self.threads)])

    @property
    def arguments(self) -> dict[str, Any]:
        """What :class:`deeplab.segmenter.Segmenter` is opened with, as JSON knows it."""
        return {
            "model": str(self.path),
            "threads": self.threads,
            "runtime": self.runtime,
            "size": self.size,
            "output_stride": self.output_stride,
            "precision": self.precision,
            "device": self.device,
            "labels": self.labels,
            **dict(self.told),
        }

    @property
    def without_threads(self) -> Contender:
        """The same for any number of threads: they change the time and nothing else."""
        return dataclasses.replace(self, threads=0)


def count_threads(threads: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is combined; where a list is empty, every model takes its own.

    Attributes:
        runtimes: each model runs on those that read its kind of file; empty means the usual one.
        threads: empty means what ``deeplab segment`` would use.
        devices: empty means the CPU, and for release pairs a GPU too, if any.
        sizes: (height, width) of release pairs and of files that take any.
        output_strides: of release pairs.
        precisions: in what OpenVINO computes; the other engines have no choice.
        labels: the classes of models that do not say; a file or a name.
        told: what else they do not say: normalisation, fit, output_name.
    """

    runtimes: Sequence[str] = ()
    threads: Sequence[int] = ()
    devices: Sequence[Device] = ()
    sizes: Sequence[tuple[int, int]] = ()
    output_strides: Sequence[int] = ()
    precisions: Sequence[Precision] = ()
    labels: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)


def plan_contenders(models: Sequence[tuple[str, Path]], choices: Choices) -> list[Contender]:
    """Return every combination that there is, in the order in which it is asked for.

    Args:
        models: (name as given, file).
        choices: what is combined.

    Raises:
        InputError: no runtime runs one of the models, there are fewer cores than threads, or a
            choice that none of the models has.
        ModelError: a model cannot be read.
        MissingExtraError: a release pair without PyTorch.
    """
    _check_threads(choices.threads)
    models = list(dict.fromkeys(models))
    found: list[Contender] = []
    for name, (given, path) in zip(_tell_apart(models), models, strict=True):
        engines = find_engines(path)
        runtimes = [runtime for runtime in choices.runtimes if runtime in engines]
        if choices.runtimes and not runtimes:
            raise InputError(
                f"--runtime: {', '.join(choices.runtimes)} cannot run {given}; "
                f"{' or '.join(engines)} can."
            )
        for runtime in runtimes or engines[:1]:
            found += _combine(name, path, runtime, choices)
    pair = "only a release pair (.safetensors and .json) runs with others"
    for option, asked, taken, words in (
        ("--size", choices.sizes, [one.size for one in found], pair),
        ("--output-stride", choices.output_strides, [one.output_stride for one in found], pair),
        (
            "--precision",
            [one for one in choices.precisions if one != "float32"],
            [one.precision != "float32" for one in found],
            "only --runtime openvino computes in others",
        ),
    ):
        if asked and not any(taken):
            raise InputError(f"{option}: these models have their own; {words}.")
    return list(dict.fromkeys(found))


def _combine(name: str, path: Path, runtime: str, choices: Choices) -> list[Contender]:
    is_pair = runtime == "torch"
    takes_sizes = is_pair or path.suffix in (".onnx", ".xml")
    if path.suffix == ".tflite":
        takes_sizes = tflite_file.read(path).takes_any_size
    found = []
    for device, size, stride in itertools.product(
        choices.devices or _usual_devices(is_pair),
        (choices.sizes if takes_sizes else ()) or (None,),
        (choices.output_strides if is_pair else ()) or (None,),
    ):
        info = _describe(path, size, stride, choices.told)
        found += [
            Contender(
                name=name,
                path=path,
                runtime=runtime,
                threads=threads,
                device=device,
                size=size,
                output_stride=stride,
                precision=precision,
                labels=choices.labels,
                told=tuple(choices.told.items()),
                stored=info.precision if info else None,
                frame_stride=info.output_stride if info else None,
                file_bytes=(info.file_bytes if info else None) or _count_bytes(path),
            )
            for precision in (choices.precisions if runtime == "openvino" else ()) or ("float32",)
            for threads in choices.threads or (default_threads(),)
        ]
    return found


def _usual_devices(is_pair: bool) -> tuple[Device, ...]:
    if is_pair:
        from deeplab.runtimes.torch import name_gpu

        return ("cpu", "cuda") if name_gpu() else ("cpu",)
    return ("cpu",)


def find_models(models: Sequence[str], *, progress: zoo.Progress | None = None) -> list[Path]:
    """Return the files of models given by name, by file, or by the name of a release pair.

    Raises:
        ModelNotFoundError: there is no such model.
        DownloadError: a named model could not be downloaded.
    """
    return [find_pair(model) or zoo.locate(model, progress=progress) for model in models]


def _describe(
    path: Path, size: tuple[int, int] | None, stride: int | None, told: Mapping[str, Any]
) -> ModelInfo | None:
    """Return what the file says of itself; None for kinds that say nothing."""
    if path.suffix in (".tflite", ".json", ".safetensors"):
        return describe(path, size=size, output_stride=stride, **told)
    return None


def _count_bytes(path: Path) -> int:
    """Return the size of what has to be shipped; OpenVINO's own format is two files."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


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
