"""Tables to records: every name and type is checked, and what is wrong is told with the way out."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from deeplab.errors import InputError, near_matches

Record = TypeVar("Record")


def build(
    cls: type[Record],
    values: Mapping[str, Any],
    where: str = "",
    *,
    meant: Callable[[str], str] = lambda name: "",
) -> Record:
    """Build a dataclass from a table, checking each name and type.

    Args:
        cls: the record.
        values: its fields by name; tables inside become records inside.
        where: what stands before the names in messages.
        meant: says what an unknown name may be, where nothing else does.

    Raises:
        InputError: an unknown name, a value of the wrong type, or a field that is missing.
    """
    kinds = typing.get_type_hints(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        dotted = f"{where}{name}"
        if name not in kinds:
            way_out = hint(name) or near_matches(name, kinds) or meant(name)
            raise InputError(
                f"{dotted}: unknown setting.{way_out} Known here: {', '.join(kinds)}; "
                "`deeplab train --settings WORD` looks through all."
            )
        made[name] = read_value(kinds[name], value, dotted, meant=meant)
    missing = [
        entry.name
        for entry in dataclasses.fields(cls)  # type: ignore[arg-type]
        if entry.name not in made
        and entry.default is dataclasses.MISSING
        and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}{missing[0]}: is missing; every recipe has one.")
    return cls(**made)


_OTHER_NAMES = {
    "schedule.base": ("lr", "learning_rate", "rate", "lr0"),
    "run.steps": ("epochs", "epoch", "num_epochs", "max_epochs", "iterations", "max_iters"),
    "run.batch_size": ("batch", "bs", "samples_per_gpu"),
    "run.accumulate": ("gradient_accumulation", "grad_accum", "accumulate_grad_batches"),
    "run.precision": ("amp", "fp16", "half", "mixed_precision"),
    "schedule.policy": ("scheduler", "lr_scheduler", "lr_policy"),
    "schedule.start_steps": ("warmup", "warmup_steps", "warmup_epochs"),
    "optimiser.name": ("optimizer", "optim", "solver", "adam", "adamw", "lion"),
    "loss.terms": ("losses", "criterion", "loss_type", "dice", "focal", "lovasz", "tversky"),
    "optimiser.weight_decay": ("wd", "decay"),
    "optimiser.clip_norm": ("grad_clip", "clip", "gradient_clip_val"),
    "optimiser.ema_decay": ("ema",),
    "optimiser.frozen": ("freeze",),
    "data.crop_size": ("crop", "size", "imgsz", "image_size", "img_size", "input_size"),
    "data.workers": ("num_workers",),
    "data.path": ("dataset", "root"),
    "data.flip": ("hflip", "fliplr", "mirror"),
    "init.path": ("pretrained", "weights", "checkpoint", "init"),
    "model.backbone": ("encoder", "backbone", "arch"),
    "run.device": ("gpu", "gpus", "accelerator"),
    "run.patience": ("early_stopping",),
    "run.validate_every": ("eval_every", "val_interval", "save_period"),
}


def hint(name: str) -> str:
    """Return what somebody means who comes from elsewhere: `` lr`` is schedule.base."""
    for ours, theirs in _OTHER_NAMES.items():
        if name.lower().replace("-", "_") in theirs:
            more = ""
            if ours == "run.steps" and "epoch" in name:
                more = " (an epoch is pictures / run.batch_size steps)"
            return f" {ours} is it here{more}."
    return ""


def read_value(
    kind: Any, value: Any, where: str, *, meant: Callable[[str], str] = lambda name: ""
) -> Any:
    """Return ``value`` as the annotated kind, or say what was expected."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return build(typing.cast("type[Any]", kind), value, f"{where}.", meant=meant)
    if origin is Literal:
        # True == 1, but no setting means that.
        if any(type(value) is type(one) and value == one for one in arguments):
            return value
        near = near_matches(value, arguments) if isinstance(value, str) else ""
        raise InputError(f"{where}: got {value!r}, expected one of {arguments}.{near}")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(read_value(k, v, where) for k, v in zip(kinds, value, strict=True))
    elif origin in (types.UnionType, typing.Union):
        for one in arguments:
            with contextlib.suppress(InputError):
                return read_value(one, value, where)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _as_float(value, where)
    elif origin is dict and isinstance(value, Mapping):
        if arguments[1] is Any:
            return dict(value)
        return {
            name: read_value(arguments[1], item, f"{where}.{name}") for name, item in value.items()
        }
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise InputError(f"{where}: got {value!r}, expected {describe_kind(kind)}.")


def _as_float(value: float, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{where}: got a number of {len(str(value))} digits.") from None


def describe_kind(kind: Any) -> str:
    """Return an annotation in words: ``"int or 'auto'"``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(repr(one) for one in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe_kind(one) for one in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {describe_kind(arguments[0])}"
        return f"[{', '.join(describe_kind(one) for one in arguments)}]"
    if origin is dict:
        return "a table by name" if arguments[1] is Any else f"{{name = {arguments[1].__name__}}}"
    words = {"NoneType": "none", "CellBranch": "{rate, input, kernel}", "str": "text"}
    name = str(getattr(kind, "__name__", kind))
    return words.get(name, name)
