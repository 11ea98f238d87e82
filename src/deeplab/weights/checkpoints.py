"""What a training leaves behind, as one flat dictionary of tensors.

State dicts lie in all kinds of wrapping: under "model" or "state_dict", beside an optimiser, twice
with an average, inside a pickled module. All of that becomes dotted names, "model.backbone.conv1";
whatever stands before a network's own names is then a prefix, told by `state_dicts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from deeplab.errors import WeightsError
from deeplab.weights.pickles import Content, StandIn, StoredTensor, Value, read_array
from deeplab.weights.torch_file import in_one_line

_MOST = 200_000
"""Things to look at in one file; real ones have some thousands."""
_DEEPEST = 60


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a file by dotted name, and what else was there.

    Attributes:
        tensors: names and tensors, in the file's order.
        others: the keys of the outermost dictionary that hold no tensors.
        names: the names in the pickle that were not run (see `Content`).
        facts: the outermost dictionaries of texts and numbers, for what trainers note there.
    """

    tensors: Mapping[str, Value]
    others: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def flatten(content: Content) -> Checkpoint:
    """Return the tensors of what was unpickled under dotted names."""
    walk = _Walk()
    tensors = dict(walk.visit(content.value, "", 0))
    facts = {str(key): value for key, value in _items(content.value) if isinstance(key, str)}
    tops = {name.split(".", 1)[0] for name in tensors}
    others = tuple(key for key in facts if key.split(".", 1)[0] not in tops)
    return Checkpoint(tensors=tensors, others=others, names=content.names, facts=facts)


@dataclass
class _Walk:
    """Guards a walk through what a stranger wrote: against loops, depth and endless repetition."""

    seen: int = 0
    inside: set[int] = field(default_factory=set)

    def visit(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, Value]]:
        """Yield every tensor in ``value`` with its name."""
        self.seen += 1
        if self.seen > _MOST or depth > _DEEPEST or id(value) in self.inside:
            return
        if isinstance(value, torch.Tensor | StoredTensor):
            yield path, value
            return
        if (array := read_array(value)) is not None:
            yield path, array
            return
        self.inside.add(id(value))
        for key, item in _items(value):
            name = f"{path}.{key}" if path else str(key)
            yield from self.visit(item, name, depth + 1)
        self.inside.discard(id(value))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what is inside something: of a dictionary, a short list, a module, any object."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple) and len(value) <= 16:
        yield from enumerate(value)
    elif isinstance(value, StandIn):
        yield from value.entries.items()
        states = value.state if isinstance(value.state, tuple) else (value.state,)
        for state in states:
            if isinstance(state, Mapping):
                yield from _of_module(state) if "_parameters" in state else state.items()
        if value.state is None:  # built by a call: a wrapper's argument is what it wraps
            yield from enumerate(value.args)


