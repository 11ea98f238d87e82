"""Moving pictures on the page: the camera (a clip and a still stand for one) and video files."""

from __future__ import annotations

import io
import re
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hosting import STARTER
from PIL import Image, ImageOps

from deeplab import Segmenter

pytestmark = [pytest.mark.reference, pytest.mark.integration]

SIZE = (1280, 720)

COUNT_EVERY_DRAWING = """
  // Browsers may put off what a canvas is told to draw. Reading a pixel back waits for it, so the
  // time that the page measures is the whole of it.
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...rest) {
    draw.apply(this, rest);
    if (this.canvas.id === 'canvas') this.getImageData(0, 0, 1, 1);
  };
"""

SECOND_CAMERA = """
  const cameras = [{ kind: 'videoinput' }, { kind: 'videoinput' }];
  if (navigator.mediaDevices) navigator.mediaDevices.enumerateDevices = async () => cameras;
"""

WATCH_TRACKS = """
  window.tracks = [];
  const open = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (open) navigator.mediaDevices.getUserMedia = async (wanted) => {
    const media = await open(wanted);
    tracks.push(...media.getTracks());
    return media;
  };
"""


def motion_jpeg(frames: list[Image.Image], path: Path) -> Path:
    """Write what Chromium takes for a camera: JPEG after JPEG."""
    with path.open("wb") as file:
        for frame in frames:
            content = io.BytesIO()
            ImageOps.fit(frame, SIZE).save(content, "JPEG", quality=85)
            file.write(content.getvalue())
    return path


def clip_frames(path: Path, count: int) -> list[Image.Image]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < count:
        found, frame = video.read()
        assert found
        frames.append(Image.fromarray(frame[:, :, ::-1]))
    video.release()
    return frames


@pytest.fixture
def camera_page(launch, open_page, host, tmp_path):
    """Return a function that opens the page in a browser whose camera shows these frames."""

    def start(frames: list[Image.Image]):
        path = motion_jpeg(frames, tmp_path / "camera.mjpeg")
        browser = launch(
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-video-capture={path}",
        )
        script = COUNT_EVERY_DRAWING + SECOND_CAMERA + WATCH_TRACKS
        return open_page(browser, host, permissions=["camera"], init_script=script)

    return start


def milliseconds(page, step: str) -> float:
    return float(page.get_attribute(f"#ms-{step}", "data-ms"))


def watch_numbers(page, seconds: float) -> dict[str, float]:
    """Return the medians of what the page says of its speed, over some time."""
    seen: dict[str, list[float]] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        page.wait_for_timeout(250)
        for step in ("fit", "network", "mask", "draw"):
            seen.setdefault(step, []).append(milliseconds(page, step))
    return {step: statistics.median(values) for step, values in seen.items()}


def test_the_camera_runs_live(camera_page, reference):
    clip = clip_frames(reference / "photos" / "pexels_video.mp4", 40)
    page = camera_page(clip)
    page.click(".empty [data-action=camera]")
    page.wait_for_selector(".screen[data-state=live]")
    page.wait_for_selector("#legend li")
    page.wait_for_timeout(2000)  # for the browser's compiler
    numbers = watch_numbers(page, 4)
    rate = page.inner_text("#rate")
    assert re.fullmatch(r"[\d.]+ frames/s", rate)
    assert page.evaluate("[canvas.width, canvas.height]") == list(SIZE)
    print(
        f"\nlive at 1280×720: {rate}; " + ", ".join(f"{k} {v:.1f} ms" for k, v in numbers.items())
    )

    # It can be paused, and goes on.
    page.click("[data-action=pause]")
    page.wait_for_timeout(1500)  # for what was on its way
    before = page.get_attribute("#ms-network", "data-ms")
    page.wait_for_timeout(700)
    assert page.get_attribute("#ms-network", "data-ms") == before
    page.click("[data-action=pause]")
    page.wait_for_timeout(1000)
    assert page.get_attribute("#ms-network", "data-ms") != before
    # A second camera can be turned to.
    page.click("[data-action=turn]")
    page.wait_for_timeout(1000)
    assert page.get_attribute("#screen", "data-state") == "live"
    assert page.is_hidden("#problem")

    # What is on the screen is recorded.
    page.click("[data-action=record]")
    page.wait_for_timeout(1500)
    with page.expect_download() as caught:
        page.click("[data-action=record]")
    assert re.fullmatch(r"camera\.segmented\.(mp4|webm)", caught.value.suggested_filename)
    assert Path(caught.value.path()).stat().st_size > 10_000

    # Switched off, the camera is off: no track is live, and the last picture stays.
    page.click("[data-action=stop]")
    page.wait_for_selector(".screen[data-state=photo]")
    states = page.evaluate("tracks.map(({ readyState }) => readyState)")
    assert len(states) >= 2
    assert set(states) == {"ended"}
    assert page.is_hidden("[data-action=stop]")
    before = page.get_attribute("#ms-network", "data-ms")
    page.wait_for_timeout(400)
    assert page.get_attribute("#ms-network", "data-ms") == before
    with page.expect_download() as caught:
        page.click("[data-action=save-mask]")
    with Image.open(caught.value.path()) as mask:
        assert mask.size == SIZE


