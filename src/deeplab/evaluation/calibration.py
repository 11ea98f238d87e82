"""Is a network right as often as it says? Its calibration error, and the temperature that mends it.

Of every picture some thousand pixels are drawn, the same ones each time. On the pictures of even
number a temperature is chosen: the one with which the truth is the most probable (the smallest
negative log-likelihood); where the calibration error of these same pictures would not become
smaller, the model keeps its own. On the others that error is measured, before and
after: over 15 equal ranges of confidence, the mean distance between confidence and the share of
pixels that are right, weighted by their pixels.
Source: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deeplab import plot
from deeplab.data.sample import Dataset
from deeplab.errors import DataError, InputError, OutputError
from deeplab.evaluation.protocol import share_labels
from deeplab.files import replacing
from deeplab.photo.confidence import probability_rows
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import GraphEdit
from deeplab.weights.release import find_pair, is_release, set_temperature

if TYPE_CHECKING:
    from deeplab.segmenter import Segmenter

Float32 = npt.NDArray[np.float32]
Truth = npt.NDArray[np.intp]

BINS = 15
PIXELS = 2048
"""Drawn of every picture."""

_LEAST = 1e-30
_RANGE = math.log(10)
"""Temperatures from a tenth to ten are tried; logarithm."""

_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How often a network is right, by how sure it is.

    Attributes:
        pixels: in each of the ranges of confidence.
        confidence: the mean in each; 0 where there are none.
        accuracy: the share that is right in each; 0 where there are none.
        log_loss: the mean negative log-likelihood of the truth, nats.
    """

    pixels: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    log_loss: float

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1."""
        gap = np.abs(self.confidence - self.accuracy)
        return float((self.pixels * gap).sum() / self.pixels.sum())


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found on a data set.

    Attributes:
        temperature: that was chosen.
        own: that the model had.
        before: with its own temperature, on the pictures that nothing was chosen on.
        after: with the chosen one, on the same pictures.
        chosen_on: pictures on which the temperature was chosen.
        reported_on: pictures that are reported on.
    """

    temperature: float
    own: float
    before: Reliability
    after: Reliability
    chosen_on: int
    reported_on: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them."""
        told = {
            name: {"expected_calibration_error": one.error, "log_loss": one.log_loss}
            for name, one in (("before", self.before), ("after", self.after))
        }
        return {
            "temperature": self.temperature,
            "own_temperature": self.own,
            "pictures": {"chosen_on": self.chosen_on, "reported_on": self.reported_on},
            **told,
        }


def calibrate(
    segmenter: Segmenter, dataset: Dataset, *, each: Callable[[], None] | None = None
) -> Calibration:
    """Choose a temperature on one half of a data set, and report on the other.

    Args:
        segmenter: looks once at each photo; it gives logits or probabilities.
        dataset: with truth, of the same classes.
        each: called after each picture.

    Raises:
        InputError: the network gives class ids, looks several times, or has other classes.
        DataError: there are fewer than two pictures, or no labelled pixels.
    """
    if segmenter.labels.overlap:
        raise InputError(
            "calibration: is of classes that exclude each other, but these overlap; their "
            "thresholds are chosen in training."
        )
    if segmenter.card.output == "label map":
        raise InputError(
            "calibration: this model gives class ids and does not say how sure it is; use one that "
            "gives logits or probabilities."
        )
    if len(segmenter.looks) > 1:
        raise InputError(
            "calibration: the temperature is of a single look; leave out scales, flip."
        )
    translate, _, shared = share_labels(segmenter.labels, dataset.labels)
    if shared is not None:
        raise InputError(
            "calibration: network and data set have not the same classes; how sure the network is "
            "of a class that the data does not know cannot be judged."
        )
    if len(dataset) < 2:
        raise DataError(f"calibration: got {len(dataset)} pictures, expected two or more.")
    back = np.argsort(translate[: len(segmenter.labels)])
    halves: tuple[list[tuple[Float32, Truth]], ...] = ([], [])
    for index in range(len(dataset)):
        sample = dataset[index]
        drawn = _draw(segmenter, sample.image, sample.label, dataset.labels.ignore_index, index)
        if len(drawn[1]):
            halves[index % 2].append((drawn[0], back[drawn[1]]))
        if each is not None:
            each()
    if not all(halves):
        raise DataError("calibration: there are no labelled pixels in one half of the pictures.")
    chosen, reported = (
        (np.concatenate([one for one, _ in half]), np.concatenate([one for _, one in half]))
        for half in halves
    )
    temperature = choose_temperature(*chosen)
    own = segmenter.temperature
    if measure(*chosen, temperature=temperature).error >= measure(*chosen, temperature=own).error:
        temperature = own  # it is right as often as it says already
    return Calibration(
        temperature=temperature,
        own=own,
        before=measure(*reported, temperature=own),
        after=measure(*reported, temperature=temperature),
        chosen_on=len(halves[0]),
        reported_on=len(halves[1]),
    )


def _draw(
    segmenter: Segmenter,
    image: npt.NDArray[np.uint8],
    label: npt.NDArray[np.uint8],
    ignore: int,
    seed: int,
) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Return log-probabilities (n, K) at temperature 1, and the truth (n,), of some pixels."""
    labelled = np.flatnonzero(label != ignore)
    rng = np.random.default_rng(seed)
    count = min(PIXELS, len(labelled))
    places = np.sort(rng.choice(labelled, count, replace=False)) if count else labelled
    looks = [dataclasses.replace(one, temperature=1.0) for one in segmenter(image).looks]
    width = label.shape[1]
    parts = []
    for rows, values in probability_rows(looks, *label.shape):
        first, end = np.searchsorted(places, [rows.start * width, rows.stop * width])
        here = places[first:end] - rows.start * width
        parts.append(values.reshape(-1, values.shape[2])[here])
    return np.log(np.maximum(np.concatenate(parts), _LEAST)), label.ravel()[places]


