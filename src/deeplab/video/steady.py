"""Quieter masks for moving pictures: probabilities averaged over time, where nothing moves.

A network's answer trembles with the camera's noise, and so does the mask's edge. At every point of
its grid a running average of the class probabilities is kept. How fast it forgets depends on how
much the picture changed around the point: at once where something moved, slowly where all is still.
What moved as a whole takes its average along. And where it is still, the class that a point has is
given up only for one that is clearly likelier.

The page's camera does the same, in ``web/src/smooth.ts``; docs/video.md describes both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deeplab.video.motion import Motion, find_motion

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

STILL = 0.08
"""The share of the new answer where the picture stands still: the last twelve frames count."""

HOLD = 0.1
"""By how much a new class must be likelier where all is still: a factor of exp(0.1) = 1.11."""

LEAST = np.float32(1e-6)
"""Probabilities below this are not told apart."""


class Steadier:
    """Smooths the answers of one video, frame by frame, in order."""

    def __init__(self) -> None:
        self._past: tuple[Float32, UInt8, npt.NDArray[np.intp]] | None = None

    def reset(self) -> None:
        """Forget the past: another video, another model."""
        self._past = None

    def smooth(self, logits: Float32, frame: UInt8, *, softmaxed: bool = False) -> Float32:
        """Return logits whose softmax is the average over time.

        Args:
            logits: (h, w, K) float32.
            frame: (H, W, 3) uint8 RGB, what the network saw.
            softmaxed: ``logits`` are probabilities already, and so is what is returned.

        Returns:
            (h, w, K) float32: ``logits`` themselves for the first frame, and after a change of
            size.
        """
        values = logits if softmaxed else _softmax(logits)
        past = self._past
        if past is None or past[0].shape != values.shape or past[1].shape != frame.shape:
            self._past = values, frame, values.argmax(axis=2)
            return logits
        before, frame_before, winner = past
        motion = find_motion(frame_before, frame, (values.shape[0], values.shape[1]))
        before, winner = _moved(before, winner, motion)
        moving = motion.amount
        share = (STILL + (1 - STILL) * moving).astype(np.float32)
        values = before + share[:, :, None] * (values - before)
        told: Float32 = np.log(np.maximum(values, LEAST))
        held = np.take_along_axis(told, winner[:, :, None], axis=2)
        held += (HOLD * (1 - moving)).astype(np.float32)[:, :, None]
        np.put_along_axis(told, winner[:, :, None], held, axis=2)
        self._past = values, frame, told.argmax(axis=2)
        if not softmaxed:
            return told
        np.exp(told, out=told)
        told /= told.sum(axis=2, keepdims=True)
        return told


def _softmax(logits: Float32) -> Float32:
    values: Float32 = np.exp(logits - logits.max(axis=2, keepdims=True))
    values /= values.sum(axis=2, keepdims=True)
    return values


def _moved(
    before: Float32, winner: npt.NDArray[np.intp], motion: Motion
) -> tuple[Float32, npt.NDArray[np.intp]]:
    """Return the average and the class of each point where its picture was in the frame before."""
    rows, columns = np.nonzero((motion.down != 0) | (motion.right != 0))
    if not len(rows):
        return before, winner
    height, width = winner.shape
    y = np.clip(rows + motion.down[rows, columns], 0, height - 1)
    x = np.clip(columns + motion.right[rows, columns], 0, width - 1)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    low, far = (y - top)[:, None], (x - left)[:, None]
    exact = before.astype(np.float64)
    above = exact[top, left] + far * (exact[top, right] - exact[top, left])
    below = exact[bottom, left] + far * (exact[bottom, right] - exact[bottom, left])
    moved, classes = before.copy(), winner.copy()
    moved[rows, columns] = above + low * (below - above)
    nearest = np.floor(y + 0.5).astype(np.intp), np.floor(x + 0.5).astype(np.intp)
    classes[rows, columns] = winner[nearest]
    return moved, classes