def test_a_still_before_the_camera_gives_pythons_mask(camera_page, reference):
    still = ImageOps.fit(Image.open(reference / "photos" / "horses.jpg"), SIZE)
    expected = Segmenter(reference / "models" / STARTER, threads=1)(still)
    largest = next(name for name in expected.shares if name != "background")
    page = camera_page([still] * 3)
    page.click(".empty [data-action=camera]")
    assert page.is_checked("#smooth")
    for smooth in (True, False):
        page.set_checked("#smooth", smooth, force=True)
        page.wait_for_timeout(1500)
        assert page.locator("#legend .name").first.inner_text() == largest
        with page.expect_download() as caught:
            page.click("[data-action=save-mask]")
        assert caught.value.suggested_filename == "camera.mask.png"
        mask = np.asarray(Image.open(caught.value.path()))
        equal = float((mask == expected.mask).mean())
        print(f"smooth {smooth}: {100 * equal:.3f} % of the pixels are Python's")
        assert equal > 0.98  # a camera's colours are rounded once more, to YUV and back


def test_a_camera_that_is_not_allowed_is_told_of(browser, open_page, host):
    page = open_page(browser, host)
    page.click(".empty [data-action=camera]")
    page.wait_for_selector("#problem:visible")
    assert re.search(r"camera", page.inner_text("#problem p"))


def test_a_video_file_plays(browser, open_page, host, reference):
    page = open_page(browser, host)
    page.set_input_files("#file", reference / "photos" / "pexels_video.mp4")
    page.wait_for_selector(".screen[data-state=live]")
    page.wait_for_selector("#legend li")
    assert page.is_visible("[data-action=pause]")
    assert page.is_hidden("[data-action=turn]")


def test_a_video_file_is_saved_frame_by_frame(browser, open_page, host, reference, tmp_path):
    frames = clip_frames(reference / "photos" / "pexels_video.mp4", 6)
    path = tmp_path / "clip.webm"
    size = (320, 180)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), 10, size)
    for frame in frames:
        writer.write(np.asarray(frame.resize(size))[:, :, ::-1])
    writer.release()
    page = open_page(browser, host)
    page.set_input_files("#file", path)
    page.wait_for_selector("#legend li")
    page.check("[name=effect][value=mask]", force=True)
    with page.expect_download(timeout=60_000) as caught:
        page.click("[data-action=save-video]")
    assert re.fullmatch(r"clip\.mask\.(mp4|webm)", caught.value.suggested_filename)
    saved = clip_frames(caught.value.path(), 6)
    assert saved[0].size == size
    # Where the network sees nothing the mask is black, frame by frame.
    segmenter = Segmenter(reference / "models" / STARTER, threads=1)
    for frame, drawn in zip(clip_frames(path, 6), saved, strict=True):
        seen = segmenter(frame).mask > 0
        lit = np.asarray(drawn).max(axis=2) > 60
        assert (seen == lit).mean() > 0.93
    page.wait_for_selector("#news >> text=is saved, frame by frame")
