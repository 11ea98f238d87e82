"""The fully connected CRF that sharpens a network's probabilities along the edges of the photo.

DeepLab v1 and v2 end with it; it works after any network that gives probabilities. Ten rounds of
mean field, with a Gaussian kernel over position and one over position and colour, computed on a
permutohedral lattice: the label maps are those of ``pydensecrf`` (DIAG_KERNEL,
NORMALIZE_SYMMETRIC, Potts compatibility).

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011; DeepLab v1 (arXiv 1412.7062, section 3.3).
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, MissingExtraError, near_matches
from deeplab.photo.confidence import probability_rows
from deeplab.photo.images import RESIZE_FILTER, Geometry
from deeplab.photo.results import Segmentation
from deeplab.photo.upsample import argmax_bilinear

Progress = Callable[[int, int], None]
"""Called as ``progress(done, iterations)``: once when the lattices stand (done = 0), then after
every iteration."""


def _check_iterations(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"iterations: got {value!r}, expected a whole number of at least 1.")
    return value


@dataclass(frozen=True, kw_only=True)
class CrfParameters:
    """The two kernels and the number of mean-field iterations.

    Attributes:
        spatial_weight: weight of the kernel over position alone; 0 leaves it out.
        spatial_std: its standard deviation, pixels.
        bilateral_weight: weight of the kernel over position and colour; 0 leaves it out.
        bilateral_spatial_std: its standard deviation over position, pixels.
        bilateral_colour_std: its standard deviation over red, green and blue, 0..255.
        iterations: rounds of mean field.

    Raises:
        InputError: a field is not a finite number, or out of its range.
    """

    spatial_weight: float
    spatial_std: float
    bilateral_weight: float
    bilateral_spatial_std: float
    bilateral_colour_std: float
    iterations: int = 10

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "iterations":
                _check_iterations(value)
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise InputError(f"{field.name}: got {value!r}, expected a finite number.")
            if field.name.endswith("_weight") and value < 0:
                raise InputError(
                    f"{field.name}: got {value}, expected 0 or more; 0 leaves the kernel out."
                )
            if field.name.endswith("_std") and value <= 0:
                raise InputError(
                    f"{field.name}: got {value}, expected more than 0; "
                    "to leave a kernel out, set its weight to 0."
                )


KAZUTO = CrfParameters(
    spatial_weight=3,
    spatial_std=1,
    bilateral_weight=4,
    bilateral_spatial_std=67,
    bilateral_colour_std=3,
)
"""DeepLab v2, ResNet-101. Source: kazuto1011/deeplab-pytorch, configs/voc12.yaml."""

PRESETS: dict[str, CrfParameters] = {
    # Source: exper/run_densecrf.sh of the DeepLab v1 release (DeepLab-LargeFOV). The paper fixes
    # the spatial kernel (3, 3) and searches the other per network.
    "v1": CrfParameters(
        spatial_weight=3,
        spatial_std=3,
        bilateral_weight=4,
        bilateral_spatial_std=49,
        bilateral_colour_std=5,
    ),
    "v2": KAZUTO,
    # Source: the settings published with DeepLab v2, VGG16.
    "v2-vgg16": CrfParameters(
        spatial_weight=2,
        spatial_std=2,
        bilateral_weight=4,
        bilateral_spatial_std=65,
        bilateral_colour_std=3,
    ),
}
"""Published parameters by name."""


def refine(
    image: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    *,
    parameters: CrfParameters | str = KAZUTO,
    iterations: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Return the probabilities of every class after mean-field inference.

    Args:
        image: (H, W, 3) uint8 RGB, the photo at the size of the probabilities.
        probabilities: (K, H, W) float32, 0 or more; each pixel need not sum to 1 exactly.
        parameters: a :class:`CrfParameters`, or the name of one of :data:`PRESETS`.
        iterations: rounds of mean field; those of ``parameters`` when left out.
        threads: how many to use; all cores when left out. The result does not depend on it.
        progress: see :data:`Progress`.

    Returns:
        (K, H, W) float32, each pixel sums to 1.

    Raises:
        InputError: an array has the wrong shape or type, a probability is negative or not
            finite, or there is no preset of that name.
        MissingExtraError: numba is not installed.
    """
    _check_arrays(image, probabilities)
    parameters = find_parameters(parameters)
    rounds = parameters.iterations if iterations is None else _check_iterations(iterations)
    count = (os.cpu_count() or 1) if threads is None else threads
    if not isinstance(count, int) or count < 1:
        raise InputError(f"threads: got {threads!r}, expected a whole number of at least 1.")
    try:
        from deeplab.crf.mean_field import Kernel, infer
        from deeplab.crf.permutohedral import Team, build_lattice
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingExtraError("The CRF", package="numba", extra="crf") from error
    height, width, _ = image.shape
    # pydensecrf walks the pixels in fours and fills the last four with points at the origin of the
    # feature space, whose corners then take part in the blur; so do they here.
    padding = 1 if height * width % 4 else 0
    with ThreadPoolExecutor(count) as executor:
        team = Team(count, executor)
        kernels = [
            Kernel(build_lattice(features, team, padding=padding), weight)
            for features, weight in _features(image, parameters)
        ]
        planes = np.ascontiguousarray(probabilities).reshape(len(probabilities), -1)
        refined = infer(planes, kernels, iterations=rounds, team=team, progress=progress)
    return refined.reshape(probabilities.shape)


