"""The settings of an experiment: frozen records, read from a TOML recipe.

Every field is read somewhere, an unknown one is refused, and the effective settings are saved
beside the weights. ``[model]`` holds the fields of ``DeepLabConfig`` except ``num_classes``,
which follows from the data.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from deeplab.errors import InputError, near_matches
from deeplab.files import TOMLDecodeError, parse_toml, read_text, to_toml
from deeplab.models.config import DeepLabConfig
from deeplab.models.config_fields import READ_BY_OWN
from deeplab.training.augment_settings import AugmentSettings
from deeplab.training.limits import Limits, check_numbers
from deeplab.training.loss_settings import LossSettings
from deeplab.training.published import Published
from deeplab.training.schedule import Schedule
from deeplab.training.tables import build, read_value


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which pictures, and what happens to them on the way in.

    Attributes:
        path: the folder of the data set, in any layout that ``open_dataset`` recognises.
        train: split to learn from.
        more: folders of further data sets, in the same masks and classes, whose split "train" is
            learned from too.
        val: split that decides which weights are best.
        folds: parts into which the pictures of ``train`` are cut; all but one are learned from, and
            that one judges in place of ``val``. 0 does not.
        fold: which one judges, from 0.
        crop_size: (height, width) of what the network sees in training.
        resize_range: (shorter, longer) side to which pictures are resized first, and optionally
            the factor of which sizes become a multiple plus 1 (min_resize_value,
            max_resize_value, resize_factor); () keeps them.
        scale_range: smallest and largest random scale.
        scale_step: step between scales; 0 draws from the whole range.
        flip: mirror half of the pictures.
        colour_jitter: largest relative change of brightness, contrast and saturation; 0 is off.
        rare_class_crops: probability of laying the crop over a pixel of a rare class, in pictures
            that show one.
        rare_classes: the names of those classes; () takes every class of which less than
            ``RARE_SHARE`` of the labelled pixels is.
        repeat_threshold: pictures of a class that fewer than this share of them show, 0..1, are
            drawn more often: √(threshold / share) times. 0 draws all alike.
        workers: processes that read pictures; 0 reads in the training process.
        memory_gb: memory in which decoded pictures may be kept, in gigabytes.
        frame: (height, width) of the frame that the released network asks for; () is crop_size.
        check: run the data doctor first and stop at certain faults.

    Source of the defaults: research/deeplab common.py and train.py.
    """

    path: str = ""
    train: str = "train"
    more: tuple[str, ...] = ()
    val: str = "val"
    folds: Annotated[int, Limits(0, 1000)] = 0
    fold: Annotated[int, Limits(0, 999)] = 0
    crop_size: Annotated[tuple[int, int], Limits(17, 16_385)] = (513, 513)
    resize_range: Annotated[tuple[int, ...], Limits(1, 65_535)] = ()
    scale_range: Annotated[tuple[float, float], Limits(0.01, 100.0)] = (0.5, 2.0)
    scale_step: Annotated[float, Limits(0.0, 100.0)] = 0.25
    flip: bool = True
    colour_jitter: Annotated[float, Limits(0.0, 1.0)] = 0.0
    rare_class_crops: Annotated[float, Limits(0.0, 1.0)] = 0.0
    rare_classes: tuple[str, ...] = ()
    repeat_threshold: Annotated[float, Limits(0.0, 1.0)] = 0.0
    workers: Annotated[int, Limits(0, 256)] = 2
    memory_gb: Annotated[float, Limits(0.0, 65_536.0)] = 0.0
    frame: Annotated[tuple[int, ...], Limits(17, 16_385)] = ()
    check: bool = True

    def __post_init__(self) -> None:
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise InputError(
                f"data.fold: got {self.fold} of {self.folds} (data.folds), expected 0 or more, and "
                "fewer than the folds, of which there are two at least."
            )

    @property
    def judged_by(self) -> str:
        """The name of what decides which weights are best."""
        return f"fold {self.fold + 1} of {self.folds}" if self.folds else self.val


