"""Make a foreign DeepLab ``.tflite`` faster without changing what it computes.

Three things can go. What lies behind the logits: the exact mask is made from their small grid.
Resizes to the same size. And most of the work on the pooled image: where its map is one cell, it
is spread over the whole map only to be joined to the other features and projected with them; a 1×1
convolution of joined channels is the sum of the convolutions of the parts, so the pooled part is
projected once, as one cell, and added. Only the order in which floating point sums are taken
changes. Where any of this is not certain, the graph stays as it is, and the reason is told.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError
from deeplab.tflite.edit import GraphEdit, cut
from deeplab.tflite.file import Operator, Tensor, TfliteFile

_RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
_SPREADS = (*_RESIZES, "TILE", "BROADCAST_TO")
"""Steps that make every cell of a map the same where their input is one cell."""

RECORD = "deeplab_optimised"
"""The metadata entry of the :class:`Record`."""

_MOST_BYTES = 2**31 - 2**20

_ACTIVATIONS = (0, 1, 2, 3)
"""None, ReLU, ReLU -1..1, ReLU6: what an addition can do on the way, as a convolution can."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was done to a file, kept in its metadata.

    Attributes:
        changes: a line each, see :class:`Optimisation`.
        align_corners: how the logits lie on the frame; None where no resize was dropped.
        source: sha256 of the file it was made from.
    """

    changes: tuple[str, ...]
    align_corners: bool | None
    source: str

    def to_json(self) -> str:
        """Return the record as one line."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def read_record(file: TfliteFile) -> Record | None:
    """Return what was done to a file; None where nothing is written of it.

    Raises:
        ModelError: the record is damaged.
    """
    stored = file.entries.get(RECORD)
    if stored is None:
        return None
    try:
        values = json.loads(stored)
        changes = tuple(str(change) for change in values["changes"])
        corners = values["align_corners"]
        if corners not in (True, False, None):
            raise ValueError(f"align_corners is {corners!r}")
        return Record(changes=changes, align_corners=corners, source=str(values["source"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file.name}: the record in its metadata is damaged ({error}).") from None


@dataclass(frozen=True)
class _Pooling:
    """A projection of joined features, some of which are the same in every cell.

    Attributes:
        join: the concatenation.
        project: the 1×1 convolution behind it.
        cells: per joined part the one-cell tensor that is spread out; None for a true map.
        weights: (channels out, 1, 1, channels in) float32 of ``project``.
        stored: as what its file stores them, "FLOAT32" or "FLOAT16".
    """

    join: Operator
    project: Operator
    cells: tuple[Tensor | None, ...]
    weights: npt.NDArray[np.float32]
    stored: str


class Optimisation:
    """What can be left out of a file, and what must stay; nothing is changed yet.

    Args:
        file: the file.
        output: the tensor to give, see :func:`deeplab.runtimes.tflite_network.understand`; None
            keeps the file's own.

    Attributes:
        changes: what will change, a line each; empty where the file is as fast as it can be.
        left: what looks like more, and why it stays.
        macs: multiply-adds that are saved.
    """

    def __init__(self, file: TfliteFile, output: int | None = None) -> None:
        self._file = file
        self._output = file.outputs[0] if output is None else output
        steps = _needed(file, self._output)
        self._behind = [step for step in _needed(file, file.outputs[0]) if step not in steps]
        self._poolings: list[_Pooling] = []
        self.left: tuple[str, ...] = ()
        if len(file.data) > _MOST_BYTES:
            self.left = ("files above 2 GB cannot be written again in one piece",)
            steps = []
        self._idle = [step for step in steps if _is_idle(file, step)]
        if steps and _has_own_corners(steps[-1]):
            words = _describe(file, steps[-1])
            self.left = (f"{words} stays: it follows neither convention of corners",)
        for step in steps:
            if step.name == "CONCATENATION":
                found = _find_pooling(file, step, self._output)
                if isinstance(found, str):
                    self.left += (found,)
                elif found:
                    self._poolings.append(found)
        self.macs = sum(_saved(file, pooling) for pooling in self._poolings)
        self.changes = tuple(self._tell())

    def apply(
        self,
        *,
        entries: Mapping[str, bytes] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> bytes:
        """Return the changed file.

        Args:
            entries: metadata entries to set, by name.
            files: to pack behind the model, by name.

        Raises:
            ModelError: the file is damaged.
        """
        file = self._file
        is_alone = len(file.outputs) == 1
        if is_alone and not (self._idle or self._poolings or entries or files):
            return file.data if self._output == file.outputs[0] else cut(file, self._output)
        edit = GraphEdit(file)
        for step in self._idle:
            edit.drop(step.index)
        for pooling in self._poolings:
            edit.replace(pooling.project.index, _project_apart(file, edit, pooling))
        for name, content in (entries or {}).items():
            edit.set_entry(name, content)
        for name, content in (files or {}).items():
            edit.add_file(name, content)
        return edit.finish(self._output)

    def _tell(self) -> Iterator[str]:
        if self._behind:
            steps = ", ".join(_describe(self._file, step) for step in self._behind)
            yield f"dropped what lies behind the logits: {steps}"
        for step in self._idle:
            yield f"dropped a resize that does nothing: {_describe(self._file, step)}"
        for pooling in self._poolings:
            name = _name(self._file.tensors[pooling.project.outputs[0]])
            saved = _saved(self._file, pooling) / 1e6
            yield f"folded the pooled image into {name}: {saved:.1f} million multiply-adds less"


def _needed(file: TfliteFile, output: int) -> list[Operator]:
    """Return the steps that ``output`` needs, in order."""
    wanted, steps = {output}, []
    for step in reversed(file.operators):
        if wanted & {*step.outputs}:
            wanted |= {*step.inputs}
            steps.append(step)
    return steps[::-1]


def _is_idle(file: TfliteFile, step: Operator) -> bool:
    """Return whether a step is a resize whose output is its input, number for number."""
    if step.name not in _RESIZES:
        return False
    source, target = (file.tensors[i] for i in (step.inputs[0], step.outputs[0]))
    floats = source.type == target.type == "FLOAT32"
    return floats and source.shape == target.shape and step.inputs[0] not in file.inputs


def _has_own_corners(step: Operator) -> bool:
    """Return whether a step is a resize of neither kind that the mask can be made with."""
    corners = (step.options.get("align_corners"), step.options.get("half_pixel_centers"))
    return step.name == "RESIZE_BILINEAR" and not any(corners)


def _find_pooling(file: TfliteFile, join: Operator, output: int) -> _Pooling | str | None:
    """Return what can be folded behind a concatenation; words where it nearly can; else None."""
    if not _fits(file, join):
        return None
    joined = file.tensors[join.outputs[0]]
    sources = [_spread_source(file, i) for i in join.inputs]
    if not any(sources):
        return None
    readers = file.consumers(joined.index)
    project = readers[0] if readers else None
    name = _name(file.tensors[project.outputs[0]] if project else joined)
    stays = f"the pooled image stays where it is joined for {name}:"
    if joined.type != "FLOAT32":
        return f"{stays} integer arithmetic rounds after every step, so another order changes it"
    small = [source for source in sources if source]
    if any(source.shape[1:3] != (1, 1) for source in small):
        size = "×".join(map(str, max(source.shape[1:3] for source in small)))
        return f"{stays} its map is {size}, so the window does not cover the whole"
    if len(small) == len(sources):
        return None
    options = join.options
    if options.get("axis") not in (3, -1) or options.get("fused_activation_function"):
        return f"{stays} the features are not joined by channels alone"
    if project is None or len(readers) > 1 or joined.index == output:
        return f"{stays} the joined features are read at several places"
    found = _read_projection(file, project, joined)
    if isinstance(found, str):
        return f"{stays} {found}"
    weights, stored = found
    return _Pooling(join, project, tuple(sources), weights, stored)


def _fits(file: TfliteFile, join: Operator) -> bool:
    """Return whether the channels of four-dimensional maps add up to those of what is made."""
    shapes = [file.tensors[i].shape for i in (*join.inputs, join.outputs[0])]
    if any(len(shape) != 4 for shape in shapes):
        return False
    return sum(shape[3] for shape in shapes[:-1]) == shapes[-1][3]


def _read_projection(
    file: TfliteFile, project: Operator, joined: Tensor
) -> tuple[npt.NDArray[np.float32], str] | str:
    """Return the weights of a 1×1 convolution and their type in the file, or why there are none."""
    options = project.options
    strides = {options.get("stride_w"), options.get("stride_h")}
    if project.name != "CONV_2D" or project.inputs[0] != joined.index or strides != {1}:
        return f"{project.name} behind it is no plain convolution"
    if options.get("fused_activation_function") not in _ACTIVATIONS:
        return "the convolution behind it ends in an activation that an addition does not know"
    stored = file.tensors[project.inputs[1]]
    step = file.producer(stored.index)
    if step is not None and step.name == "DEQUANTIZE":
        stored = file.tensors[step.inputs[0]]
    if not stored.is_constant or stored.type not in ("FLOAT32", "FLOAT16"):
        return "the weights behind it are not stored as floating point numbers"
    values = stored.values
    if values.ndim != 4 or values.shape[1:] != (1, 1, joined.shape[3]):
        return f"the convolution behind it looks at {values.shape[1:3]} cells"
    if file.tensors[project.outputs[0]].shape != (*joined.shape[:3], len(values)):
        return "the convolution behind it does not say the size of what it makes"
    return values.astype(np.float32), stored.type


def _spread_source(file: TfliteFile, tensor: int) -> Tensor | None:
    """Return the smaller map that is spread out to ``tensor``; None where it is a map itself."""
    target = source = file.tensors[tensor]
    while True:
        step = file.producer(source.index)
        if step is None or step.name not in (*_SPREADS, "QUANTIZE"):
            break
        before = file.tensors[step.inputs[0]]
        if len(before.shape) != 4 or (before.shape[0], before.shape[3]) != (
            target.shape[0],
            target.shape[3],
        ):
            break
        source = before
    # A resize from any other size belongs to a decoder, unless the small map was pooled.
    if source.shape == target.shape or not _was_pooled(file, source):
        return None
    return source


def _was_pooled(file: TfliteFile, tensor: Tensor) -> bool:
    """Return whether a map is one cell, or comes from a pooling through 1×1 convolutions."""
    step = file.producer(tensor.index)
    while tensor.shape[1:3] != (1, 1):
        if step is None or step.name not in ("CONV_2D", "AVERAGE_POOL_2D"):
            return False
        if step.name == "AVERAGE_POOL_2D":
            return True
        step = file.producer(step.inputs[0])
    return True


def _saved(file: TfliteFile, pooling: _Pooling) -> int:
    """Return the multiply-adds that the projection saves."""
    _, height, width, _ = file.tensors[pooling.project.outputs[0]].shape
    pooled = sum(cell.shape[3] for cell in pooling.cells if cell)
    return (height * width - 1) * pooled * len(pooling.weights)


def _project_apart(file: TfliteFile, edit: GraphEdit, pooling: _Pooling) -> list[Any]:
    """Return the steps that project the pooled cell and the maps apart and add the two."""
    project, join, cells = pooling.project, pooling.join, pooling.cells
    result = file.tensors[project.outputs[0]]
    joined = [file.tensors[i] for i in join.inputs]
    parts = np.split(pooling.weights, np.cumsum([t.shape[3] for t in joined])[:-1], axis=3)
    batch, _, _, channels = result.shape
    convolution = {**project.options, "fused_activation_function": 0}
    steps: list[Any] = []

    def project_some(part: str, maps: list[Tensor], weights: npt.NDArray[Any], bias: int) -> int:
        """Join maps of one size and project them; return the tensor's number."""
        size, source = maps[0].shape[1:3], maps[0].index
        name = f"{_name(result)}/{part}"
        if len(maps) > 1:
            source = edit.add_tensor(f"{name}/joined", (batch, *size, weights.shape[3]))
            inputs = [tensor.index for tensor in maps]
            steps.append(edit.make_step("CONCATENATION", inputs, [source], **join.options))
        kernel = edit.add_constant(f"{name}/weights", weights, type=pooling.stored)
        if pooling.stored != "FLOAT32":
            narrow, kernel = kernel, edit.add_tensor(f"{name}/wide_weights", weights.shape)
            steps.append(edit.make_step("DEQUANTIZE", [narrow], [kernel]))
        target = edit.add_tensor(name, (batch, *size, channels))
        inputs = [source, kernel, bias]
        steps.append(edit.make_step("CONV_2D", inputs, [target], **convolution))
        return target

    own_bias = project.inputs[2] if len(project.inputs) > 2 else -1
    no_bias = edit.add_constant(f"{_name(result)}/zero", np.zeros(channels, np.float32))
    pooled = project_some(
        "pooled",
        [cell for cell in cells if cell],
        np.concatenate([w for w, cell in zip(parts, cells, strict=True) if cell], axis=3),
        own_bias if own_bias >= 0 else no_bias,
    )
    maps = project_some(
        "maps",
        [tensor for tensor, cell in zip(joined, cells, strict=True) if not cell],
        np.concatenate([w for w, cell in zip(parts, cells, strict=True) if not cell], axis=3),
        no_bias,
    )
    activation = {"fused_activation_function": project.options.get("fused_activation_function", 0)}
    return [*steps, edit.make_step("ADD", [maps, pooled], [result.index], **activation)]


def _name(tensor: Tensor) -> str:
    """Return the first of the names that a converter gives a tensor made of several."""
    return tensor.name.split(";")[0]


def _describe(file: TfliteFile, step: Operator) -> str:
    """Return a step in words: "RESIZE_BILINEAR 33×33 to 257×257"."""
    sizes = [_size(file.tensors[i].shape) for i in (step.inputs[0], step.outputs[0])]
    return f"{step.name} {sizes[0]}" + (f" to {sizes[1]}" if sizes[1] != sizes[0] else "")


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[1:3])) if len(shape) > 2 else str(math.prod(shape))
