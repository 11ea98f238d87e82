from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from deeplab import LabelSet, Segmenter
from deeplab.photo.memory import resident_bytes
from deeplab.video.read import VideoReader
from deeplab.video.write import VideoWriter
from tiny_tflite import tiny_network

LABELS = LabelSet(("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    path.write_bytes(tiny_network(frame=65))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deeplab.runtimes.check_runs", lambda *_, **__: None)
        return Segmenter(path, labels=LABELS, threads=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_frames_are_segmented_as_photos_in_order(
    clips: Path, segmenter: Segmenter, workers: int
) -> None:
    with VideoReader(clips / "turned.mp4") as reader:
        photos = [frame.photo.pixels() for frame in reader]
    with segmenter.video(clips / "turned.mp4", steady=False, workers=workers) as video:
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(50))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(50) / 25)
    for frame, photo in zip(frames, photos, strict=True):
        assert np.array_equal(frame.segmentation.mask, segmenter(photo).mask)
        assert np.array_equal(frame.segmentation.photo.pixels(), photo)
    assert frames[3].segmentation.name.endswith("turned.mp4, frame 3")


def test_a_large_frame_is_reduced_as_a_large_jpeg_is(clips: Path) -> None:
    with VideoReader(clips / "plain.mp4") as reader:
        photo = next(iter(reader)).photo
    assert photo.decode().size == (128, 96)
    assert photo.decode(at_least=(16, 21)).size == (64, 48)
    assert photo.decode(at_least=(17, 21)).size == (128, 96)
    half = np.asarray(photo.decode(at_least=(16, 21))).astype(int)
    assert np.abs(half - np.asarray(photo.decode().reduce(2))).mean() < 10


def test_what_is_made_of_a_frame_comes_with_it(
    clips: Path, segmenter: Segmenter, tmp_path: Path
) -> None:
    with (
        segmenter.video(clips / "plain.mp4", flicker=True, seconds=1) as video,
        VideoWriter(tmp_path / "out.mp4", like=video) as writer,
    ):
        for frame, picture in video.map(lambda f: writer.prepare(f.segmentation.overlay())):
            writer.write(picture, frame)
    assert writer.frames == 25
    assert video.flicker is not None
    assert 0 <= video.flicker < 1
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == 25


def test_an_error_in_the_middle_reaches_the_caller(clips: Path, segmenter: Segmenter) -> None:
    def fail(frame: object) -> None:
        raise ValueError("in another thread")

    with (
        segmenter.video(clips / "plain.mp4") as video,
        pytest.raises(ValueError, match="in another thread"),
    ):
        list(video.map(fail))


def test_memory_stays_flat(clips: Path, segmenter: Segmenter) -> None:
    taken = []
    for _ in range(8):
        with segmenter.video(clips / "plain.mp4") as video:
            for _ in video.map(lambda frame: frame.segmentation.overlay()):
                pass
        gc.collect()
        taken.append(resident_bytes() or 0)
    assert taken[-1] - taken[3] < 8_000_000, taken