def choose_temperature(logs: Float32, truth: Truth) -> float:
    """Return the temperature with which the truth is the most probable, 0.1 to 10.

    Args:
        logs: (n, K) float32, logarithms of probabilities.
        truth: (n,) class ids.
    """
    low, high = -_RANGE, _RANGE  # the loss has one valley in 1 / T: halve by the golden section
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _log_loss(logs, truth, math.exp(left)) < _log_loss(logs, truth, math.exp(right)):
            high = right
        else:
            low = left
        if high - low < 1e-3:
            break
    return round(math.exp((low + high) / 2), 3)


def measure(logs: Float32, truth: Truth, *, temperature: float) -> Reliability:
    """Return how reliable probabilities are at a temperature.

    Args:
        logs: (n, K) float32, logarithms of probabilities.
        truth: (n,) class ids.
        temperature: above 0.
    """
    scaled = _scaled(logs, temperature)
    sure = np.exp(scaled.max(axis=1))
    right = scaled.argmax(axis=1) == truth
    number = np.minimum((sure * BINS).astype(np.intp), BINS - 1)
    pixels = np.bincount(number, minlength=BINS)
    each = np.maximum(pixels, 1)
    return Reliability(
        pixels=pixels,
        confidence=np.bincount(number, sure, minlength=BINS) / each,
        accuracy=np.bincount(number, right, minlength=BINS) / each,
        log_loss=float(-scaled[np.arange(len(truth)), truth].mean()),
    )


def _log_loss(logs: Float32, truth: Truth, temperature: float) -> float:
    return float(-_scaled(logs, temperature)[np.arange(len(truth)), truth].mean())


def _scaled(logs: Float32, temperature: float) -> Float32:
    scaled = logs / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled


def draw_reliability(calibration: Calibration) -> plot.Svg:
    """Return a picture: how often the network is right (up), by how sure it is (across)."""
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    body = []
    for number, (name, one) in enumerate(
        (
            (f"before, T = {calibration.own:g}", calibration.before),
            (f"after, T = {calibration.temperature:g}", calibration.after),
        )
    ):
        panel = plot.Panel(
            left=60 + 340 * number, top=40, width=270, height=270, x=(0, 1), y=(0, 1)
        )
        points = [
            (float(x), float(y))
            for x, y, n in zip(one.confidence, one.accuracy, one.pixels, strict=True)
            if n
        ]
        title = f"{name}: error {one.error:.2%}"
        body += [
            panel.grid(x=ticks, y=ticks),
            panel.axes(),
            panel.line([(0, 0), (1, 1)], "#999", dashes="4 4"),
            panel.line(points, "#0b63b5"),
            panel.dots(points, "#0b63b5", radius=3),
            plot.text(panel.left, 24, title, bold=True),
            plot.text(panel.left + 135, 348, "confidence", anchor="middle"),
        ]
    body.append(plot.text(8, 24, "right"))
    return plot.picture(700, 360, "".join(body))


def write_temperature(model: str | Path, card: NetworkCard, temperature: float) -> Path | None:
    """Write a temperature into a release pair or an exported file; return the file.

    None where ``model`` is the name of a model of the zoo, whose files stay as they are.

    Raises:
        InputError: it is a file into which none can be written.
        OutputError: it cannot be written.
    """
    path = Path(model)
    if find_pair(model) is not None or is_release(path):
        set_temperature(path, temperature)
        return find_pair(model) or path.with_suffix(".json")
    if not path.is_file():
        return None
    text = dataclasses.replace(card, temperature=temperature).to_json()
    if path.suffix == ".tflite":
        file = tflite_file.read(path)
        if len(file.outputs) == 1:
            edit = GraphEdit(file)
            edit.set_entry(KEY, text.encode())
            content = edit.finish(file.outputs[0])
            _replace(path, content)
            return path
    if path.suffix == ".onnx":
        return _write_onnx(path, text)
    raise InputError(
        f"calibration: no temperature can be written into {path.name}; calibrate the release pair "
        f"and export it again, or give --temperature {temperature:g}."
    )


def _write_onnx(path: Path, text: str) -> Path:
    try:
        import onnx
    except ImportError:
        raise InputError(
            "calibration: to write into an .onnx needs the package onnx: pip install onnx"
        ) from None
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text
    _replace(path, model.SerializeToString())
    return path


def _replace(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OutputError(f"calibration: {path} cannot be written: {error}.") from error