def _of_module(state: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield parameters, buffers and parts of a pickled ``torch.nn.Module``, as its state dict."""
    passing = state.get("_non_persistent_buffers_set")
    passing = passing.args[0] if isinstance(passing, StandIn) and passing.args else passing
    for kind in ("_parameters", "_buffers", "_modules"):
        held = state.get(kind)
        for key, item in held.items() if isinstance(held, Mapping) else ():
            if kind == "_buffers" and isinstance(passing, set | list) and key in passing:
                continue
            yield key, item


def read_value(name: str, value: Value) -> torch.Tensor:
    """Return the values of a tensor, wherever they are.

    Raises:
        WeightsError: the file is damaged there.
    """
    try:
        return value.read() if isinstance(value, StoredTensor) else value.detach()
    except Exception as error:  # a file may be damaged where its values are
        raise WeightsError(
            f"state dict: the values of '{name}' cannot be read ({in_one_line(error)}); the file "
            "is cut off or damaged."
        ) from error


def read_weight(name: str, value: Value) -> torch.Tensor:
    """Return the values of a weight as float32.

    Raises:
        WeightsError: the file is damaged there, or the values are no weights.
    """
    found = read_value(name, value)
    if not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise WeightsError(
            f"state dict: '{name}' holds {kind}, expected floats. Give the network as it was "
            "before it was quantised or packed."
        )
    found = found.float()
    check_finite(name, found)
    return found


def check_finite(name: str, value: torch.Tensor) -> None:
    """Refuse a weight with values that are not finite in float32.

    Raises:
        WeightsError: there is one.
    """
    if not bool(torch.isfinite(value).all()):
        raise WeightsError(
            f"state dict: '{name}' holds values that are no finite numbers: the training that "
            "wrote it had gone wrong, or the file is damaged. Give an earlier checkpoint."
        )


# ----------------------------------------------------------------------------- what lies where

_AVERAGE = re.compile(r"(^|[._])(ema|avg|averaged?|averaging|swa|shadow|polyak)([._]|$)", re.I)
_TEACHER = re.compile(r"(^|[._])(teacher|momentum|target)([._]|$|_)", re.I)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Which of several sets of weights is taken: the smallest rank."""

    teacher: bool
    plain: bool
    depth: int
    place: int

    def key(self) -> tuple[bool, bool, int, int]:
        """Return what ranks are compared by."""
        return self.teacher, self.plain, self.depth, self.place


def is_average(checkpoint: Checkpoint, prefix: str) -> bool:
    """Return whether the weights under a prefix are an average over training steps.

    Source: torch.optim.swa_utils.AveragedModel (``n_averaged`` beside ``module.``); mmengine's
    EMAHook and Lightning's WeightAveraging, which put the average in ``state_dict`` and the plain
    weights under another name.
    """
    top = prefix.split(".", 1)[0]
    facts = checkpoint.facts
    if "current_model_state" in facts and top in ("state_dict", "current_model_state"):
        return top == "state_dict"
    if (
        "ema_state_dict" in facts
        and top in ("state_dict", "ema_state_dict")
        and _of_mmengine(facts)
    ):
        return top == "state_dict"
    parent = prefix.removesuffix("module.")
    count = checkpoint.tensors.get(f"{parent}n_averaged") if parent != prefix else None
    if count is not None:
        return bool(_number(count))
    return _AVERAGE.search(prefix) is not None


def rank(checkpoint: Checkpoint, prefix: str, place: int) -> Rank:
    """Return the rank of the weights under a prefix; averages go first, a teacher last."""
    return Rank(
        teacher=_TEACHER.search(prefix) is not None,
        plain=not is_average(checkpoint, prefix),
        depth=prefix.count("."),
        place=place,
    )


def list_beside(checkpoint: Checkpoint, prefixes: list[str]) -> tuple[str, ...]:
    """Return what lies beside the networks under these prefixes, many of one kind as one."""
    groups: dict[str, list[str]] = {}
    for name in checkpoint.tensors:
        if any(name.startswith(prefix) for prefix in prefixes):
            continue
        # As deep as the wrapping that it shares with a network, and one name more.
        shared = max((_shared(name, prefix) for prefix in prefixes), default=0)
        head = ".".join(name.split(".")[: shared + 1])
        groups.setdefault(head, []).append(name)
    shown = [
        _strip(names[0], prefixes)
        if len(names) == 1
        else f"{_strip(head, prefixes)}.* ({len(names)})"
        for head, names in groups.items()
    ]
    return (*shown, *checkpoint.others)


def _shared(name: str, prefix: str) -> int:
    count = 0
    for ours, theirs in zip(name.split("."), prefix.split("."), strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _strip(name: str, prefixes: list[str]) -> str:
    """Take "state_dict." off a name, where the network lies under it too."""
    top = name.split(".", 1)[0] + "."
    inside = "." in name and all(prefix.startswith(top) for prefix in prefixes)
    return name.removeprefix(top) if inside and prefixes else name


def _of_mmengine(facts: Mapping[str, Any]) -> bool:
    meta = facts.get("meta")
    return isinstance(meta, Mapping) and "mmengine_version" in meta


def _number(value: Value) -> float:
    try:
        tensor = value.read() if isinstance(value, StoredTensor) else value
        return float(tensor)
    except (ValueError, RuntimeError, TypeError):
        return 1.0
