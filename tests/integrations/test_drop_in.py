"""Programs for the Task Library and MediaPipe, on theirs and on ours: the same comes out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from programs import MEDIAPIPE, STARTER_MEDIAPIPE, STARTER_TASK_LIBRARY, TASK_LIBRARY

import deeplab.integrations.mediapipe as mp
from deeplab import Segmenter
from deeplab.integrations import task_library
from deeplab.integrations.frames import resize_as_libyuv, resize_as_opencv
from deeplab.integrations.mediapipe import _weigh
from deeplab.integrations.task_library import core, processor, vision

TASK_LINE = {"theirs": "tflite_support.task", "ours": "deeplab.integrations.task_library"}
MEDIAPIPE_LINE = {
    "theirs": "import mediapipe as mp",
    "ours": "import deeplab.integrations.mediapipe as mp",
}


def run(python: str | Path, program: str, work: Path, out: Path, *models: str):
    """Run a program and return (its arrays, what it printed)."""
    done = subprocess.run(
        [python, "-c", program, work, out, *models],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return np.load(f"{out}.npz"), json.loads(done.stdout.splitlines()[-1])


# --- what they resize, against their own arithmetic ---------------------------------------------


@pytest.mark.parametrize("size", [(180, 320), (33, 47), (64, 200), (1, 9), (300, 64)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_frames_are_opencvs_perspective_warp(size, turns):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    photo = cv2.GaussianBlur(photo, (0, 0), 2)  # versions of OpenCV round places differently
    height, width = size
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    target = np.float32([[0, 0], [64, 0], [64, 64], [0, 64]])
    matrix = cv2.getPerspectiveTransform(np.roll(corners, turns, axis=0), target)
    theirs = cv2.warpPerspective(
        photo, matrix, (64, 64), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    shifted = turns in (2, 3), turns in (1, 2)
    ours = resize_as_opencv(np.rot90(photo, -turns), 64, 64, shifted=shifted)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("size", [(180, 320), (64, 64), (128, 128), (192, 192), (256, 256), (9, 7),
                                  (1, 1), (64, 100), (100, 64), (192, 64)])  # fmt: skip
def test_frames_as_libyuv_keep_what_is_flat_and_find_their_places(size):
    height, width = size
    flat = resize_as_libyuv(np.full((height, width, 3), 200, np.uint8), 64, 64)
    assert flat.shape == (64, 64, 3)
    assert 198 <= flat.min() <= flat.max() <= 200
    ramp = np.broadcast_to(np.linspace(0, 255, width).round()[:, None], (height, width, 3))
    sized = resize_as_libyuv(ramp.astype(np.uint8), 64, 64)[0, :, 0].astype(float)
    if width > 1:
        assert np.abs(sized - np.linspace(sized[0], sized[-1], 64)).max() < 4


# --- the two libraries themselves ---------------------------------------------------------------


def compare(theirs, ours):
    their_arrays, their_words = theirs
    our_arrays, our_words = ours
    differing = {name for name in their_words if their_words[name] != our_words[name]}
    assert not differing, {name: (their_words[name], our_words[name]) for name in differing}
    assert set(their_arrays) == set(our_arrays)
    for name in their_arrays:
        one, other = their_arrays[name], our_arrays[name]
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        if one.dtype == np.uint8:
            assert (one == other).mean() >= 0.999, name
        else:
            np.testing.assert_allclose(one, other, atol=2e-5, err_msg=name)
    assert len(np.unique(our_arrays["float"])) > 2


@pytest.mark.clients
def test_a_program_for_the_task_library(clients, work, tmp_path):
    python = clients / "tflite-support/bin/python"
    theirs, ours = (TASK_LIBRARY.format(module=TASK_LINE[whose]) for whose in TASK_LINE)
    compare(
        run(python, theirs, work, tmp_path / "theirs", "float", "small"),
        run(sys.executable, ours, work, tmp_path / "ours", "float", "small"),
    )


@pytest.mark.clients
def test_a_program_for_mediapipe(clients, work, tmp_path):
    python = clients / "mediapipe/bin/python"
    theirs, ours = (MEDIAPIPE.format(import_line=MEDIAPIPE_LINE[w]) for w in MEDIAPIPE_LINE)
    compare(
        run(python, theirs, work, tmp_path / "theirs", "float", "small"),
        run(sys.executable, ours, work, tmp_path / "ours", "float", "small"),
    )


STARTER = "deeplabv3_with_metadata.tflite"


@pytest.mark.clients
@pytest.mark.reference
def test_the_starter_model_gives_their_masks(clients, reference, work, tmp_path):
    """Of a published float model, no pixel differs."""
    model = str(reference / "models" / STARTER)
    for client, program, key, line in (
        ("tflite-support", STARTER_TASK_LIBRARY, "module", TASK_LINE),
        ("mediapipe", STARTER_MEDIAPIPE, "import_line", MEDIAPIPE_LINE),
    ):
        pythons = {"theirs": clients / client / "bin/python", "ours": sys.executable}
        theirs, ours = (
            run(python, program.format(**{key: line[whose]}), work, tmp_path / whose, model)[0]
            for whose, python in pythons.items()
        )
        np.testing.assert_array_equal(theirs["mask"], ours["mask"])
        if client == "mediapipe":
            np.testing.assert_allclose(theirs["person"], ours["person"], atol=1e-4)


# --- without them -------------------------------------------------------------------------------


@pytest.fixture
def frame(work) -> np.ndarray:
    return np.load(work / "frame.npy")


def test_the_task_library_takes_class_0_where_no_logit_is_above_0(work, frame):
    image = vision.TensorImage.create_from_array(frame)
    segmenter = vision.ImageSegmenter.create_from_file(str(work / "float.tflite"))
    mask = segmenter.segment(image).segmentations[0].category_mask
    options = vision.ImageSegmenterOptions(
        core.BaseOptions(str(work / "float.tflite")),
        processor.SegmentationOptions(output_type=processor.OutputType.CONFIDENCE_MASK),
    )
    found = vision.ImageSegmenter.create_from_options(options).segment(image).segmentations[0]
    logits = np.stack([plane.value for plane in found.confidence_masks], axis=-1)
    below = (logits <= 0).all(axis=-1)
    assert 0 < below.mean() < 1
    np.testing.assert_array_equal(mask, np.where(below, 0, logits.argmax(axis=-1)))


@pytest.mark.parametrize("exact", [False, True])
def test_options_of_our_own_give_shares_and_exact_masks(exact, work, frame):
    path = str(work / "float.tflite")
    ours = Segmenter(path)(frame)
    base = mp.BaseOptions(path)
    with mp.ImageSegmenter.create_from_options(
        mp.ImageSegmenterOptions(base, output_category_mask=True, softmax=True, exact_masks=exact)
    ) as segmenter:
        found = segmenter.segment(mp.Image(mp.ImageFormat.SRGB, frame))
    shares = np.stack([plane.numpy_view() for plane in found.confidence_masks])
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    wanted = processor.SegmentationOptions(
        output_type=processor.OutputType.CONFIDENCE_MASK, softmax=True, exact_masks=exact
    )
    options = vision.ImageSegmenterOptions(core.BaseOptions(path), wanted)
    planes = vision.ImageSegmenter.create_from_options(options).segment(
        vision.TensorImage.create_from_array(frame)
    )
    values = np.stack([plane.value for plane in planes.segmentations[0].confidence_masks])
    np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-5)
    if exact:
        np.testing.assert_array_equal(found.category_mask.numpy_view()[:, :, 0], ours.mask)
        assert values.shape[1:] == ours.mask.shape
        np.testing.assert_allclose(shares[1, :, :, 0], ours.probability("tree"), atol=1e-5)
        np.testing.assert_allclose(values[1], ours.probability("tree"), atol=1e-5)


def test_exact_masks_are_turned_back(work, frame):
    options = mp.ImageSegmenterOptions(
        mp.BaseOptions(str(work / "float.tflite")), output_category_mask=True, exact_masks=True
    )
    segmenter = mp.ImageSegmenter.create_from_options(options)
    upright = segmenter.segment(mp.Image(mp.ImageFormat.SRGB, frame))
    lying = mp.Image(mp.ImageFormat.SRGB, np.ascontiguousarray(np.rot90(frame)))
    turned = segmenter.segment(lying, mp.vision.ImageProcessingOptions(rotation_degrees=90))
    np.testing.assert_array_equal(
        np.rot90(upright.category_mask.numpy_view()), turned.category_mask.numpy_view()
    )


def test_a_live_stream_drops_what_is_old_and_survives_its_callback(work, frame, caplog):
    times: list[int] = []
    go_on, first = threading.Event(), threading.Event()

    def on_result(result, image, timestamp_ms):
        times.append(timestamp_ms)
        first.set()
        go_on.wait(30)
        raise RuntimeError("of the program")

    options = mp.ImageSegmenterOptions(
        mp.BaseOptions(str(work / "float.tflite")),
        running_mode=mp.RunningMode.LIVE_STREAM,
        result_callback=on_result,
    )
    segmenter = mp.ImageSegmenter.create_from_options(options)
    image = mp.Image(mp.ImageFormat.SRGB, frame)
    segmenter.segment_async(image, 0)
    assert first.wait(30)
    for time in (10, 20, 30):
        segmenter.segment_async(image, time)
    go_on.set()
    segmenter.close()
    assert times == [0, 30]
    assert "of the program" in caplog.text
    with pytest.raises(RuntimeError, match="closed"):
        segmenter.segment_async(image, 40)


def test_confidences_are_computed_when_they_are_looked_at(work, frame, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "deeplab.integrations.mediapipe._weigh",
        lambda *a, **k: calls.append(1) or _weigh(*a, **k),
    )
    segmenter = mp.ImageSegmenter.create_from_model_path(str(work / "float.tflite"))
    masks = segmenter.segment(mp.Image(mp.ImageFormat.SRGB, frame)).confidence_masks
    assert not calls
    assert masks[2].numpy_view() is masks[2].numpy_view()
    assert len(calls) == 2  # rows and columns, once


def test_a_model_may_be_named(frame):
    ours = Segmenter("voc-fast", fit="stretch")(cv2.resize(frame, (577, 577)))
    options = mp.ImageSegmenterOptions(mp.BaseOptions("voc-fast"), output_category_mask=True)
    segmenter = mp.ImageSegmenter.create_from_options(options)
    mask = segmenter.segment(mp.Image(mp.ImageFormat.SRGB, frame)).category_mask.numpy_view()
    assert mask.shape == (180, 320, 1)
    assert (cv2.resize(ours.mask, (320, 180), interpolation=0) == mask[:, :, 0]).mean() > 0.97
    segmenter = vision.ImageSegmenter.create_from_file("voc-fast")
    found = segmenter.segment(vision.TensorImage.create_from_array(frame)).segmentations[0]
    assert (found.height, found.width) == (73, 73)


def test_a_region_of_interest_is_refused(work, frame):
    rect = mp.tasks.components.containers.rect.RectF(left=0, top=0, bottom=1, right=0.5)
    segmenter = mp.ImageSegmenter.create_from_model_path(str(work / "float.tflite"))
    image = mp.Image(mp.ImageFormat.SRGB, frame)
    with pytest.raises(ValueError, match="region-of-interest"):
        segmenter.segment(image, mp.vision.ImageProcessingOptions(rect))


@pytest.mark.parametrize("module", [mp.tasks.vision, task_library.vision])
def test_names_are_there(module):
    assert module.ImageSegmenter.create_from_options
    assert module.ImageSegmenterOptions


def test_photos_are_read_as_they_are_written(tmp_path):
    """The Task Library leaves a photo as it lies; MediaPipe turns it upright."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("L").save(tmp_path / "grey.png")
    image = vision.TensorImage.create_from_file
    assert image(tmp_path / "turned.png").buffer.shape == (8, 16, 3)
    assert image(tmp_path / "turned.png", upright=True).buffer.shape == (16, 8, 3)
    assert mp.Image.create_from_file(tmp_path / "turned.png").numpy_view().shape == (16, 8, 3)
    assert image(tmp_path / "palette.png").buffer.shape == (8, 16, 3)
    assert mp.Image.create_from_file(tmp_path / "grey.png").image_format == mp.ImageFormat.GRAY8
