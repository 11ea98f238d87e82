"""A model for programs that were written for another library: opened once, asked for one frame.

What those libraries return depends on the size in which the file itself answers. Published files
end in a resize to their frame; the engine here is asked for the small grid before it, and
:meth:`NamedModel.resized` gives the file's own numbers where they are wanted.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError, ModelNotFoundError
from deeplab.photo.results import Segmentation
from deeplab.photo.upsample import interpolate
from deeplab.runtimes import describe
from deeplab.runtimes.network_card import NetworkCard, refuse_special
from deeplab.runtimes.tflite_network import TfliteNetwork
from deeplab.segmenter import Segmenter
from deeplab.zoo import locate

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


class NoNormalisationError(ModelError):
    """A float model does not say what pixels are to be brought to."""


class NamedModel:
    """A network that was named by path, by name or by its bytes.

    Args:
        model: what :class:`deeplab.Segmenter` takes, or the bytes of a ``.tflite``.
        threads: how many threads one frame may use; None leaves it to the segmenter.

    Attributes:
        segmenter: runs it our own way.
        spec: what the network is fed with.
        labels: its classes.
        softmaxed: its logits are probabilities already.
        align_corners: how the small grid of logits lies on the file's own answer.

    Raises:
        ModelNotFoundError: there is no such file or name.
        NoNormalisationError: it says nothing of its normalisation.
        ModelError: it is no such network, or gives no logits.
    """

    def __init__(self, model: str | bytes, *, threads: int | None = None) -> None:
        self.segmenter = _open(model, threads)
        card, network = self.segmenter.card, self.segmenter.network
        name = model if isinstance(model, str) else "the model"
        _check_normalisation(card, name)
        if network.output != "logits" or "output" in card.assumed:
            raise ModelError(
                f"{name}: the network gives no logits of several classes, of which these masks are "
                "made; deeplab.Segmenter runs it."
            )
        self.spec, self.labels = self.segmenter.spec, self.segmenter.labels
        self.softmaxed, self.align_corners = network.softmaxed, network.align_corners
        self._network, self._lock = network, threading.Lock()
        self._grid = _find_grid(card)

    def run(self, frame: UInt8) -> Float32:
        """Return the logits of a (height, width, 3) uint8 frame: (h, w, K) float32."""
        with self._lock:
            answer = self._network(frame)
        logits = answer.astype(np.float32, copy=False)
        if not np.isfinite(logits).all():
            raise ModelError("the network answered what is no number: its weights are damaged.")
        return logits

    def grid(self, logits: Float32) -> tuple[int, int]:
        """Return the (height, width) in which the file itself answers."""
        return self._grid or (logits.shape[0], logits.shape[1])

    def can_skip_resize(self, logits: Float32) -> bool:
        """Whether logits interpolated with aligned corners are the file's own, so interpolated.

        Interpolated twice is interpolated once where every point of the grid is one of the answer.
        """
        steps = [
            (own - 1) % max(small - 1, 1)
            for own, small in zip(self.grid(logits), logits.shape[:2], strict=True)
        ]
        return logits.shape[:2] == self.grid(logits) or (self.align_corners and not any(steps))

    def resized(self, logits: Float32) -> Float32:
        """Return logits in the size in which the file itself gives them."""
        grid = self.grid(logits)
        if logits.shape[:2] == grid:
            return logits
        return interpolate(logits, *grid, align_corners=self.align_corners)

    def segment(self, photo: UInt8) -> Segmentation:
        """Return what :class:`deeplab.Segmenter` sees in a (H, W, 3) uint8 photo."""
        with self._lock:
            return self.segmenter(photo)


def confidences(seen: Segmentation) -> Float32:
    """Return the logits at the photo's size, as the exact mask sees them: (H, W, K) float32."""
    assert seen.logits is not None  # a model without is not opened
    return interpolate(
        seen.logits, *seen.mask.shape, align_corners=seen.align_corners, region=seen.geometry.region
    )


def softmax(logits: Float32) -> Float32:
    """Return the softmax of (…, K) float32 logits."""
    shares: Float32 = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares


def _open(model: str | bytes, threads: int | None) -> Segmenter:
    if isinstance(model, bytes):
        with tempfile.TemporaryDirectory(prefix="deeplab-") as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(model)
            return _open(str(path), threads)
    try:
        opened = Segmenter(model, threads=threads)
    except ModelNotFoundError:
        raise
    except ModelError:
        # Without labels there is mostly no normalisation either, which is what it is to be told.
        _check_normalisation(describe(locate(model)).card, model)
        raise
    refuse_special(opened.card, model)
    return opened


def _check_normalisation(card: NetworkCard, name: str) -> None:
    if "normalisation" in card.assumed:
        raise NoNormalisationError(
            f"{name}: Input tensor has type float32, but the file has no NormalizationOptions "
            "metadata; write them with 'deeplab export' or a metadata writer."
        )


def _find_grid(card: object) -> tuple[int, int] | None:
    """Return the size of a ``.tflite``'s own answer; None where the grid is all there is."""
    if not isinstance(card, TfliteNetwork) or card.whole:
        return None
    shape = card.file.tensors[card.file.outputs[0]].shape
    return shape[1], shape[2]
