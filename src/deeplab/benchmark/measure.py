"""The run: open every contender, warm up, time in turns; then memory, quality and operators."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from deeplab.benchmark.contenders import Contender
from deeplab.benchmark.interleave import take_turns
from deeplab.benchmark.operators import PROFILED, OperatorTime, Profile
from deeplab.benchmark.process import Process
from deeplab.benchmark.timings import Timings
from deeplab.errors import DeepLabError, InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.segmenter import count_cores

STAGES = ("decode", "network", "mask")
"""The way from a photo's file to its mask; see ``Segmentation.timings``."""

Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long is measured; the words and defaults of TFLite's ``benchmark_model``.

    Seconds are per contender.

    Attributes:
        warmup_runs: at least so many runs come before those that count.
        warmup_min_secs: and at least so long.
        num_runs: at least so many runs count.
        min_secs: and at least so long.
        max_secs: no run begins after this, however few there were.
        run_delay: seconds of rest before every run.

    Raises:
        InputError: a number is below 0, no run is asked for, or the times contradict each other.
    """

    warmup_runs: int = 1
    warmup_min_secs: float = 0.5
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 150.0
    run_delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup_runs", "warmup_min_secs", "min_secs", "run_delay"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: got {getattr(self, name)}, expected 0 or more.")
        if self.num_runs < 1:
            raise InputError(f"num_runs: got {self.num_runs}, expected 1 or more.")
        if not self.max_secs > 0 or not self.max_secs >= self.min_secs:
            raise InputError(
                f"max_secs: got {self.max_secs}, expected more than 0, and no less than min_secs "
                f"({self.min_secs})."
            )


@dataclass(frozen=True, kw_only=True)
class Data:
    """On what quality is measured.

    Attributes:
        path: the folder of a data set.
        split: of it.
        limit: only its first pictures; None takes all.
        classes: names of the classes to average over; empty means all.
    """

    path: Path
    split: str = "val"
    limit: int | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit: got {self.limit}, expected 1 picture or more.")


@dataclass(kw_only=True)
class Measurement:
    """What was found out about one contender.

    Attributes:
        contender: who.
        size: (height, width) of its frame.
        fit: how photos meet it.
        gpu: its name, where the network runs on one.
        init_ms: opening the model.
        warmup: network times of the warm-up, milliseconds.
        runs: stage → milliseconds of every run that counts, in their order.
        memory: bytes: ``before`` the model was opened, ``init`` and ``peak`` at most afterwards;
            None where the system does not say.
        quality: scores and their protocol, as ``deeplab evaluate --json`` gives them.
        profile: its operators.
    """

    contender: Contender
    size: tuple[int, int]
    fit: str
    gpu: str | None
    init_ms: float
    warmup: list[float] = field(default_factory=list)
    runs: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    memory: dict[str, int] | None = None
    quality: dict[str, Any] | None = None
    profile: Profile | None = None

    @property
    def network(self) -> Timings:
        """What ``benchmark_model`` calls inference: normalising, the network, its answer."""
        return Timings(self.runs["network"])

    @property
    def total(self) -> Timings:
        """Photo to mask."""
        return Timings([sum(stages) for stages in zip(*self.runs.values(), strict=True)])

    @property
    def first_ms(self) -> float:
        """The very first run of the network."""
        return [*self.warmup, *self.runs["network"]][0]

    @property
    def score(self) -> float | None:
        """MIoU, over the classes that were asked for."""
        if self.quality is None:
            return None
        score: float | None = self.quality.get("subset", self.quality)["miou"]
        return score


@dataclass(kw_only=True)
class Benchmark:
    """A run.

    Attributes:
        settings: how long.
        photos: on what.
        measurements: of every contender that has run, in the order asked for.
        failures: what could not be measured, and why.
        notes: what a reader must know of these numbers.
        interrupted: whether it was ended before its time.
    """

    settings: Settings
    photos: Sequence[Path]
    measurements: list[Measurement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def measure(
    contenders: Sequence[Contender],
    photos: Sequence[Path],
    *,
    settings: Settings,
    data: Data | None = None,
    profile: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Benchmark:
    """Measure contenders against each other, each in a process of its own, in turn.

    Args:
        contenders: who.
        photos: every round takes the next one, the same for all.
        settings: how long.
        data: where quality is wanted too.
        profile: time every operator as well.
        progress: called with (stage, done, of how many).

    Returns:
        what was measured; after an interruption (Ctrl-C) what there is, with a note.

    Raises:
        InputError: the photos, the data set or a variant do not fit.
        ModelError: none of the models can be run.
        MissingExtraError: a runtime is not installed.
        KeyboardInterrupt: nothing was measured yet.
    """
    result = Benchmark(settings=settings, photos=list(photos))
    cores, threads = count_cores(), max(contender.threads for contender in contenders)
    if threads > cores:
        result.notes.append(f"{threads} threads share {cores} cores: that is all this process has")
    with ExitStack() as stack:
        racers = _open(contenders, result, stack, progress)
        if data is not None:
            _check_data(racers, data)
        try:
            _warm_up(racers, result, progress)
            _time(racers, result, progress)
            if data is not None:
                _evaluate(racers, data, result, progress)
            if profile:
                _profile(racers, result, progress)
        except KeyboardInterrupt:
            if not any(one.network.count for one in result.measurements):
                raise
            result.interrupted = True
            result.notes.append("interrupted; these are the numbers until then")
    result.measurements = [one for one in result.measurements if one.network.count]
    if not result.measurements:
        raise ModelError(result.failures[0])
    return result


@dataclass
class _Racer:
    process: Process
    measurement: Measurement
    labels: LabelSet
    lost: bool = False


def _open(
    contenders: Sequence[Contender], result: Benchmark, stack: ExitStack, progress: Progress
) -> list[_Racer]:
    racers = []
    reasons: list[ModelError] = []
    for number, contender in enumerate(contenders):
        progress("opening", number, len(contenders))
        try:
            process = Process(contender)
        except ModelError as error:  # this engine cannot run this model; others may
            reasons.append(error)
            result.failures.append(_tell(contender, error))
            continue
        stack.callback(process.close)
        told = process.opened
        measurement = Measurement(
            contender=contender,
            size=(told["size"][0], told["size"][1]),
            fit=told["fit"],
            gpu=told["gpu"],
            init_ms=told["init_ms"],
        )
        _keep_memory(measurement, told["memory"])
        result.measurements.append(measurement)
        racers.append(_Racer(process, measurement, LabelSet(tuple(told["labels"]))))
    if not racers:
        raise reasons[0]
    return racers


def _tell(contender: Contender, error: ModelError) -> str:
    words = str(error)
    return words if words.startswith(contender.title) else f"{contender.title}: {words}"


def _warm_up(racers: Sequence[_Racer], result: Benchmark, progress: Progress) -> None:
    settings = result.settings
    for number, racer in enumerate(racers):
        progress("warming up", number, len(racers))
        start = time.perf_counter()
        for done in itertools.count():
            late = time.perf_counter() - start
            begun = done >= settings.warmup_runs and late >= settings.warmup_min_secs
            if begun or late > settings.max_secs:
                break
            stages = _run(racer, result, done)
            if stages is None:
                break
            racer.measurement.warmup.append(stages["network"])


def _time(racers: Sequence[_Racer], result: Benchmark, progress: Progress) -> None:
    settings = result.settings
    start = time.perf_counter()

    def enough(rounds: int) -> bool:
        late = (time.perf_counter() - start) / len(racers)
        needed = rounds * settings.min_secs / late if late else 0
        progress("measuring", rounds, max(settings.num_runs, round(needed)))
        done = rounds >= settings.num_runs and late >= settings.min_secs
        done = done or all(racer.lost for racer in racers)
        if late > settings.max_secs and not done:
            result.notes.append(
                f"{rounds} of {settings.num_runs} runs: the time was up "
                f"(max_secs {settings.max_secs:g} per contender)"
            )
        return done or late > settings.max_secs

    runs = {number: partial(_run_next, racer, result) for number, racer in enumerate(racers)}
    for number, stages in take_turns(runs, enough=enough):
        if stages is not None:
            for name, ms in racers[number].measurement.runs.items():
                ms.append(stages[name])


def _run_next(racer: _Racer, result: Benchmark) -> dict[str, float] | None:
    return _run(racer, result, racer.measurement.network.count)


def _run(racer: _Racer, result: Benchmark, number: int) -> dict[str, float] | None:
    """Run one photo; None where the engine has crashed, now or before."""
    if racer.lost:
        return None
    time.sleep(result.settings.run_delay)
    photo = result.photos[number % len(result.photos)]
    try:
        answer = racer.process.ask("run", photo=str(photo))
    except ModelError as error:
        racer.lost = True
        result.failures.append(_tell(racer.measurement.contender, error))
        return None
    _keep_memory(racer.measurement, answer["memory"])
    stages: dict[str, float] = answer["stages"]
    return stages


def _keep_memory(measurement: Measurement, told: dict[str, int] | None) -> None:
    if told is not None:
        init = measurement.memory["init"] if measurement.memory else told["peak"]
        measurement.memory = {"before": told["before"], "init": init, "peak": told["peak"]}


def _check_data(racers: Sequence[_Racer], data: Data) -> None:
    """Tell of a data set that does not fit before the long run, not after it."""
    from deeplab.data import open_dataset
    from deeplab.evaluation.protocol import match_labels

    labels = open_dataset(data.path, split=data.split).labels
    labels.indices(data.classes)
    for racer in racers:
        match_labels(racer.labels, labels)


def _evaluate(racers: Sequence[_Racer], data: Data, result: Benchmark, progress: Progress) -> None:
    """Score every network once; the number of threads does not change what it says."""
    quickest: dict[Contender, _Racer] = {}
    for racer in racers:
        if racer.lost:
            continue
        key = racer.measurement.contender.without_threads
        known = quickest.get(key)
        if known is None or known.measurement.contender.threads < (
            racer.measurement.contender.threads
        ):
            quickest[key] = racer
    for number, (key, racer) in enumerate(quickest.items()):
        words = f"evaluating {number + 1} of {len(quickest)}"
        try:
            found = racer.process.ask(
                "evaluate",
                tell=partial(progress, words),
                data=str(data.path),
                split=data.split,
                limit=data.limit,
                classes=list(data.classes),
            )
        except DeepLabError as error:  # a broken mask must not cost the times
            result.failures.append(f"quality of {key.name}: {error}")
            continue
        for other in racers:
            if other.measurement.contender.without_threads == key:
                other.measurement.quality = found


def _profile(racers: Sequence[_Racer], result: Benchmark, progress: Progress) -> None:
    for racer in racers:
        contender = racer.measurement.contender
        if racer.lost:
            continue
        if contender.runtime not in PROFILED:
            result.notes.append(
                f"{contender.title}: this runtime does not say how long its operators take"
            )
            continue
        try:
            found = racer.process.ask(
                "profile",
                tell=partial(progress, "timing operators"),
                photo=str(result.photos[0]),
                runs=result.settings.num_runs,
            )
        except DeepLabError as error:
            result.failures.append(f"operators of {contender.title}: {error}")
            continue
        racer.measurement.profile = Profile(
            method=found["method"],
            operators=tuple(
                OperatorTime(**{**one, "ms": tuple(one["ms"])}) for one in found["operators"]
            ),
            whole_ms=tuple(found["whole_ms"]),
        )
