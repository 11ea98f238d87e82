"""How sure the network is: against softmax of a brute-force upsampling, in float64."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.photo.confidence import Scores, confidence, entropy, kept_probability, mean_argmax
from deeplab.photo.images import InputSpec
from deeplab.photo.upsample import Region, argmax_bilinear
from deeplab.runtimes.looks import plan_looks
from deeplab.runtimes.network_card import NetworkCard
from tiny_tflite import tiny_network

LABELS = LabelSet(("ground", "cat", "dog", "tree"))
Float64 = npt.NDArray[np.float64]


def upsample(values: npt.NDArray[np.float32], size: tuple[int, int], region: Region) -> Float64:
    """Interpolate every class everywhere, corners on corners, pixel by pixel."""
    result = np.empty((*size, values.shape[2]))
    spans = (
        (size[0], region.top, region.bottom, region.frame_height, values.shape[0]),
        (size[1], region.left, region.right, region.frame_width, values.shape[1]),
    )
    places = []
    for pixels, first, end, frame, grid in spans:
        at = (np.arange(pixels) + 0.5) * (end - first) / pixels + first - 0.5
        places.append(np.clip(at, first, end - 1) * (grid - 1) / (frame - 1))
    for y, x in np.ndindex(size):
        v, u = places[0][y], places[1][x]
        i, j = int(v), int(u)
        k, m = min(i + 1, values.shape[0] - 1), min(j + 1, values.shape[1] - 1)
        v, u = v - i, u - j
        top = (1 - u) * values[i, j].astype(float) + u * values[i, m]
        bottom = (1 - u) * values[k, j].astype(float) + u * values[k, m]
        result[y, x] = (1 - v) * top + v * bottom
    return result


def softmax(values: Float64) -> Float64:
    weights = np.exp(values - values.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True)


REGION = Region(65, 65, 0, 0, 49, 65)
SIZE = 61, 83


@pytest.fixture
def logits() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 4, (9, 9, 21)).astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_confidence_and_entropy_equal_the_softmax_of_everything_upsampled(logits, temperature):
    looks = [Scores(values=logits, align_corners=True, region=REGION, temperature=temperature)]
    expected = softmax(upsample(logits, SIZE, REGION) / temperature)
    np.testing.assert_allclose(confidence(looks, *SIZE), expected.max(axis=2), atol=1e-5)
    bits = -(expected * np.log2(expected)).sum(axis=2)
    np.testing.assert_allclose(entropy(looks, *SIZE), bits, atol=1e-4)
    some = kept_probability(looks, [3, 7], *SIZE)
    np.testing.assert_allclose(some, expected[..., [3, 7]].sum(axis=2), atol=1e-5)
    mask = argmax_bilinear(logits, *SIZE, align_corners=True, region=REGION)
    np.testing.assert_array_equal(expected.argmax(axis=2), mask)


def test_probabilities_of_a_network_are_taken_as_they_are(logits):
    given = softmax(logits.astype(float)).astype(np.float32)
    looks = [Scores(values=given, align_corners=True, region=REGION, softmaxed=True)]
    upsampled = upsample(given, SIZE, REGION)
    np.testing.assert_allclose(confidence(looks, *SIZE), upsampled.max(axis=2), atol=1e-5)
    warm = [Scores(values=given, align_corners=True, region=REGION, softmaxed=True, temperature=2)]
    expected = softmax(np.log(upsampled) / 2).max(axis=2)
    np.testing.assert_allclose(confidence(warm, *SIZE), expected, atol=1e-5)


def test_one_channel_says_how_sure_it_is_of_either_class():
    object_ = np.random.default_rng(1).uniform(0, 1, (9, 9, 1)).astype(np.float32)
    values = np.concatenate([1 - object_, object_], axis=2)
    looks = [Scores(values=values, align_corners=True, region=REGION, softmaxed=True)]
    plane = upsample(object_, SIZE, REGION)[..., 0]
    np.testing.assert_allclose(confidence(looks, *SIZE), np.maximum(plane, 1 - plane), atol=1e-5)


def test_several_looks_are_the_mean_of_their_softmax(logits):
    other = np.random.default_rng(2).normal(0, 4, (5, 5, 21)).astype(np.float32)
    small = Region(33, 33, 0, 0, 25, 33)
    looks = [
        Scores(values=logits, align_corners=True, region=REGION),
        Scores(values=other, align_corners=True, region=small, mirrored=True),
    ]
    mirrored = softmax(upsample(other, SIZE, small))[:, ::-1]
    expected = (softmax(upsample(logits, SIZE, REGION)) + mirrored) / 2
    np.testing.assert_allclose(confidence(looks, *SIZE), expected.max(axis=2), atol=1e-5)
    top = np.sort(expected, axis=2)
    clear = top[..., -1] - top[..., -2] > 1e-5
    same = mean_argmax(looks, *SIZE) == expected.argmax(axis=2)
    assert same[clear].all()
    assert clear.mean() > 0.99


# --- in results ---------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4))
    return path


@pytest.fixture
def photo() -> npt.NDArray[np.uint8]:
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((140, 90), Image.Resampling.BICUBIC))


def test_unknown_is_where_the_winner_is_not_sure_and_nothing_else(model, photo):
    result = Segmenter(model, labels=LABELS, threads=1)(photo)
    below = float(np.median(result.confidence))
    marked = result.with_unknown(below)
    unknown = result.confidence < below
    assert 0.2 < unknown.mean() < 0.8
    assert (marked.mask[unknown] == 255).all()
    np.testing.assert_array_equal(marked.mask[~unknown], result.mask[~unknown])
    assert marked.shares["unknown"] == pytest.approx(unknown.mean())
    (told,) = (one for one in marked.to_dict()["classes"] if one["name"] == "unknown")
    assert told["id"] == 255
    assert told["colour"] not in [list(colour) for colour in LABELS.colours]
    assert sum(told["segmentation"]["counts"][1::2]) == unknown.sum()
    cut = np.asarray(marked.cutout(soft_edge=0))
    assert not cut[unknown].any(), "what is unknown is no object"
    tinted = np.asarray(marked.overlay(legend=False))[unknown]
    assert (tinted != photo[unknown]).any()
    assert set(marked.probabilities()) <= set(LABELS.names)


def test_pixels_without_data_are_of_no_class(model, photo):
    result = Segmenter(model, labels=LABELS, threads=1)(photo)
    mask = result.mask.copy()
    mask[:45] = 255
    result = dataclasses.replace(result, mask=mask)
    assert sum(result.shares.values()) == pytest.approx(0.5)
    assert {one["id"] for one in result.to_dict()["classes"]} <= set(range(4))


def test_what_cannot_be_unknown_is_refused(model, photo, tmp_path):
    result = Segmenter(model, labels=LABELS, threads=1)(photo)
    with pytest.raises(InputError, match=r"got 1\.5"):
        result.with_unknown(1.5)
    full = LabelSet(tuple(map(str, range(256))))
    with pytest.raises(InputError, match="no id is left"):
        full.with_unknown()
    path = tmp_path / "map.tflite"
    path.write_bytes(tiny_network(frame=33, resize=False, argmax=True))
    ids = Segmenter(path, labels=LABELS, threads=1)
    if ids(photo).logits is None:
        with pytest.raises(InputError, match="gives a label map"):
            _ = ids(photo).confidence
        with pytest.raises(InputError, match="no mean"):
            Segmenter(path, labels=LABELS, threads=1, flip=True)


def test_a_mirrored_look_sees_what_the_mirrored_photo_shows(model, photo):
    plain = Segmenter(model, labels=LABELS, threads=1)
    both = Segmenter(model, labels=LABELS, threads=1, flip=True)
    there, back = plain(photo), plain(np.ascontiguousarray(photo[:, ::-1]))
    seen = both(photo)
    for name in LABELS.names:
        mean = (there.probability(name) + back.probability(name)[:, ::-1]) / 2
        np.testing.assert_allclose(seen.probability(name), mean, atol=1e-5)
    stack = np.stack([seen.probability(name) for name in LABELS.names], axis=2)
    assert (seen.mask == stack.argmax(axis=2)).mean() > 0.999
    with pytest.raises(InputError, match="33×33 only, so it has one scale"):
        Segmenter(model, labels=LABELS, threads=1, scales=(1, 1.5))


def test_scales_keep_the_originals_frames():
    spec = InputSpec(height=513, width=257)
    card = NetworkCard(spec=spec, labels=LABELS, output="logits", align_corners=True, any_size=True)
    looks = plan_looks(card, scales=(0.5, 1, 1.25), flip=True, name="a")
    assert [(look.height, look.width) for look in looks[::2]] == [
        (257, 129),
        (513, 257),
        (641, 321),
    ]
    assert [look.mirrored for look in looks] == [False, True] * 3
    for bad in ((), (0,), (-1,), (float("nan"),), (5,), (1,) * 17):
        with pytest.raises(InputError, match="expected 1 to 16 numbers"):
            plan_looks(card, scales=bad, flip=False, name="a")


def test_a_temperature_changes_probabilities_and_no_mask(model, photo):
    plain = Segmenter(model, labels=LABELS, threads=1)(photo)
    warm = Segmenter(model, labels=LABELS, threads=1, temperature=3)(photo)
    np.testing.assert_array_equal(plain.mask, warm.mask)
    assert warm.confidence.mean() < plain.confidence.mean()
    with pytest.raises(InputError, match="temperature: got 0"):
        Segmenter(model, labels=LABELS, threads=1, temperature=0)


def test_a_card_keeps_its_temperature():
    spec = InputSpec(height=33, width=33)
    card = NetworkCard(
        spec=spec, labels=LABELS, output="logits", align_corners=True, temperature=1.25
    )
    assert NetworkCard.from_json(card.to_json(), name="a").temperature == 1.25
    plain = NetworkCard(spec=spec, labels=LABELS, output="logits", align_corners=True)
    assert "temperature" not in json.loads(plain.to_json()), "older programs read it as before"


def test_the_picture_has_the_planes_size_and_a_scale():
    from deeplab.photo.confidence_picture import draw_confidence

    plane = np.linspace(0, 1, 200 * 300, dtype=np.float32).reshape(200, 300)
    picture = draw_confidence(plane)
    assert picture.width == 300
    assert picture.height > 200
    grey = np.asarray(picture.convert("L"), int)[:200]
    assert (np.diff(grey.ravel()) >= -2).all(), "lighter is surer"
    assert draw_confidence(plane[:3, :3]).size == (3, 3)
