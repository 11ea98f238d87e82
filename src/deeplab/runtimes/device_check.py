"""What a device answers is compared with what the CPU answers, before anybody gets to see it.

Drivers and compilers for GPUs and NPUs compute in fewer digits than the CPU, and some compute
wrongly: a mask of the right shape with the wrong things in it. So a network that is opened on such
a device runs one real photo there and on the CPU.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError
from deeplab.photo.images import Geometry, InputSpec, Photo
from deeplab.runtimes.network import Float32, Frame, Network
from deeplab.zoo.example_photos import list_example_photos

MOST_ERROR = 0.02
"""Root mean square difference of the logits, in units of the CPU's standard deviation.

Half precision stays a tenth below it, int8 arithmetic that rounds elsewhere a third."""

LEAST_EQUAL = 0.99
"""Share of the cells that must have the CPU's class."""

_PHOTO = "dog"
"""Of the package's photos; it has several objects."""


@dataclass(frozen=True)
class Compared:
    """What one photo showed.

    Attributes:
        error: of the logits, see ``MOST_ERROR``; 0 where there are none.
        equal: share of the cells with the CPU's class.
        device_ms: of one frame on the device, the first ones left out.
        cpu_ms: on the CPU.
    """

    error: float
    equal: float
    device_ms: float
    cpu_ms: float


def compare(name: str, device: str, network: Network, twin: Network) -> Compared:
    """Run a real photo on a device and on the CPU.

    Args:
        name: of the file, for messages.
        device: for messages.
        network: opened on the device.
        twin: the same, opened on the CPU.

    Raises:
        ModelError: the answers differ by more than rounding.
    """
    frame = real_frame(network.spec)
    answer, device_ms = _run(network, frame)
    expected, cpu_ms = _run(twin, frame)
    words = ""
    if answer.shape != expected.shape:
        words = f"{list(answer.shape)} numbers instead of {list(expected.shape)}"
        error, equal = np.inf, 0.0
    elif network.output == "logits":
        error = _relative_error(answer, expected)
        equal = float((answer.argmax(2) == expected.argmax(2)).mean())
    else:
        error, equal = 0.0, float((answer == expected).mean())
    # Written so that NaN is refused.
    if not (error <= MOST_ERROR and equal >= LEAST_EQUAL):
        words = words or (
            f"{1 - equal:.1%} of a photo's cells get another class (1% is taken), and its numbers "
            f"differ by {error:.3g} of their spread ({MOST_ERROR} is taken)"
        )
        raise ModelError(
            f"{name}: '{device}' does not answer as the CPU does: {words}. It is not used; leave "
            "--device out, or try again with a newer driver."
        )
    return Compared(error, equal, device_ms, cpu_ms)


def real_frame(spec: InputSpec) -> Frame:
    """Return a photo as the network's frame, or noise where it takes other pictures."""
    if spec.bands is not None:  # no photo fits; noise around the mean does
        noise = np.random.default_rng(0).standard_normal(
            (spec.height, spec.width, spec.channels), np.float32
        )
        mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
        spread: Float32 = noise * std + mean
        return spread
    photos = {path.stem: path for path in list_example_photos()}
    if not photos:  # the package was cut down; anything with colours and edges will do
        rows, columns = np.mgrid[: spec.height, : spec.width]
        ramps = (rows * 200 / spec.height, columns * 200 / spec.width, (rows * columns) % 2 * 255)
        return np.stack(ramps, axis=2).astype(np.uint8)
    photo = Photo(photos.get(_PHOTO) or min(photos.values()))
    geometry = Geometry(photo.size, (spec.height, spec.width), spec.fit)
    return geometry.place(photo.decode(at_least=geometry.content), spec.padding)


def _run(network: Network, frame: Frame) -> tuple[npt.NDArray[Any], float]:
    """Return the answer, and how many milliseconds it takes once all is warm."""
    network(frame)
    start = time.perf_counter()
    answer = network(frame)
    return answer, 1e3 * (time.perf_counter() - start)


def _relative_error(answer: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    wanted = expected.astype(np.float64)
    spread = np.sqrt(np.mean((wanted - wanted.mean()) ** 2))
    # Nothing but one number everywhere has no spread; then it is its size that counts.
    unit = spread if spread > 1e-6 else max(1.0, float(np.abs(wanted).max()))
    return float(np.sqrt(np.mean((answer - wanted) ** 2)) / unit)
