"""What a newcomer types gives a good network: every setting that is not given is chosen, and said.

``deeplab train --data X`` starts from the network that comes with the package, computes the rows of
its classes at once, and goes on from there with settings that follow from the pictures and
from one measured step. A recipe with a schedule of its own keeps its meaning: nothing is chosen.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplab import weights
from deeplab.data import open_dataset
from deeplab.data.channels import channels_of
from deeplab.data.sample import Dataset
from deeplab.errors import InputError
from deeplab.files import parse_toml, read_text
from deeplab.models import DeepLab, build
from deeplab.photo import images
from deeplab.training.fit import MOST_PHOTOS, can_fit
from deeplab.training.initialise import choose_config, locate_start, start_frame
from deeplab.training.loop import NOBODY, Callbacks
from deeplab.training.losses import segmentation_loss
from deeplab.training.own import find_pieces
from deeplab.training.settings import Settings

START = "voc"
"""The starting network where nobody names one."""

DEFAULT_MINUTES = 15.0
"""The most that a plan takes where nobody says how long."""

_EPOCHS = 24  # of a plan that time does not cut
_STEPS = (60, 1500)
_BATCH = 8
_SLOW_STEP = 8.0  # seconds; half the batch, where a step would take longer
_JUDGING = 0.2  # largest share of the time for validations
_RESERVE = 1.15  # plans keep this much room: machines are not alone
_STRIDE = 16


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured: seconds for one crop forwards and backwards, and for one whole frame."""

    crop: float
    frame: float
    precision: str


def choose_settings(
    values: Mapping[str, Any],
    *,
    folder: Path,
    own_plan: bool = False,
    epochs: float | None = None,
    seconds: float | None = None,
    datasets: tuple[Dataset, Dataset] | None = None,
    tell: Callable[[str], None] = print,
) -> Settings:
    """Return the settings of a training: those that are given, and good ones for the others.

    Args:
        values: tables of settings, as a recipe has them, the command line's among them.
            ``init.path`` may be "none" (random weights), a name of the zoo, or a file.
        folder: of the run; where it holds a checkpoint, its settings stand for what is not given.
        own_plan: the recipe has a schedule or an optimiser: its other settings mean the defaults.
        epochs: how often every photo is looked at; None is chosen.
        seconds: how long all of it may take; 0 releases the start, its classes fitted.
        datasets: to learn from and to judge by, in place of ``data.path``.
        tell: where sentences go.

    Raises:
        InputError, DataError, WeightsError: settings, data or starting weights do not fit.
    """
    chosen = copy.deepcopy(dict(values))
    if (folder / "last.pt").is_file() and (folder / "recipe.toml").is_file():
        before = parse_toml(read_text(folder / "recipe.toml"))
        _accept_none(chosen)
        return Settings.from_dict(merge(before, chosen))
    find_pieces(Settings.from_dict({**chosen, "init": {}}))
    init, model = chosen.setdefault("init", {}), chosen.get("model", {})
    if "path" not in init:
        other = model.get("backbone", "mobilenet_v2") != "mobilenet_v2"
        other |= bool(model.get("own"))
        other |= model.get("depth_multiplier", 1.0) != 1.0 or (own_plan and bool(model))
        init["path"] = "none" if other else START
        if other:
            tell(f"Starting weights: none, as this network is not that of '{START}'.")
    _accept_none(chosen)
    if not init["path"]:
        tell(
            "From scratch: random weights need thousands of photos and days of work. "
            f"--init {START}, or another network's file, starts from what that has learned."
        )
    if own_plan or not init["path"]:
        settings = _count_steps(chosen, epochs=epochs, seconds=seconds, datasets=datasets)
        if not own_plan and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            _say_expected(settings, datasets, tell)
        return settings
    return _plan(chosen, epochs=epochs, seconds=seconds, datasets=datasets, tell=tell)


def _accept_none(values: dict[str, Any]) -> None:
    init = values.get("init", {})
    if str(init.get("path", "")).lower() == "none":
        init["path"] = ""


