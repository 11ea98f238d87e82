from __future__ import annotations

import builtins
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from deeplab import crf
from deeplab.errors import InputError, MissingExtraError
from deeplab.labels import LabelSet
from deeplab.photo.images import Geometry, Photo
from deeplab.photo.results import Segmentation
from deeplab.photo.upsample import argmax_bilinear

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="needs the extra 'crf' (numba)"
)


def random_case(
    height: int = 23, width: int = 31, classes: int = 5
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A picture of soft blobs, and probabilities that follow it with noise."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 8 % 256, columns * 6 % 256, (rows + columns) * 4 % 256], axis=-1)
    image = np.clip(image + rng.integers(-9, 9, image.shape), 0, 255).astype(np.uint8)
    logits = rng.normal(0, 1, (classes, height, width)) + 2 * np.stack(
        [np.sin(rows / (3 + k)) * np.cos(columns / (4 + k)) for k in range(classes)]
    )
    powers = np.exp(logits)
    return image, (powers / powers.sum(axis=0)).astype(np.float32)


def fixture_parameters(values: dict[str, float]) -> crf.CrfParameters:
    return crf.CrfParameters(
        spatial_weight=values["pos_w"],
        spatial_std=values["pos_xy_std"],
        bilateral_weight=values["bi_w"],
        bilateral_spatial_std=values["bi_xy_std"],
        bilateral_colour_std=values["bi_rgb_std"],
        iterations=int(values["iter_max"]),
    )


def fixtures(reference: Path) -> list[Path]:
    found = sorted((reference / "parity").glob("crf_pydensecrf_*"))
    assert found, "no CRF fixtures in the reference folder"
    return found


def seeded_image(reference: Path, height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    path = reference / "parity" / "seeded_weights.py"
    spec = importlib.util.spec_from_file_location("seeded_weights", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    image: npt.NDArray[np.uint8] = module.seeded_image(height, width, seed)
    return image


@needs_numba
@pytest.mark.reference
def test_equals_pydensecrf_on_every_pixel(reference: Path) -> None:
    for folder in fixtures(reference):
        spec = json.loads((folder / "spec.json").read_text())
        parameters = fixture_parameters(spec["parameters"])
        inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
        flat = inputs["image_flat"]
        height, width = flat.shape[:2]
        raw = seeded_image(reference, height, width, 80)
        assert (raw // 32 * 32 + 16 == flat).all(), "the picture of the fixture is not this one"

        refined = crf.refine(flat, inputs["prob"], parameters=parameters)
        np.testing.assert_allclose(refined, expected["Q_flat"], atol=1e-5)
        np.testing.assert_array_equal(refined.argmax(0), expected["labels_flat"])

        refined = crf.refine(raw, inputs["prob"], parameters=parameters)
        np.testing.assert_allclose(refined[:, ::2, ::2], expected["Q_raw_every2"], atol=1e-5)
        np.testing.assert_array_equal(refined.argmax(0), expected["labels_raw"])

        refined = crf.refine(flat, inputs["prob"], parameters=parameters, iterations=1)
        np.testing.assert_array_equal(refined.argmax(0), expected["labels_flat_iter1"])


@needs_numba
@pytest.mark.reference
def test_equals_pydensecrf_with_other_parameters(reference: Path) -> None:
    for folder in fixtures(reference):
        spec = json.loads((folder / "spec.json").read_text())
        image = np.load(folder / "inputs.npz")["small_image"]
        small = np.load(folder / "small.npz")
        refined = crf.refine(
            image,
            small["small_unary"],  # probabilities, whatever the name says
            parameters=fixture_parameters(spec["small_parameters"]),
        )
        np.testing.assert_allclose(refined, small["small_Q"], atol=1e-5)
        np.testing.assert_array_equal(refined.argmax(0), small["small_Q"].argmax(0))


def exact_mean_field(
    image: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    parameters: crf.CrfParameters,
) -> npt.NDArray[np.float64]:
    """Mean field with the full kernel matrix, in double precision: no lattice."""
    classes, height, width = probabilities.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    place = np.stack([columns, rows], -1).reshape(-1, 2)
    colour = image.reshape(-1, 3) / parameters.bilateral_colour_std
    both = np.concatenate([place / parameters.bilateral_spatial_std, colour], 1)
    total = np.zeros((len(place), len(place)))
    for features, weight in [
        (place / parameters.spatial_std, parameters.spatial_weight),
        (both, parameters.bilateral_weight),
    ]:
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        matrix = np.exp(-distance / 2)
        norm = 1 / np.sqrt(matrix.sum(1))
        total += weight * norm[:, None] * matrix * norm[None]
    unary = -np.log(np.clip(probabilities.reshape(classes, -1).astype(np.float64), 1e-5, 1))
    belief = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(parameters.iterations):
        energy = unary - belief @ total
        belief = np.exp(energy.min(0) - energy)
        belief /= belief.sum(0)
    return belief.reshape(probabilities.shape)


@needs_numba
def test_lattice_approximates_the_exact_kernels() -> None:
    image, probabilities = random_case()
    parameters = crf.CrfParameters(
        spatial_weight=3,
        spatial_std=2,
        bilateral_weight=4,
        bilateral_spatial_std=12,
        bilateral_colour_std=30,
        iterations=3,
    )
    refined = crf.refine(image, probabilities, parameters=parameters)
    exact = exact_mean_field(image, probabilities, parameters)
    assert np.abs(refined - exact).mean() < 0.02
    assert (refined.argmax(0) == exact.argmax(0)).mean() > 0.95
    # ... while leaving the probabilities alone would not pass.
    assert (probabilities.argmax(0) == exact.argmax(0)).mean() < 0.9


@needs_numba
@pytest.mark.parametrize("preset", sorted(crf.PRESETS))
def test_probabilities_stay_probabilities(preset: str) -> None:
    image, probabilities = random_case()
    before = probabilities.copy()
    refined = crf.refine(image, probabilities, parameters=preset)
    assert refined.shape == probabilities.shape
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    assert refined.min() >= 0
    np.testing.assert_array_equal(probabilities, before)  # the caller's array is untouched


@needs_numba
def test_permuted_classes_give_permuted_probabilities() -> None:
    image, probabilities = random_case()
    order = np.array([3, 0, 4, 1, 2])
    refined = crf.refine(image, probabilities)
    permuted = crf.refine(image, probabilities[order])
    np.testing.assert_allclose(permuted, refined[order], atol=1e-6)


@needs_numba
def test_classes_that_are_nowhere_change_nothing() -> None:
    image, probabilities = random_case()
    absent = np.full((3, *probabilities.shape[1:]), 1e-9, np.float32)
    with_absent = np.concatenate([absent, probabilities])
    refined = crf.refine(image, probabilities)
    np.testing.assert_allclose(crf.refine(image, with_absent)[3:], refined, atol=1e-3)


@needs_numba
def test_constant_picture_and_probabilities_stay_constant() -> None:
    image = np.full((20, 24, 3), 99, np.uint8)
    column = np.array([0.5, 0.3, 0.2], np.float32)
    probabilities = np.broadcast_to(column[:, None, None], (3, 20, 24)).copy()
    refined = crf.refine(image, probabilities)
    assert (refined.argmax(axis=0) == 0).all()
    # Symmetric normalisation is not exactly constant; the interior nearly is.
    interior = refined[:, 6:-6, 6:-6]
    assert np.ptp(interior, axis=(1, 2)).max() < 0.05
    assert (refined[0] > 0.5).all()  # neighbours that agree strengthen each other


@needs_numba
def test_flipped_photo_gives_flipped_probabilities() -> None:
    image, probabilities = random_case(40, 48)
    refined = crf.refine(image, probabilities)
    flipped = crf.refine(
        np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(probabilities[..., ::-1])
    )[..., ::-1]
    # The lattice is not symmetric, so this holds as far as the approximation goes.
    assert (flipped.argmax(0) == refined.argmax(0)).mean() > 0.97
    assert np.abs(flipped - refined).mean() < 0.02


@needs_numba
def test_an_edge_of_the_photo_moves_the_edge_of_the_mask() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    probabilities = np.full((2, 32, 32), 0.3, np.float32)
    probabilities[0, :, :13] = probabilities[1, :, 13:] = 0.7  # three columns off
    truth = np.arange(32) >= 16
    refined = crf.refine(image, probabilities).argmax(0)
    np.testing.assert_array_equal(refined, np.broadcast_to(truth, (32, 32)))


@needs_numba
def test_result_does_not_depend_on_threads_or_memory_layout() -> None:
    image, probabilities = random_case(17, 19)
    expected = crf.refine(image, probabilities, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(crf.refine(image, probabilities, threads=threads), expected)
    strided = np.asfortranarray(probabilities)
    np.testing.assert_array_equal(crf.refine(np.asfortranarray(image), strided), expected)


@needs_numba
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 1), (2, 2)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    probabilities = rng.dirichlet([1, 1], shape).transpose(2, 0, 1).astype(np.float32)
    refined = crf.refine(image, probabilities)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)


@needs_numba
def test_without_kernels_the_probabilities_are_only_normalised() -> None:
    image, probabilities = random_case()
    nothing = crf.CrfParameters(
        spatial_weight=0,
        spatial_std=1,
        bilateral_weight=0,
        bilateral_spatial_std=1,
        bilateral_colour_std=1,
    )
    refined = crf.refine(image, probabilities / 2, parameters=nothing)
    np.testing.assert_allclose(refined, probabilities, atol=1e-4)


@needs_numba
def test_progress_counts_iterations() -> None:
    image, probabilities = random_case()
    calls: list[tuple[int, int]] = []
    crf.refine(
        image, probabilities, iterations=3, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


@needs_numba
def test_lattice_that_cannot_be_numbered_is_refused() -> None:
    image, probabilities = random_case()
    absurd = crf.CrfParameters(
        spatial_weight=3,
        spatial_std=1,
        bilateral_weight=4,
        bilateral_spatial_std=0.001,
        bilateral_colour_std=0.01,
    )
    with pytest.raises(InputError, match=r"standard deviations are so small .* use larger ones"):
        crf.refine(image, probabilities, parameters=absurd)


IMAGE, PROBABILITIES = random_case(6, 8, 3)


def changed(value: float) -> npt.NDArray[np.float32]:
    probabilities = PROBABILITIES.copy()
    probabilities[1, 2, 3] = value
    return probabilities


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (IMAGE.astype(np.float32), PROBABILITIES, r"image: got a float32 array, expected a uint8"),
        ([[1]], PROBABILITIES, r"image: got a list, expected a uint8 array \(H, W, 3\), RGB"),
        (IMAGE[..., 0], PROBABILITIES, r"image: got shape \(6, 8\), expected \(H, W, 3\)"),
        (IMAGE[..., :2], PROBABILITIES, r"image: got shape \(6, 8, 2\), expected \(H, W, 3\)"),
        (IMAGE[:0], PROBABILITIES, r"image: got shape \(0, 8, 3\), expected \(H, W, 3\)"),
        (IMAGE, PROBABILITIES.astype(np.float64), r"got a float64 array.*astype\(np.float32\)"),
        (IMAGE, None, r"probabilities: got a NoneType, expected a float32 array"),
        (IMAGE, PROBABILITIES[0], r"probabilities: got shape \(6, 8\).*classes first"),
        (IMAGE, PROBABILITIES[:0], r"probabilities: got shape \(0, 6, 8\)"),
        (IMAGE, PROBABILITIES[:, 1:], r"got 5x8 pixels for an image of 6x8.*size of the image"),
        (IMAGE, changed(np.nan), r"probabilities: some are NaN or infinite"),
        (IMAGE, changed(np.inf), r"probabilities: some are NaN or infinite"),
        (IMAGE, changed(-0.5), r"values from -0.5 to .* softmax of logits, not the logits"),
        (IMAGE, changed(7.0), r"values from .* to 7, expected 0 to 1"),
    ],
)
def test_wrong_arrays_are_refused_in_words(image: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        crf.refine(image, probabilities)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"parameters": "v3"},
            r"parameters: got 'v3', expected CrfParameters or one of 'v1'.*mean",
        ),
        ({"parameters": 3}, r"parameters: got 3, expected CrfParameters or one of"),
        ({"iterations": 0}, r"iterations: got 0, expected a whole number of at least 1"),
        ({"iterations": 2.0}, r"iterations: got 2.0, expected a whole number"),
        ({"iterations": True}, r"iterations: got True, expected a whole number"),
        ({"threads": 0}, r"threads: got 0, expected a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        crf.refine(IMAGE, PROBABILITIES, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_weight": -1}, r"spatial_weight: got -1, expected 0 or more; 0 leaves"),
        ({"spatial_std": 0}, r"spatial_std: got 0, expected more than 0.*set its weight to 0"),
        ({"bilateral_colour_std": float("nan")}, r"bilateral_colour_std: got nan, .* finite"),
        ({"bilateral_weight": "4"}, r"bilateral_weight: got '4', expected a finite number"),
        ({"bilateral_spatial_std": True}, r"bilateral_spatial_std: got True"),
        ({"iterations": -2}, r"iterations: got -2, expected a whole number"),
    ],
)
def test_wrong_parameters_are_refused_in_words(settings: dict[str, Any], message: str) -> None:
    fields = {
        "spatial_weight": 3,
        "spatial_std": 1,
        "bilateral_weight": 4,
        "bilateral_spatial_std": 67,
        "bilateral_colour_std": 3,
    }
    with pytest.raises(InputError, match=message):
        crf.CrfParameters(**{**fields, **settings})


