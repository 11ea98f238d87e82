"""Cut a graph at its image pooling: what is averaged over the whole frame comes out, or goes in.

A DeepLab sums up its frame in one step, the mean over all rows and columns, and tells it every
point. Of a picture that is looked at in windows, that mean is to be the picture's, not the
window's: one half of the graph gives what is averaged, the other takes an average.
"""

from __future__ import annotations

from dataclasses import dataclass

from deeplab.errors import ModelError
from deeplab.tflite.edit import GraphEdit
from deeplab.tflite.file import Operator, TfliteFile


@dataclass(frozen=True)
class Pooling:
    """A mean over the whole frame: numbers of the tensors that it averages and gives."""

    averaged: int
    pooled: int


def find_poolings(file: TfliteFile) -> tuple[Pooling, ...]:
    """Return the means over the whole frame that no other such mean depends on.

    One in every DeepLab with image pooling, two where it looks at the mirrored photo, too. Means
    inside the backbone (squeeze and excitation) come before that of the head, and stay the
    window's.
    """
    found = [step for step in file.operators if _is_pooling(file, step)]
    last = []
    for step in found:
        behind = {*step.outputs}
        for later in file.operators[step.index + 1 :]:
            if behind & {*later.inputs}:
                behind |= {*later.outputs}
        if not any(other.inputs[0] in behind for other in found if other is not step):
            last.append(Pooling(step.inputs[0], step.outputs[0]))
    return tuple(last)


def split(file: TfliteFile, poolings: tuple[Pooling, ...]) -> tuple[bytes, bytes]:
    """Return the graph up to the poolings, and the graph that is given their answers.

    Returns:
        The first file's outputs are what is averaged; the second's inputs are the picture, then
        the averages, in the order of ``poolings``, its output is the file's own.

    Raises:
        ModelError: the file has several outputs, or is damaged.
    """
    if len(file.outputs) != 1:
        raise ModelError(f"{file.name}: has {len(file.outputs)} outputs, expected one.")
    before, after = GraphEdit(file), GraphEdit(file)
    for pooling in poolings:
        after.add_input(pooling.pooled)
    return (
        before.finish(*(pooling.averaged for pooling in poolings)),
        after.finish(file.outputs[0]),
    )


def _is_pooling(file: TfliteFile, step: Operator) -> bool:
    """Whether a step averages (1, h, w, C) over all rows and columns, and nothing else."""
    if not step.inputs or len(file.tensors[step.inputs[0]].shape) != 4:
        return False
    _, height, width, _ = file.tensors[step.inputs[0]].shape
    if step.name == "MEAN":
        axes = file.tensors[step.inputs[1]]
        return axes.is_constant and sorted(axes.values.ravel().tolist()) in ([1, 2], [-3, -2])
    if step.name == "AVERAGE_POOL_2D":
        window = step.options.get("filter_height"), step.options.get("filter_width")
        return window == (height, width) and file.tensors[step.outputs[0]].shape[1:3] == (1, 1)
    return False