def refine_segmentation(
    result: Segmentation,
    *,
    parameters: CrfParameters | str = KAZUTO,
    iterations: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    max_pixels: int = 1 << 19,
) -> Segmentation:
    """Return the segmentation of a photo with its mask and logits refined by the CRF.

    The photo is refined at full size up to ``max_pixels``, and above that at a reduced size from
    which the mask is interpolated: the published standard deviations are in pixels of photos of
    about 500 x 375, and memory stays below 1 GB however large the photo is.

    Args:
        result: a segmentation with logits.
        parameters: see :func:`refine`.
        iterations: see :func:`refine`.
        threads: see :func:`refine`.
        progress: see :data:`Progress`.
        max_pixels: at most so many pixels are refined.

    Returns:
        A segmentation whose ``logits`` are the logarithms of the refined probabilities.

    Raises:
        InputError: the network gave a label map only, or a setting is wrong.
        MissingExtraError: numba is not installed.
        ImageError: the photo cannot be decoded again.
    """
    if result.logits is None:
        raise InputError(
            f"{result.name}: the CRF needs probabilities, but this network gives a label map only; "
            "use a network that gives logits."
        )
    if result.labels.overlap:
        raise InputError(
            f"{result.name}: the CRF gives every pixel one class, but the classes of this network "
            "overlap; leave it out."
        )
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels: got {max_pixels!r}, expected a whole number of at least 1.")
    start = time.perf_counter()
    height, width = result.mask.shape
    scale = min(1.0, math.sqrt(max_pixels / (height * width)))
    size = max(1, int(height * scale)), max(1, int(width * scale))
    photo = result.photo.decode(at_least=size)
    if photo.size != size[::-1]:
        photo = photo.resize(size[::-1], RESIZE_FILTER)
    probabilities = np.empty((result.logits.shape[2], *size), np.float32)
    for rows, band in probability_rows(result.looks, *size):
        probabilities[:, rows] = band.transpose(2, 0, 1)
    refined = refine(
        np.asarray(photo),
        probabilities,
        parameters=parameters,
        iterations=iterations,
        threads=threads,
        progress=progress,
    )
    logits = np.ascontiguousarray(np.log(np.maximum(refined, 1e-30)).transpose(1, 2, 0))
    if size == (height, width):
        mask = refined.argmax(axis=0).astype(np.uint8)
    else:
        mask = argmax_bilinear(logits, height, width, align_corners=False)
    return dataclasses.replace(
        result,
        mask=mask,
        geometry=Geometry(photo=(height, width), frame=size, fit="stretch"),
        logits=logits,
        align_corners=False,
        softmaxed=False,
        temperature=1.0,  # it is in the refined probabilities already
        more_looks=(),
        timings={**result.timings, "crf": 1000 * (time.perf_counter() - start)},
    )


def find_parameters(parameters: CrfParameters | str) -> CrfParameters:
    """Return the preset of that name; parameters are returned as they are.

    Raises:
        InputError: there is no such preset.
    """
    if isinstance(parameters, CrfParameters):
        return parameters
    if isinstance(parameters, str) and parameters.lower() in PRESETS:
        return PRESETS[parameters.lower()]
    near = near_matches(parameters, PRESETS) if isinstance(parameters, str) else ""
    raise InputError(
        f"parameters: got {parameters!r}, expected CrfParameters or one of "
        f"{', '.join(repr(name) for name in PRESETS)}.{near}"
    )


def _features(
    image: npt.NDArray[np.uint8], parameters: CrfParameters
) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
    """Yield (features (H * W, d) in standard deviations, weight) of every kernel with a weight."""
    height, width, _ = image.shape
    rows, columns = np.indices((height, width), np.float32)
    position = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    if parameters.spatial_weight:
        yield position / np.float32(parameters.spatial_std), parameters.spatial_weight
    if parameters.bilateral_weight:
        colour = image.reshape(-1, 3).astype(np.float32)
        yield (
            np.concatenate(
                [
                    position / np.float32(parameters.bilateral_spatial_std),
                    colour / np.float32(parameters.bilateral_colour_std),
                ],
                axis=1,
            ),
            parameters.bilateral_weight,
        )


def _check_arrays(image: object, probabilities: object) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise InputError(f"image: got {_kind(image)}, expected a uint8 array (H, W, 3), RGB.")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image: got shape {image.shape}, expected (H, W, 3), RGB.")
    if not isinstance(probabilities, np.ndarray) or probabilities.dtype != np.float32:
        raise InputError(
            f"probabilities: got {_kind(probabilities)}, expected a float32 array (K, H, W); "
            "convert with .astype(np.float32)."
        )
    if probabilities.ndim != 3 or probabilities.shape[0] < 1:
        raise InputError(
            f"probabilities: got shape {probabilities.shape}, expected (K, H, W): classes first."
        )
    if probabilities.shape[1:] != image.shape[:2]:
        raise InputError(
            f"probabilities: got {probabilities.shape[1]}x{probabilities.shape[2]} pixels for an "
            f"image of {image.shape[0]}x{image.shape[1]} (height x width); "
            "bring them to the size of the image first."
        )
    least, most = float(probabilities.min()), float(probabilities.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise InputError("probabilities: some are NaN or infinite; expected numbers from 0 to 1.")
    if least < 0 or most > 1 + 1e-3:
        raise InputError(
            f"probabilities: got values from {least:.6g} to {most:.6g}, expected 0 to 1; "
            "give the softmax of logits, not the logits."
        )


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array"
    return f"a {type(value).__name__}"
