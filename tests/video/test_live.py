from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from deeplab import cli
from deeplab.errors import ImageError
from deeplab.video.live import hide_password
from deeplab.video.read import VideoReader, _Clock
from tiny_tflite import tiny_network

pytest.importorskip("av", reason="needs the extra 'video'")


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Serve a stream with a password; give the process and its port."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("needs the system's Python with GStreamer's RTSP server")
    script = Path(__file__).with_name("rtsp_server.py")
    process = subprocess.Popen(
        [python, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port:
        process.wait()
        pytest.skip("needs GStreamer's RTSP server (Debian: gir1.2-gst-rtsp-server-1.0)")
    yield process, int(port)
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_stream_has_its_own_times_and_its_end_is_told(
    server: tuple[subprocess.Popen[str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process, port = server
    with VideoReader(f"rtsp://me:secret@127.0.0.1:{port}/live") as reader:
        assert reader.info.live
        assert "secret" not in reader.info.name
        frames = iter(reader)
        taken = [next(frames) for _ in range(6)]
        times = [frame.time for frame in taken]
        assert [later - time for time, later in itertools.pairwise(times)] == (
            pytest.approx([0.04] * 5, abs=0.03)
        )
        assert reader.counts.retimed <= 1, "the first comes before the stream's clock is known"
        process.kill()
        assert len(list(frames)) < 1000
        assert reader.finished
    model = tmp_path / "tiny.tflite"
    model.write_bytes(tiny_network(frame=65))
    (tmp_path / "labels.txt").write_text("background\ncat\ndog\nbird\n")
    words = ["segment", f"rtsp://me:secret@127.0.0.1:{port}/live", "-o", str(tmp_path / "out")]
    code = cli.run([*words, "-m", str(model), "--labels", str(tmp_path / "labels.txt")])
    error = capsys.readouterr().err
    assert code == 1
    assert "connection refused" in error
    assert "address and its port" in error
    assert "secret" not in error


def test_a_stream_that_breaks_off_is_no_silent_end(
    server: tuple[subprocess.Popen[str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from threading import Timer

    process, port = server
    (tmp_path / "tiny.tflite").write_bytes(tiny_network(frame=65))
    (tmp_path / "labels.txt").write_text("background\ncat\ndog\nbird\n")
    out = tmp_path / "out"
    address = f"rtsp://me:secret@127.0.0.1:{port}/live"
    words = ["segment", address, "-o", str(out), "-m", str(tmp_path / "tiny.tflite")]
    with VideoReader(address):  # it plays
        Timer(3, process.kill).start()
    code = cli.run([*words, "--labels", str(tmp_path / "labels.txt")])
    error = capsys.readouterr().err
    assert code == 0, error
    assert "the stream ended by itself after" in error
    (film,) = out.glob("*.overlay.mp4")
    with VideoReader(film) as reader:
        assert len(list(reader)) > 0


@pytest.mark.parametrize(
    ("user", "path", "words"),
    [
        ("me:wrong@", "live", "401 .* right user and password"),
        ("", "live", "401 .* right user and password"),
        ("me:secret@", "other", "404 .* no such stream: check the path"),
    ],
)
def test_why_a_stream_is_not_opened(
    user: str, path: str, words: str, server: tuple[subprocess.Popen[str], int]
) -> None:
    with pytest.raises(ImageError, match=words) as told:
        VideoReader(f"rtsp://{user}127.0.0.1:{server[1]}/{path}")
    assert "wrong" not in str(told.value)
    assert "secret" not in str(told.value)


def test_passwords_are_not_shown() -> None:
    assert (
        hide_password("rtsp://a:b@c:d@cam.example:554/x?y=z") == "rtsp://a:…@cam.example:554/x?y=z"
    )
    assert hide_password("rtsp://cam.example:554/x@y:1") == "rtsp://cam.example:554/x@y:1"
    assert hide_password("clip:1@2.mp4") == "clip:1@2.mp4"


def test_a_stream_whose_first_frame_has_no_time_is_not_retimed_for_good() -> None:
    clock = _Clock(Fraction(1, 90_000), 3600, start=3600)
    assert [clock.tell(pts) for pts in (None, 3600, 7200, 14_400)] == [0, 3600, 7200, 14_400]
    assert clock.retimed == 1