@dataclass(frozen=True, kw_only=True)
class InitSettings:
    """Where the first weights come from.

    Attributes:
        path: a release pair, a TensorFlow checkpoint, a .tflite file, …: all that
            ``deeplab.weights.load`` opens, or a name ("voc"). Empty starts from random weights.
        classifier: take over the rows of classes with the same name; False starts it afresh.
        fit: before the first step, compute the rows of the classes at once from the training
            photos; see ``training.fit``.
    """

    path: str = ""
    classifier: bool = True
    fit: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A trained network whose opinion counts beside the labels; see ``training.teacher``.

    Attributes:
        path: a release pair or any weights with the same classes; empty is no teacher.
        weight: of its loss, beside 1 for the labels'.
        temperature: softens the probabilities of both; more shows more of the unlikely classes.
        everywhere: hear it also where its first choice is not the label: a teacher that knows more
            than the student is worth that.
    """

    path: str = ""
    weight: Annotated[float, Limits(0.0, 1e6)] = 1.0
    temperature: Annotated[float, Limits(0.01, 1000.0)] = 2.0
    everywhere: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """Stochastic gradient descent as the original runs it, or another optimiser.

    Attributes:
        name: ``sgd``, ``adamw``, ``lion``, or one of your own, ``FILE.py:NAME`` (docs/pieces.md).
            The others want other numbers than SGD: adamw about schedule.base = 1e-4 and
            weight_decay = 0.01, lion 3e-5 and 0.1.
        betas: of adamw (0.9, 0.999) and lion (0.9, 0.99); () is those.
        layer_decay: rate of each layer of the backbone relative to the next one, 0..1: the first
            learn least. Source: 2003.10555 section 3.1.
        rates: learning rates of parts by name, relative, ``{"backbone.stem" = 0.1, head = 5}``.
        momentum: of the gradient; sgd.
        nesterov: look ahead along the momentum; sgd.
        weight_decay: on the weights of ordinary convolutions; never on depthwise ones, biases
            and batch norm. Source: train.py, slim's regularize_depthwise=False.
        bias_multiplier: learning rate of convolution biases, relative.
        head_multiplier: learning rate of everything after the backbone, relative
            (last_layer_gradient_multiplier).
        head_is_classifier: ``head_multiplier`` reaches the last convolution only
            (last_layers_contain_logits_only).
        frozen: parts that do not learn, as the network names them (``backbone.stem``,
            ``backbone.blocks.0``). Early layers are general, and most of the time is theirs.
        clip_norm: largest norm of the gradient; 0 does not clip.
        ema_decay: weight of the old value in a moving average of the weights, which then is
            what is validated and released; 0 keeps none.
        start_share: share of the starting weights in what is validated and released: fine-tuning
            forgets, and between its start and its end lie weights that know both. Source: WiSE-FT,
            2109.01903. 0 releases what was learned as it is.
    """

    name: str = "sgd"
    betas: Annotated[tuple[float, ...], Limits(0.0, 0.999999)] = ()
    layer_decay: Annotated[float, Limits(0.01, 1.0)] = 1.0
    rates: Annotated[dict[str, float], Limits(0.0, 1e6)] = field(default_factory=dict)
    momentum: Annotated[float, Limits(0.0, 0.9999)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Limits(0.0, 10.0)] = 4e-5
    bias_multiplier: Annotated[float, Limits(0.0, 1e6)] = 2.0
    head_multiplier: Annotated[float, Limits(0.0, 1e6)] = 1.0
    head_is_classifier: bool = False
    frozen: tuple[str, ...] = ()
    clip_norm: Annotated[float, Limits(0.0, 1e9)] = 0.0
    ema_decay: Annotated[float, Limits(0.0, 0.999999)] = 0.0
    start_share: Annotated[float, Limits(0.0, 0.9999)] = 0.0

    def __post_init__(self) -> None:
        known = ("sgd", "adamw", "lion")
        if self.name not in known and ":" not in self.name:
            raise InputError(
                f"optimiser.name: got '{self.name}', expected one of {', '.join(known)}, or one of "
                f"your own, FILE.py:NAME.{near_matches(self.name, known)}"
            )
        if self.name != "sgd" and (self.momentum, self.nesterov) != (0.9, False):
            raise InputError(
                f"optimiser.{'nesterov' if self.nesterov else 'momentum'}: is sgd's; {self.name} "
                "has none, leave it out."
            )
        if self.betas and (self.name not in ("adamw", "lion") or len(self.betas) != 2):
            raise InputError(
                f"optimiser.betas: got {list(self.betas)} for {self.name}, expected two numbers, "
                "for adamw or lion."
            )


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How long, how fast, how safe.

    Attributes:
        steps: optimiser steps; 0 judges and releases the start.
        batch_size: pictures per step, over all processes and parts together: the recipe means
            the same on any number of GPUs.
        accumulate: parts into which each process cuts its share, to save memory.
        seed: of weights, order, augmentation and dropout.
        device: ``auto``, ``cpu``, ``cuda``.
        precision: ``float32`` or ``bfloat16`` (autocast; weights stay float32).
        channels_last: memory order of images and weights.
        compile: run through ``torch.compile``.
        batch_norm: ``auto`` freezes below 12 pictures per statistic and synchronises over
            several GPUs; ``frozen``, ``train``.
        validate_every: steps between validations; 0 validates at the end only; ``auto`` is a
            tenth of the steps, from 10 to 1000.
        validate_frame: fit the pictures into ``data.frame`` at validation, as the exported file
            will, instead of showing them at their own size.
        validate_scales: of the pictures at validation.
        validate_flip: add mirrored pictures at validation.
        validate_output_stride: at validation, and of the released network: a network trained at
            16 is finer at 8, and slower. 0 is the trained one.
        validate_classes: names of the classes whose mean decides which weights are best; () is
            all. For data that hardly shows the others.
        save_every: steps between checkpoints; ``auto`` saves once a minute. Each validation saves
            too.
        patience: validations without improvement after which training stops; 0 never stops.
        track: who else keeps the numbers: ``wandb``, ``mlflow`` (extras of these names).
        log_every: steps between lines of history.csv; ``auto`` is a twentieth of the steps, from
            1 to 10.
    """

    steps: Annotated[int, Limits(0, 1e9)] = 30_000
    batch_size: Annotated[int, Limits(1, 65_536)] = 16
    accumulate: Annotated[int, Limits(1, 65_536)] = 1
    seed: Annotated[int, Limits(0, 2**63 - 1)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    batch_norm: Literal["auto", "frozen", "train"] = "auto"
    validate_every: Annotated[int | Literal["auto"], Limits(0, 1e9)] = "auto"
    validate_frame: bool = False
    validate_scales: Annotated[tuple[float, ...], Limits(0.1, 10.0)] = (1.0,)
    validate_flip: bool = False
    validate_output_stride: Annotated[int, Limits(0, 32)] = 0
    validate_classes: tuple[str, ...] = ()
    save_every: Annotated[int | Literal["auto"], Limits(1, 1e9)] = "auto"
    patience: Annotated[int, Limits(0, 1e9)] = 0
    track: tuple[Literal["wandb", "mlflow"], ...] = ()
    log_every: Annotated[int | Literal["auto"], Limits(1, 1e9)] = "auto"

    @property
    def validation_interval(self) -> int:
        """Steps between validations; 0 validates at the end only."""
        if self.validate_every == "auto":
            return min(max(self.steps // 10, 10), 1000)
        return self.validate_every

    @property
    def log_interval(self) -> int:
        """Steps between lines of the history."""
        return min(max(self.steps // 20, 1), 10) if self.log_every == "auto" else self.log_every


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole experiment; see the class of each part."""

    name: str
    """Of the network and its files; the recipe's own name where it is not given."""
    licence: str = ""
    """What the data and the starting weights allow; travels with the release pair."""
    model: Annotated[dict[str, Any], Limits(-65_536, 65_536)] = field(default_factory=dict)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    init: InitSettings = field(default_factory=InitSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    schedule: Schedule = field(default_factory=Schedule)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        if "num_classes" in self.model:
            raise InputError(
                "model.num_classes: follows from the data set's labels; remove it from the recipe."
            )
        if not self.name.strip(".") or set(self.name) & set("/\\\0") or len(self.name) > 100:
            raise InputError(
                f"name: got '{self.name[:110]}', expected a name for files: at most 100 "
                "characters, no '/'."
            )
        check_numbers(self)
        _check_shapes(self)
        if self.data.rare_classes and not self.data.rare_class_crops:
            raise InputError(
                f"data.rare_classes: got {', '.join(self.data.rare_classes)}, but no crops are "
                "laid over them; set data.rare_class_crops to a probability such as 0.5."
            )
        stride = self.loss.label_stride
        if stride < 1 or any((side - 1) % stride for side in self.data.crop_size):
            raise InputError(
                f"loss.label_stride: got {stride}, expected a divisor of the crop's sides less 1, "
                f"{' and '.join(str(side - 1) for side in self.data.crop_size)}: the corners stay."
            )
        kinds = typing.get_type_hints(DeepLabConfig)
        for name, value in self.model.items():
            if name in kinds and self.model.get("own") and name not in READ_BY_OWN:
                raise InputError(
                    f"model.{name}: is not read by a network of your own (model.own); leave it out."
                )
            if name in kinds:
                read_value(kinds[name], value, f"model.{name}")
        self.network(2)  # refuses unknown fields now rather than after reading the data

    def network(self, num_classes: int, **measured: Any) -> DeepLabConfig:
        """Return the configuration of the network for a number of classes.

        ``measured`` are fields that follow from the data; the recipe's own go before them.
        """
        return DeepLabConfig.from_dict({**measured, **self.model, "num_classes": num_classes})

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as values that TOML and JSON know."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from tables.

        Raises:
            InputError: an unknown name (with the near match) or a value of the wrong type.
        """
        return build(cls, values, meant=_elsewhere)


def read_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a TOML recipe; ``overrides`` are dotted names with values ("run.steps": 100).

    Raises:
        InputError: no such file, no TOML, or a setting that does not exist.
    """
    return Settings.from_dict(apply_overrides(read_tables(path), overrides or {}))


def read_tables(path: str | Path) -> dict[str, Any]:
    """Read the tables of a TOML recipe as they stand there; its name is the file's if need be.

    Raises:
        InputError: no such file, or no TOML.
    """
    path = Path(path)
    if not os.path.exists(path):  # unlike Path's, it takes a name of any length
        raise InputError(f"recipe: there is no file {path}.")
    text = read_text(path)
    try:
        values = parse_toml(text)
    except TOMLDecodeError as error:
        raise InputError(f"recipe: {path} is not TOML: {error}.") from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"recipe: {path} cannot be read: tables or numbers too long.") from error
    values.setdefault("name", path.stem)
    return values


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Set dotted names ("run.steps": 100) in nested tables, and return these."""
    for dotted, value in overrides.items():
        table = values
        *tables, name = dotted.split(".")
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise InputError(f"{dotted}: '{part}' is a value, not a table of settings.")
        table[name] = value
    return values


def write_toml(settings: Settings) -> str:
    """Return the settings as TOML that ``read_recipe`` reads back to the same."""
    tables: list[str] = []
    top = []
    for name, value in settings.to_dict().items():
        if isinstance(value, dict):
            lines = [f"{key} = {to_toml(item)}" for key, item in value.items()]
            tables.append("\n".join([f"[{name}]", *lines]))
        else:
            top.append(f"{name} = {to_toml(value)}")
    return "\n\n".join(["\n".join(top), *tables]) + "\n"


def _check_shapes(settings: Settings) -> None:
    """Refuse values that are right one by one and wrong together."""
    data, run, optimiser = settings.data, settings.run, settings.optimiser
    if len(data.resize_range) not in (0, 2, 3) or list(data.resize_range[:2]) != sorted(
        data.resize_range[:2]
    ):
        raise InputError(
            f"data.resize_range: got {list(data.resize_range)}, expected [shorter, longer] or "
            "[shorter, longer, factor]."
        )
    if len(data.frame) not in (0, 2):
        raise InputError(f"data.frame: got {list(data.frame)}, expected [height, width] or [].")
    if data.scale_range[0] > data.scale_range[1]:
        raise InputError(
            f"data.scale_range: got {list(data.scale_range)}, expected [smallest, largest]."
        )
    loss = settings.loss
    if run.accumulate > 1 and loss.over == "step" and loss.sums:
        raise InputError(
            f"run.accumulate: cuts a step into {run.accumulate} parts, but the sums of "
            f'{", ".join(loss.sums)} run over all of it; set loss.over = "picture", or leave '
            "accumulate out."
        )
    heard = {name for name, weight in loss.terms.items() if weight}
    if heard == {"boundary"} and not settings.teacher.path:
        raise InputError(
            "loss.terms: boundary alone does not say what a picture shows: along borders, and for "
            "classes that are not in it, every answer costs the same; put another term beside it: "
            "{dice = 1, boundary = 0.01}."
        )
    if run.batch_size < run.accumulate:
        raise InputError(
            f"run.accumulate: got {run.accumulate} parts of {run.batch_size} pictures, expected "
            "at most one part per picture."
        )
    if run.validate_output_stride not in (0, 4, 8, 16, 32):
        raise InputError(
            f"run.validate_output_stride: got {run.validate_output_stride}, expected 4, 8, 16, 32, "
            "or 0 for the trained one."
        )
    if not run.validate_scales:
        raise InputError("run.validate_scales: got none, expected at least one, like [1.0].")
    if run.validate_frame and (run.validate_scales != (1.0,) or run.validate_flip):
        raise InputError(
            "run.validate_frame: a frame is looked at once; leave validate_scales and "
            "validate_flip out."
        )
    rate = settings.schedule.base
    if optimiser.name in ("adamw", "lion") and rate == Schedule().base:
        raise InputError(
            f"schedule.base: got {rate}, the default, which is meant for sgd; {optimiser.name} "
            f"wants about {'1e-4' if optimiser.name == 'adamw' else '3e-5'}."
        )
    if optimiser.nesterov and not optimiser.momentum:
        raise InputError("optimiser.nesterov: looks ahead along a momentum; set one.")


def _elsewhere(name: str) -> str:
    """Say in which table a setting of that name stands."""
    tables = [
        f"{part.name}.{name}"
        for part in dataclasses.fields(Settings)
        if callable(part.default_factory)
        and dataclasses.is_dataclass(record := part.default_factory())
        and hasattr(record, name)
    ]
    return f" It is {' or '.join(tables)}." if tables else ""
