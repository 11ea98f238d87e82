"""Find the layers that lose the most in int8, so that they can stay float."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from deeplab.export.quantise import Float32, Ranges, correct_biases, list_layers, quantise
from deeplab.labels import LabelSet

TARGET = 0.99
"""Same-class foreground IoU against the float model that is looked for."""

_FRAMES = 4
_LARGEST_SHARE = 0.25
"""More float layers than this would leave little of what int8 is for."""

_WORTH = 0.9
"""More layers must bring the logits this much nearer: times their distance before."""


def find_sensitive(
    content: bytes, ranges: Ranges, frames: Sequence[Float32], *, labels: LabelSet
) -> tuple[str, ...]:
    """Return the layers of a TFLite model to keep in float, see :func:`choose_layers`.

    Args:
        content: the float32 model.
        ranges: for :func:`~deeplab.export.quantise.quantise`.
        frames: (1, H, W, 3) float32 each, normalised.
        labels: which class is the background.
    """
    layers = list_layers(content)
    expected = [_answer(content, frame) for frame in frames]

    def distance_without(layer: str) -> float:
        small = quantise(content, ranges, keep_float=(layer,), integer_io=False)
        answers = [_answer(small, frame) for frame in frames[:_FRAMES]]
        return measure_distance(answers, expected)

    def judge(kept: Sequence[str]) -> tuple[float, float]:
        """Return distance and foreground IoU."""
        small = quantise(content, ranges, keep_float=kept, integer_io=False)
        small = correct_biases(content, small, frames)
        answers = [_answer(small, frame) for frame in frames]
        iou = foreground_iou(answers, expected, labels.background)
        return measure_distance(answers, expected), iou

    return choose_layers(layers, distance_without=distance_without, judge=judge)


def choose_layers(
    layers: Sequence[str],
    *,
    distance_without: Callable[[str], float],
    judge: Callable[[Sequence[str]], tuple[float, float]],
) -> tuple[str, ...]:
    """Return the layers to keep in float: as few as bring the masks to :data:`TARGET`.

    Each layer is left in float alone, to see how much nearer the logits come to those of the float
    model; then more and more of the best of them together, until the target is reached, or until
    more of them hardly make a difference.

    Args:
        layers: names, in their order.
        distance_without: the distance of the logits with this one layer in float.
        judge: distance and same-class foreground IoU with these layers in float.
    """
    best: tuple[str, ...] = ()
    distance, iou = judge(best)
    if iou >= TARGET:
        return best
    ranked = sorted(layers, key=distance_without)
    count, most = 1, max(1, int(len(layers) * _LARGEST_SHARE))
    while iou < TARGET and count <= most:
        kept = tuple(name for name in layers if name in ranked[:count])
        found, iou = judge(kept)
        if found > distance * _WORTH:
            break
        best, distance, count = kept, found, count * 2
    return best


def _answer(content: bytes, frame: Float32) -> Float32:
    """Return the logits (h, w, K) of one frame, or class ids (h, w)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
    interpreter.invoke()
    answer: Float32 = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    return answer.astype(np.float32)


def measure_distance(found: Sequence[Float32], expected: Sequence[Float32]) -> float:
    """Return the mean difference of what two networks answer, over as many frames as are found."""
    pairs = zip(found, expected, strict=False)
    return float(np.mean([np.abs(one - other).mean() for one, other in pairs]))


def foreground_iou(
    found: Sequence[Float32], expected: Sequence[Float32], background: int | None
) -> float:
    """Return the same-class foreground IoU of what two networks answer, over all frames."""
    same = foreground = 0
    for one, other in zip(found, expected, strict=True):
        a, b = _classes(one), _classes(other)
        objects = np.ones(a.shape, bool)
        if background is not None:
            objects = (a != background) | (b != background)
        same += int(((a == b) & objects).sum())
        foreground += int(objects.sum())
    return same / foreground if foreground else 1.0


def _classes(answer: Float32) -> npt.NDArray[np.int64]:
    return answer.argmax(-1) if answer.ndim == 3 else answer.astype(np.int64)