def segmentation(
    photo: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32] | None, frame: int
) -> Segmentation:
    """What a network with an answer of ``logits`` for the letterboxed photo would give."""
    source = Photo(photo)
    geometry = Geometry(source.size, (frame, frame))
    mask = np.zeros(source.size, np.uint8)
    if logits is not None:
        mask = argmax_bilinear(logits, *source.size, align_corners=True, region=geometry.region)
    return Segmentation(
        mask=mask,
        labels=LabelSet(("background", "thing")),
        photo=source,
        geometry=geometry,
        logits=logits,
        align_corners=True,
        timings={"network": 1.0},
    )


def half_and_half(height: int, width: int) -> npt.NDArray[np.uint8]:
    photo = np.full((height, width, 3), 30, np.uint8)
    photo[:, width // 2 :] = 220
    return photo


@needs_numba
@pytest.mark.parametrize("max_pixels", [1 << 20, 2000])
def test_segmentation_of_a_letterboxed_photo_snaps_to_its_edge(max_pixels: int) -> None:
    photo = half_and_half(60, 90)
    # A frame of 33: the photo fills its upper 22 rows. Classes change at column 20, not 16.
    logits = np.zeros((33, 33, 2), np.float32)
    logits[:, :20, 0] = logits[:, 20:, 1] = 1.5
    result = segmentation(photo, logits, 33)
    edge = np.arange(90) >= 45
    assert (result.mask != edge).any()
    refined = crf.refine_segmentation(result, max_pixels=max_pixels)
    assert refined.mask.dtype == np.uint8
    reduced = max_pixels < photo.shape[0] * photo.shape[1]
    clear = np.abs(np.arange(90) - 44.5) > (3 if reduced else 0)  # a reduced edge is blended
    np.testing.assert_array_equal(
        refined.mask[:, clear], np.broadcast_to(edge[clear], (60, clear.sum()))
    )
    assert refined.logits is not None
    assert refined.logits.shape[0] * refined.logits.shape[1] <= max_pixels
    assert refined.timings.keys() == {"network", "crf"}
    # The result describes itself: its mask follows from its logits and its geometry.
    again = argmax_bilinear(
        refined.logits,
        *refined.mask.shape,
        align_corners=refined.align_corners,
        region=refined.geometry.region,
    )
    np.testing.assert_array_equal(again, refined.mask)


def test_segmentation_without_logits_is_refused() -> None:
    result = segmentation(half_and_half(8, 8), None, 9)
    with pytest.raises(InputError, match="gives a label map only; use a network that gives logits"):
        crf.refine_segmentation(result)


def test_segmentation_with_no_pixels_is_refused() -> None:
    result = segmentation(half_and_half(8, 8), np.zeros((3, 3, 2), np.float32), 9)
    with pytest.raises(InputError, match="max_pixels: got 0, expected a whole number"):
        crf.refine_segmentation(result, max_pixels=0)


def test_without_numba_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "numba":
            raise ModuleNotFoundError("No module named 'numba'", name="numba")
        return real(name, *arguments, **named)

    for name in ("deeplab.crf.mean_field", "deeplab.crf.permutohedral"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"The CRF needs 'numba'.*deeplab\[crf\]"):
        crf.refine(IMAGE, PROBABILITIES)


def test_importing_the_room_does_not_import_numba() -> None:
    import subprocess

    code = "import sys, deeplab.crf; sys.exit('numba' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
