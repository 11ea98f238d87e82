"""A float32 TFLite model in fewer bits: what is done to it, in which order.

The steps are in :mod:`deeplab.export.quantise`; which layers stay float, in
:mod:`deeplab.export.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from deeplab.errors import InputError, near_matches
from deeplab.export import calibration
from deeplab.export.plan import Plan
from deeplab.export.quantise import (
    Float32,
    copy_biases,
    correct_biases,
    equalise,
    halve_weights,
    keep_sums,
    list_layers,
    measure_ranges,
    quantise,
    shrink_weights,
)
from deeplab.export.sensitivity import find_sensitive
from deeplab.tflite.edit import GraphEdit
from deeplab.tflite.file import Operator, TfliteFile, parse

_FRAMES_FOR_BIASES = 10
"""Means over a whole photo hardly vary; more frames change nothing that can be measured."""


def to_float16(content: bytes, plan: Plan) -> bytes:
    """Return a float32 model with its weights in float16, the shifts of its means taken out."""
    frames = list(calibration.frames(plan))
    return correct_biases(content, halve_weights(content), spread(frames))


def to_dynamic(content: bytes, plan: Plan) -> bytes:
    """Return a float32 model with its weights in int8, the shifts of its means taken out."""
    frames = list(calibration.frames(plan))
    return correct_biases(content, shrink_weights(content), spread(frames))


def to_int8(content: bytes, plan: Plan) -> tuple[bytes, tuple[str, ...]]:
    """Return a float32 TFLite model in int8, and the names of the layers that stayed float.

    Raises:
        InputError: ``keep_float`` names a layer that is not there.
    """
    frames = list(calibration.frames(plan))
    content = equalise(content, frames)
    ranges = measure_ranges(content, frames, spec=plan.card.spec)
    if plan.keep_float == "auto":
        kept = find_sensitive(content, ranges, spread(frames), labels=plan.card.classes)
    else:
        kept = tuple(plan.keep_float)
        _check_layers(content, kept)
    small = keep_sums(content, quantise(content, ranges, keep_float=kept, integer_io=False))
    small = correct_biases(content, small, spread(frames))
    if plan.integer_io:
        bare = keep_sums(content, quantise(content, ranges, keep_float=kept, integer_io=True))
        small = copy_biases(small, bare)
    return _tidy(parse(small)), kept


def spread(frames: Sequence[Float32], count: int = _FRAMES_FOR_BIASES) -> Sequence[Float32]:
    """Return some of the frames, evenly spread."""
    return frames[:: -(-len(frames) // count)]


def _check_layers(content: bytes, names: Collection[str]) -> None:
    """Refuse names that no layer has.

    Raises:
        InputError: with near matches.
    """
    known = list_layers(content)
    for name in names:
        if name not in known:
            raise InputError(
                f"keep_float: there is no layer '{name}'.{near_matches(name, known)} "
                f"The layers are {known[0]} to {known[-1]}."
            )


def _tidy(file: TfliteFile) -> bytes:
    """Return the model with fewer steps between real numbers and integers, the results the same.

    The argmax is over integers, as their order is that of the real numbers; and what is mirrored
    is integers, a quarter of the bytes.
    """
    edit = GraphEdit(file)
    for step in file.operators:
        readers = file.consumers(step.outputs[0])
        if step.name == "DEQUANTIZE" and readers and {r.name for r in readers} == {"ARG_MAX"}:
            edit.drop(step.index)
        if step.name == "REVERSE_V2" and [reader.name for reader in readers] == ["QUANTIZE"]:
            (after,) = readers
            twins = [i for i in _integers(file, step) if _alike(file, i, after.outputs[0])]
            if twins:
                turned = edit.make_step("REVERSE_V2", [twins[0], step.inputs[1]], after.outputs)
                edit.replace(after.index, [turned])
    return edit.finish(file.outputs[0])


def _integers(file: TfliteFile, step: Operator) -> list[int]:
    """Return the integer tensors that what a step takes was made of, or made into before it."""
    before = file.producer(step.inputs[0])
    found = [before.inputs[0]] if before is not None and before.name == "DEQUANTIZE" else []
    readers = file.consumers(step.inputs[0])
    return found + [op.outputs[0] for op in readers[: readers.index(step)] if op.name == "QUANTIZE"]


def _alike(file: TfliteFile, one: int, other: int) -> bool:
    """Return whether the integers of two tensors stand for the same real numbers."""
    first, second = file.tensors[one].quantization, file.tensors[other].quantization
    assert first is not None
    assert second is not None
    return bool(
        (first.scale == second.scale).all() and (first.zero_point == second.zero_point).all()
    )
