from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_oracle import ffmpeg, frame_times

from deeplab.errors import ImageError
from deeplab.video.live import is_live
from deeplab.video.orientation import Orientation
from deeplab.video.read import VideoReader, _Clock


@pytest.mark.parametrize("name", ["plain.mp4", "variable.mp4", "turned.mp4", "plain.mkv"])
def test_every_frame_has_its_time(clips: Path, name: str) -> None:
    with VideoReader(clips / name) as reader:
        times = [frame.time for frame in reader]
    assert times == pytest.approx(frame_times(clips / name), abs=1e-6)
    assert reader.counts.in_words() == ""


def test_a_clock_that_does_not_begin_at_0_does_here(clips: Path) -> None:
    expected = frame_times(clips / "stream.ts")
    with VideoReader(clips / "stream.ts") as reader:
        times = [frame.time for frame in reader]
        assert reader.start_seconds > 1
    assert np.diff(times) == pytest.approx(np.diff(expected), abs=1e-4)
    assert 0 <= times[0] < 0.1


def test_what_a_video_says_of_itself(clips: Path) -> None:
    with VideoReader(clips / "turned.mp4") as reader:
        info = reader.info
    assert (info.height, info.width) == (128, 96)  # upright
    assert (info.rate, info.frames, info.sound) == (25, 50, ("aac",))
    assert info.seconds == pytest.approx(2, abs=0.03)


def test_frames_come_upright_and_in_the_colours_of_others(clips: Path, tmp_path: Path) -> None:
    # ffmpeg turns frames itself where the matrix says so, by the same quarter of a turn.
    for name in ("turned.mp4", "full.mp4"):
        raw = tmp_path / "raw"
        words = ["ffmpeg", "-v", "error", "-y", "-i", clips / name, "-frames:v", "1"]
        words += ["-sws_flags", "bilinear+accurate_rnd", "-f", "rawvideo", "-pix_fmt", "rgb24", raw]
        subprocess.run(words, check=True)
        with VideoReader(clips / name) as reader:
            first = next(iter(reader)).photo.pixels()
        expected = np.frombuffer(raw.read_bytes(), np.uint8).reshape(first.shape)
        assert np.abs(first.astype(int) - expected).mean() < 6, name
        assert np.abs(first[::-1, ::-1].astype(int) - expected).mean() > 30, name


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_all_eight_orientations_are_undone(turn: int, flipped: bool) -> None:
    one = 1 << 16
    a, b, c, d = [(one, 0, 0, one), (0, one, -one, 0), (-one, 0, 0, -one), (0, -one, one, 0)][turn]
    if flipped:
        a, c = -a, -c
    orientation = Orientation((a, b, 0, c, d, 0, 0, 0, 1 << 30))
    stored = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    upright = orientation.turn_upright(stored)
    assert upright.shape[:2] == ((3, 2) if orientation.swaps_sides else (2, 3))
    assert np.array_equal(orientation.turn_back(upright), stored)
    # The matrix, applied to each point: its top left corner moved to 0, 0.
    points = [(y, x) for y in range(2) for x in range(3)]
    places = [(round((b * x + d * y) / one), round((a * x + c * y) / one)) for y, x in points]
    top, left = min(p[0] for p in places), min(p[1] for p in places)
    for (y, x), (v, u) in zip(points, places, strict=True):
        assert np.array_equal(upright[v - top, u - left], stored[y, x])


def test_damage_is_passed_over_and_counted(clips: Path) -> None:
    with VideoReader(clips / "damaged.mp4") as reader:
        frames = list(reader)
    assert len(frames) > 20
    assert reader.counts.broken > 0
    assert "damaged" in reader.counts.in_words()
    with VideoReader(clips / "cut.mp4") as reader:
        frames = list(reader)
    assert reader.info.frames == 50
    assert 5 < len(frames) < 45
    assert len(frames) + reader.counts.missing + reader.counts.broken == 50
    assert "cut off" in reader.counts.in_words()


@pytest.mark.parametrize("name", ["plain.mkv", "odd.mkv"])  # with sound and without
def test_matroska_cut_off_is_told_without_its_tags(name: str, clips: Path, tmp_path: Path) -> None:
    """mkvmerge writes the tracks' durations at the end, where they are lost first."""
    whole = (clips / name).read_bytes()
    assert whole.count(b"DURATION")
    untagged = whole.replace(b"DURATION", b"ANYTHING")
    path = tmp_path / name
    for data, kept in ((untagged, 50), (untagged[: len(whole) // 5], None)):
        path.write_bytes(data)
        with VideoReader(path) as reader:
            frames = len(list(reader))
        assert reader.counts.missing == 0 if kept else reader.counts.missing > 0, frames


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.mp4", "there is no such file"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "is no video that can be read"),
        ("no-index.mp4", "is cut off.*has lost its index"),
        ("sound.m4a", r"has no video in it, only sound \(aac\)"),
        ("locked.mp4", "is encrypted"),
        (".", "is a folder"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(clips: Path, name: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        VideoReader(clips / name)


def test_one_frame_and_one_pixel(clips: Path) -> None:
    with VideoReader(clips / "one.mp4") as reader:
        assert [frame.index for frame in reader] == [0]
    with VideoReader(clips / "point.mkv") as reader:
        assert {frame.photo.pixels().shape for frame in reader} == {(1, 1, 3)}


def test_times_that_are_missing_or_run_backwards_are_mended() -> None:
    clock = _Clock(Fraction(1, 1000), 40)
    told = [clock.tell(pts) for pts in (0, 40, None, 80, 121, 5, 45, 90_000)]
    assert told == [0, 40, 80, 120, 121, 161, 201, 90_000]
    assert clock.retimed == 4
    behind = _Clock(Fraction(1, 1000), 40, start=50_000)
    # A camera that was set back by a minute goes on from where it was.
    assert [behind.tell(pts) for pts in (50_000, 50_040, 0, 40, 100)] == [0, 40, 80, 120, 180]


@pytest.mark.parametrize("name", ["plain.mkv", "plain.webm"])
def test_a_file_that_tells_no_number_of_frames_is_not_cut_off_silently(
    name: str, clips: Path, tmp_path: Path
) -> None:
    whole = tmp_path / name
    codec = (
        ("-c", "copy")
        if name.endswith("mkv")
        else ("-c:v", "libvpx", "-an", "-deadline", "realtime")
    )
    ffmpeg("-i", clips / "plain.mp4", *codec, whole)
    with VideoReader(whole) as reader:
        assert len(list(reader)) == 50
        assert not reader.counts.in_words()
    cut = tmp_path / f"cut-{name}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with VideoReader(cut) as reader:
        frames = len(list(reader))
        assert frames < 45
        assert reader.counts.missing + reader.counts.broken == pytest.approx(50 - frames, abs=2)


def test_what_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert all(is_live(s) for s in ("0", "12", "/dev/video1", "rtsp://a/b", "HTTP://a", "udp://:1"))
    assert not any(is_live(s) for s in ("clip.mp4", "000", "0.mp4", "/dev/video", Path("a/0")))
    (tmp_path / "0").touch()
    assert not is_live("0")


def test_a_camera_that_is_not_there() -> None:
    if Path("/dev/video9").exists() or not sys.platform.startswith("linux"):
        pytest.skip("there is one, or this system names them otherwise")
    with pytest.raises(ImageError, match=r"/dev/video9.*no such file.*plugged in"):
        VideoReader("/dev/video9")


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from deeplab.video.read import VideoReader\n"
        "try: VideoReader('clip.mp4')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'deeplab[video]'" in done.stdout
