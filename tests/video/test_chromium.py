"""What is written plays in a browser."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

from deeplab.video.read import VideoReader
from deeplab.video.write import VideoWriter

pytestmark = pytest.mark.integration

PLAY = """
async ([type, data]) => {
  const video = document.createElement('video');
  video.muted = true;
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  video.src = URL.createObjectURL(new Blob([bytes], { type }));
  await new Promise((done, fail) => {
    video.oncanplaythrough = done;
    video.onerror = () => fail(new Error(video.error.message));
  });
  await video.play();
  await new Promise((done) => (video.onended = done));
  return [video.videoWidth, video.videoHeight, video.duration, video.currentTime];
}
"""


def test_files_play_to_their_end(clips: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    files = []
    made = {"turned.mp4": "a.mp4", "variable.mp4": "b.mp4", "plain.mp4": "c.webm"}
    for name, target in made.items():
        files.append(tmp_path / target)
        with VideoReader(clips / name) as reader, VideoWriter(files[-1], like=reader) as writer:
            for frame in reader:
                pixels = frame.photo.pixels()
                alpha = [np.full((*pixels.shape[:2], 1), 255, np.uint8)]
                writer.write(np.dstack([pixels, *alpha]) if target[2:] == "webm" else pixels, frame)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for path, size in zip(files, [(96, 128), (128, 96), (128, 96)], strict=True):
            data = base64.b64encode(path.read_bytes()).decode()
            told = page.evaluate(PLAY, [f"video/{path.suffix[1:]}", data])
            assert tuple(told[:2]) == size, path
            assert told[2] == pytest.approx(2, abs=0.1), path
            assert told[3] == pytest.approx(told[2], abs=0.1), path
        browser.close()
