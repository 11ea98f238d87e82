"""What the numbers mean that a network file takes and gives, whatever its format.

Segmentation networks of the world answer in four ways: logits of K classes, their probabilities
(softmax or sigmoid inside), one channel that says object or not, or class ids. Channels come first
or last, and beside the answer there may be others, of auxiliary heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError, near_matches
from deeplab.labels import LabelSet
from deeplab.runtimes.network import Float32, UInt8
from deeplab.runtimes.network_card import Output

Shape = Sequence[int | None]
"""Of a tensor; None where the file leaves a side open."""

MOST_CLASSES = 256
"""Masks are bytes."""

BINARY = LabelSet(("background", "object"))
"""The classes of a network with one channel, where nobody names them."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file says of its input or of one of its outputs.

    Attributes:
        shape: one entry per axis.
        type: numpy's name of the number type; "" where it does not matter.
        name: in the file; "" where it has none.
    """

    shape: Shape
    type: str = ""
    name: str = ""

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.type} [{sides}]".lstrip()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a fetched tensor becomes logits or a label map.

    Attributes:
        output: "logits" (or probabilities), or "label map".
        channels_first: [1, K, h, w] instead of [1, h, w, K].
        one_channel: a single number says object or background, above or below the half.
        softmaxed: the numbers are probabilities already.
    """

    output: Output
    channels_first: bool = False
    one_channel: bool = False
    softmaxed: bool = False

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (rows, columns) of an output of this shape."""
        return shape[2:4] if self.channels_first and len(shape) == 4 else shape[1:3]

    def read(self, fetched: npt.NDArray[Any]) -> Float32 | UInt8:
        """Return real numbers [1, …] as (h, w, K) float32 values or a (h, w) uint8 label map.

        A label map's ids beyond 255 become 255, which no label set has.
        """
        first = fetched[0]
        if self.output == "label map":
            if first.ndim == 3:  # with one channel
                first = first[0] if self.channels_first else first[:, :, 0]
            label_map: UInt8 = first
            if first.dtype != np.uint8:
                label_map = np.where((first < 0) | (first > 255), 255, first).astype(np.uint8)
            return label_map
        if first.ndim == 2:
            first = first[:, :, None]
        elif self.channels_first:
            first = first.transpose(1, 2, 0)
        grid: Float32 = np.ascontiguousarray(first, np.float32)
        if self.one_channel:
            other = 1 - grid if self.softmaxed else np.zeros_like(grid)
            grid = np.concatenate([other, grid], axis=2)
        return grid


def choose_output(
    file: str,
    outputs: Sequence[TensorInfo],
    *,
    fits: Callable[[int], bool],
    asked: str | None = None,
) -> tuple[int, dict[str, str]]:
    """Return which output is the answer, and what was assumed in choosing it.

    Args:
        file: its name, for messages.
        outputs: of the file, in its order.
        fits: whether the one of that number has the shape and type of an answer.
        asked: the name of the one to take.

    Raises:
        InputError: no output is called ``asked``.
        ModelError: none fits.
    """
    names = [output.name for output in outputs]
    if asked is not None:
        if asked not in names:
            raise InputError(
                f"output_name: {file} has no output '{asked}'.{near_matches(asked, names)} It has: "
                f"{', '.join(names)}."
            )
        fitting = [names.index(asked)]
    else:
        fitting = [index for index in range(len(outputs)) if fits(index)]
        # The main head comes first in what torchvision and Keras write, but names are surer.
        fitting.sort(key=lambda index: "aux" in names[index].lower())
    if not fitting or not fits(fitting[0]):
        raise ModelError(
            f"{file}: is not a DeepLab: its output is {', '.join(map(str, outputs))}, expected "
            f"logits of up to {MOST_CLASSES} classes or a label map [1, height, width]."
        )
    chosen = fitting[0]
    if len(outputs) == 1 or asked is not None:
        return chosen, {}
    rest = ", ".join(f"'{name}'" for index, name in enumerate(names) if index != chosen)
    words = f"output '{names[chosen]}' of several (--output-name takes {rest})"
    return chosen, {"output": words}


def choose_size(
    file: str,
    sides: tuple[int | None, int | None],
    *,
    known: tuple[int, int] | None,
    asked: tuple[int, int] | None,
) -> tuple[int, int]:
    """Return the (height, width) of the frame: the file's own, or where it takes any, one of those.

    Args:
        file: its name, for messages.
        sides: (height, width) of its input; None where it takes any.
        known: what is known of it elsewhere.
        asked: what the caller asks for.

    Raises:
        InputError: it has another size than was asked for; or nobody knows one.
    """
    height, width = (
        fixed or (asked[axis] if asked else 0) or (known[axis] if known else 0)
        for axis, fixed in enumerate(sides)
    )
    if asked is not None and asked != (height, width):
        raise InputError(
            f"size: got {asked[0]}×{asked[1]}, but {file} takes {height}×{width} only; export it "
            "at that size (only a release pair and files of any size run at others)."
        )
    if not height or not width:
        raise InputError(
            f"size: {file} takes pictures of any size and does not say of which; pass "
            "size=(513, 513) (--size 513) or what it was trained at."
        )
    return height, width


def is_aligned(frame: tuple[int, int], grid: Shape) -> bool:
    """Return whether a grid's steps are a power of two of its frame's, corner on corner.

    The original's frames are k * output stride + 1. All other grids lie with their edges on the
    frame's edges.
    """
    return all(
        side is not None
        and side > 1
        and (length - 1) % (side - 1) == 0
        and ((length - 1) // (side - 1)).bit_count() == 1
        for length, side in zip(frame, grid, strict=True)
    )


def name_two(file: str, labels: LabelSet | None) -> tuple[LabelSet, dict[str, str]]:
    """Return the two classes of a network with one channel, and what was assumed.

    One name is the object's; of two the second is.

    Raises:
        InputError: there are more names.
    """
    if labels is None:
        return BINARY, {"labels": "classes background and object (--labels names them)"}
    if len(labels) == 1:
        return LabelSet(("background", labels.names[0])), {}
    if len(labels) == 2:
        return labels, {}
    raise InputError(
        f"labels: got {len(labels)} names, but {file} has one channel, so two classes: background "
        "and object. Name the object, or both."
    )


def check_count(file: str, labels: LabelSet | None, num_classes: int | None) -> None:
    """Refuse labels whose count is not the network's.

    Raises:
        InputError: it is another.
    """
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise InputError(
            f"labels: got {len(labels)} names, but {file} tells {num_classes} classes apart."
        )


def last_line(error: Exception) -> str:
    """Return what an engine says went wrong, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