def merge(before: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables with the values of others laid over, in place."""
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(before.get(name), dict):
            before[name] = merge(before[name], value)
        else:
            before[name] = value
    return before


def _count_steps(
    values: dict[str, Any],
    *,
    epochs: float | None,
    seconds: float | None,
    datasets: tuple[Dataset, Dataset] | None,
) -> Settings:
    """Turn epochs into steps where nothing else is chosen."""
    if seconds is not None and seconds <= 0:
        raise InputError(
            "--time: 0 stops after the fit, which this start or recipe does not have; "
            "leave out --init none and the recipe's schedule."
        )
    settings = Settings.from_dict(values)
    if epochs is None:
        return settings
    photos = len(_open(settings, datasets)[0])
    steps = max(1, math.ceil(epochs * photos / settings.run.batch_size))
    values.setdefault("run", {})["steps"] = steps
    return Settings.from_dict(values)


def _say_expected(
    settings: Settings,
    datasets: tuple[Dataset, Dataset] | None,
    tell: Callable[[str], None],
) -> None:
    """Measure a step from random weights, and say how long all of them will take."""
    run, data = settings.run, settings.data
    training = _open(settings, datasets)[0]
    fields = _channel_fields(channels_of(training))
    device = torch.device("cuda" if torch.cuda.is_available() and run.device != "cpu" else "cpu")
    tell("One step is measured …")
    network = build(settings.network(len(training.labels), **fields))
    pace = _measure(network, data.crop_size, data.crop_size, run.precision, device)
    step = pace.crop * run.batch_size
    tell(
        f"Expected: {_duration(run.steps * step)} for {run.steps} steps of {run.batch_size} crops "
        f"of {data.crop_size[0]}×{data.crop_size[1]} (a step takes about {step:.1f} s), and the "
        "validations."
    )


# -- the plan ------------------------------------------------------------------------------------


def _plan(
    values: dict[str, Any],
    *,
    epochs: float | None,
    seconds: float | None,
    datasets: tuple[Dataset, Dataset] | None,
    tell: Callable[[str], None],
) -> Settings:
    """Choose what is not given for fine-tuning, and say it."""
    given = Settings.from_dict(values)  # refuses what is wrong before anything is read
    data, run = values.setdefault("data", {}), values.setdefault("run", {})
    training, judging = _open(given, datasets)
    if not len(training) or not len(judging):
        return given  # the doctor says what is missing
    tell(f"Planning: {len(training)} photos to learn from, starting from '{given.init.path}' …")
    path = locate_start(given.init.path)
    found, _, _ = weights.load_with_report(path, backbone=given.model.get("backbone"))
    channels = channels_of(training)
    model = {**given.model, **_channel_fields(channels)}
    network = build(choose_config(model, found, len(training.labels)))

    sizes = _photo_sizes(training)
    frame = tuple(data.get("frame") or _choose_frame(sizes, start_frame(path)))
    crop = tuple(data.get("crop_size") or _choose_crop(frame))
    defaults: dict[str, dict[str, Any]] = {
        "data": {
            "frame": frame, "crop_size": crop, "resize_range": _resize_range(frame),
            "scale_range": (0.5, 1.25), "scale_step": 0.0,
            "colour_jitter": 0.0 if channels else 0.3,
            "memory_gb": 1.0, "workers": 0 if (os.cpu_count() or 1) < 4 else 2,
        },
        "init": {"fit": can_fit(network)},
        # Half of a step on a CPU would be the loss of pixels between those that the logits know.
        "loss": {"label_stride": 2 if all(side % 2 for side in crop) else 1},
        "optimiser": {
            "clip_norm": 5.0, "ema_decay": 0.99, "start_share": 0.3,
            "head_multiplier": 5.0, "head_is_classifier": True,
        },
        "run": {"batch_norm": "frozen", "validate_frame": True},
    }  # fmt: skip
    for table, chosen in defaults.items():
        values[table] = {**chosen, **values.get(table, {})}
    data, run = values["data"], values["run"]
    pace = None
    fit_only = seconds is not None and seconds <= 0
    if fit_only:
        run["steps"] = 0
    else:
        device = "cuda" if torch.cuda.is_available() and run.get("device") != "cpu" else "cpu"
        together = int(os.environ.get("WORLD_SIZE", "1"))
        if together > 1:  # what each process measured for itself would give each another plan
            pace = Pace(crop=0.25, frame=0.5, precision=run.get("precision", "float32"))
            run.setdefault("batch_size", math.ceil(_BATCH / together) * together)
        else:
            tell("Planning: one step is measured …")
            pace = _measure(network, crop, frame, run.get("precision"), torch.device(device))
        run.setdefault("precision", pace.precision)
        slow = pace.crop * _BATCH > _SLOW_STEP
        run.setdefault("batch_size", _BATCH // 2 if slow else _BATCH)
    fits = bool(values["init"]["fit"])
    looks = min(len(training), MOST_PHOTOS) * fits + len(judging)
    if pace is not None:
        _choose_length(run, pace, len(training), len(judging), looks, epochs, seconds)
    steps = run["steps"]
    warm = min(max(steps // 10, 5), 50)
    schedule = {"base": 3e-4, "start": 3e-5, "start_ramp": True, "start_steps": warm}
    values["schedule"] = {**schedule, **values.get("schedule", {})}
    settings = Settings.from_dict(values)
    _say(settings, sizes, len(training), len(judging), pace, looks, tell)
    return settings


def _channel_fields(channels: int) -> dict[str, Any]:
    """Return what stands in for measured numbers where only the time of a step is wanted."""
    if not channels:
        return {}
    return {"pixel_mean": (0.0,) * channels, "pixel_std": (1.0,) * channels, "channel_order": "rgb"}


def _open(settings: Settings, datasets: tuple[Dataset, Dataset] | None) -> tuple[Dataset, Dataset]:
    data = settings.data
    if datasets is not None:
        return datasets
    return open_dataset(data.path, split=data.train), open_dataset(data.path, split=data.val)


def _photo_sizes(dataset: Dataset) -> np.ndarray[Any, Any]:
    """Return (n, 2), height and width of up to 64 photos spread over the data set."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, 64).round().astype(int))
    sizes = []
    for index in chosen:
        if dataset.images and not channels_of(dataset):
            photo = images.Photo(dataset.images[int(index)])
            sizes.append((photo.height, photo.width))
        else:
            sizes.append(dataset[int(index)].label.shape)
    return np.array(sizes)


def _choose_frame(sizes: np.ndarray[Any, Any], start: tuple[int, int]) -> tuple[int, int]:
    """Return the frame into which photos are fitted: the start's, but no more than they need.

    Photos that all have one shape get a frame of that shape; small ones are at most doubled.
    """
    longest = min(max(start), 2 * int(np.median(sizes.max(1))))
    shapes = sizes[:, 0] / sizes[:, 1]
    shape = float(np.median(shapes))
    alike = np.mean(np.abs(np.log(shapes / shape)) < 0.1) > 0.95
    height, width = (min(1.0, shape), min(1.0, 1 / shape)) if alike else (1.0, 1.0)
    return _to_stride(longest * height), _to_stride(longest * width)


def _to_stride(size: float) -> int:
    """Round to k · stride + 1: there, every cell of the logits has a pixel in its middle."""
    return max(1, round((size - 1) / _STRIDE)) * _STRIDE + 1


def _choose_crop(frame: tuple[int, ...]) -> tuple[int, int]:
    """Return the crop: a bit more than half of the frame's sides, as it is scaled too."""
    return tuple(min(side, max(_to_stride(0.58 * side), 129)) for side in frame)  # type: ignore[return-value]


def _resize_range(frame: tuple[int, ...]) -> tuple[int, int]:
    """Return shorter and longer side that bring a photo to about its size in the frame."""
    return min(frame), max(frame)


def _measure(
    network: DeepLab,
    crop: tuple[int, ...],
    frame: tuple[int, ...],
    precision: str | None,
    device: torch.device,
) -> Pace:
    """Time a small step, in both precisions where none is given, and a look at a frame."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.freeze_batch_norm()
    channels = network.config.channels
    image = torch.randint(0, 256, (2, channels, *crop), dtype=torch.uint8, device=device)
    label = torch.randint(0, network.config.num_classes, (2, *crop), device=device)
    times: dict[str, float] = {}
    for name in [precision] if precision else ["float32", "bfloat16"]:
        for _ in range(2):  # the first one warms up
            begun = time.perf_counter()
            network.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
                loss = segmentation_loss(network(image), label[:, ::2, ::2])
            loss.backward()  # type: ignore[no-untyped-call]
            loss.detach().cpu()  # a GPU answers only now
            times[name] = (time.perf_counter() - begun) / 2
    # Half the bits cost exactness: only where they save more than a little.
    best = min(times, key=lambda name: times[name] * (1.2 if name == "bfloat16" else 1.0))
    network.zero_grad(set_to_none=True)
    network.eval()
    begun = time.perf_counter()
    with torch.inference_mode():
        whole = torch.zeros((1, channels, *frame), dtype=torch.uint8, device=device)
        float(network(whole).sum())
    return Pace(crop=times[best], frame=time.perf_counter() - begun, precision=best)


def _choose_length(
    run: dict[str, Any],
    pace: Pace,
    photos: int,
    judged: int,
    looks: int,
    epochs: float | None,
    seconds: float | None,
) -> None:
    """Set steps, and the interval of validations, from the photos and the time there is."""
    step = pace.crop * run["batch_size"]
    if "steps" not in run:
        wanted = (_EPOCHS if epochs is None else epochs) * photos / run["batch_size"]
        steps = max(1, math.ceil(wanted))
        if epochs is None:
            steps = min(max(steps, _STEPS[0]), _STEPS[1])
            if seconds is not None:  # the time is there to be used, within reason
                steps = max(steps, min(4 * steps, _STEPS[1]))
        if seconds is not None or epochs is None:
            room = DEFAULT_MINUTES * 60 if seconds is None else seconds
            # The last validation comes in any case; others take their share.
            left = room / _RESERVE - (looks + judged) * pace.frame
            steps = min(steps, max(int(left * (1 - _JUDGING) / step), 0 if seconds else _STEPS[0]))
        run["steps"] = steps
    if "validate_every" not in run:
        affordable = _JUDGING * run["steps"] * step / max(judged * pace.frame, 1e-9)
        count = min(max(int(affordable), 1), 10)
        run["validate_every"] = max(1, math.ceil(run["steps"] / count))


def _say(
    settings: Settings,
    sizes: np.ndarray[Any, Any],
    photos: int,
    judged: int,
    pace: Pace | None,
    looks: int,
    tell: Callable[[str], None],
) -> None:
    data, run, optimiser = settings.data, settings.run, settings.optimiser
    height, width = np.median(sizes, axis=0).astype(int)
    lines = [
        f"Chosen for these photos and this machine (-s NAME=VALUE changes any; start: "
        f"{settings.init.path}):",
        f"  photos of about {height}×{width} (height × width) are fitted into "
        f"{data.frame[0]}×{data.frame[1]}",
    ]
    if settings.init.fit:
        lines.append(
            "  first the rows of the classes are computed at once, without a training step"
        )
    if not run.steps:
        lines.append("  no training step (time 0): the fitted network is judged and released")
    elif pace is not None:
        times = run.steps * run.batch_size / photos
        step = pace.crop * run.batch_size
        judgings = 1 + math.ceil(run.steps / max(run.validation_interval, 1))
        total = run.steps * step + (judgings * judged + looks - judged) * pace.frame
        lines += [
            f"  {run.steps} steps of {run.batch_size} crops of {data.crop_size[0]}×"
            f"{data.crop_size[1]}, scaled {data.scale_range[0]:g} to {data.scale_range[1]:g}: "
            f"every photo about {times:.0f} times; {run.precision}",
            f"  rate {settings.schedule.base:g} after {settings.schedule.start_steps} warm-up "
            f"steps, classifier ×{optimiser.head_multiplier:g}, gradients clipped at "
            f"{optimiser.clip_norm:g}, batch norm {run.batch_norm}",
            f"  released: the moving average ({optimiser.ema_decay:g}) with a share of "
            f"{optimiser.start_share:g} of the start; judged every {run.validation_interval} steps "
            f"on {judged} photos, the start too",
            f"  expected: {_duration(total)} (a step takes about {step:.1f} s)",
        ]
    tell("\n".join(lines))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def deadline(seconds: float | None) -> Callbacks:
    """Return what ends a training after so many seconds from now; None and 0 never do."""
    if not seconds:
        return NOBODY
    end = time.monotonic() + seconds
    return Callbacks(step=lambda news: "the time is over" if time.monotonic() > end else None)
