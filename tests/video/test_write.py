from __future__ import annotations

import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ffmpeg_oracle import frame_times, probe, rotation

from deeplab.errors import InputError, OutputError
from deeplab.video.read import VideoReader
from deeplab.video.write import VideoWriter


def copy(source: Path, target: Path) -> VideoWriter:
    with VideoReader(source) as reader, VideoWriter(target, like=reader) as writer:
        for frame in reader:
            writer.write(frame.photo.pixels(), frame)
    return writer


@pytest.mark.parametrize("name", ["plain.mp4", "turned.mp4", "variable.mp4", "full.mp4"])
def test_ffprobe_finds_what_the_source_has(clips: Path, tmp_path: Path, name: str) -> None:
    writer = copy(clips / name, tmp_path / "out.mp4")
    assert writer.notes == []
    before, after = probe(clips / name), probe(tmp_path / "out.mp4")
    for field in ("nb_read_packets", "width", "height", "color_range", "color_space", "pix_fmt"):
        found, wanted = (str(told["video"].get(field)) for told in (after, before))
        assert found.replace("yuvj", "yuv") == wanted.replace("yuvj", "yuv"), field
    assert after["video"]["codec_name"] == "h264"
    assert rotation(after) == rotation(before) == (90 if name == "turned.mp4" else 0)
    assert float(after["video"]["duration"]) == pytest.approx(
        float(before["video"]["duration"]), abs=0.001
    )
    assert frame_times(tmp_path / "out.mp4") == pytest.approx(frame_times(clips / name), abs=1e-6)
    if "audio" in before:
        for field in ("codec_name", "nb_read_packets", "sample_rate", "start_time"):
            assert after["audio"][field] == before["audio"][field], field


@pytest.mark.parametrize("name", ["plain.mp4", "full.mp4", "turned.mp4"])
def test_colours_come_back(clips: Path, tmp_path: Path, name: str) -> None:
    copy(clips / name, tmp_path / "out.mp4")
    with VideoReader(clips / name) as reader, VideoReader(tmp_path / "out.mp4") as again:
        for before, after in zip(reader, again, strict=True):
            difference = before.photo.pixels().astype(int) - after.photo.pixels()
            assert abs(difference.mean()) < 1
            assert np.abs(difference).mean() < 8


def test_sound_is_the_same_bytes(clips: Path, tmp_path: Path) -> None:
    copy(clips / "plain.mp4", tmp_path / "out.mp4")

    def sound(path: Path) -> bytes:
        words = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", "-"]
        return subprocess.run(words, check=True, capture_output=True).stdout

    assert sound(tmp_path / "out.mp4") == sound(clips / "plain.mp4")


def test_sound_that_the_container_does_not_take_is_encoded_and_said(
    clips: Path, tmp_path: Path
) -> None:
    with (
        VideoReader(clips / "pcm.mov") as reader,
        VideoWriter(tmp_path / "out.webm", like=reader) as writer,
    ):
        for frame in reader:
            writer.write(np.full((96, 128, 4), 255, np.uint8), frame)
    assert "encoded as libopus" in writer.notes[0]
    told = probe(tmp_path / "out.webm")
    assert told["audio"]["codec_name"] == "opus"
    assert float(told["format"]["duration"]) == pytest.approx(2, abs=0.05)
    assert frame_times(tmp_path / "out.webm")[0] == 0


def test_masks_come_back_pixel_for_pixel(clips: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("odd.mkv", "point.mkv", "turned.mp4"):
        with VideoReader(clips / name) as reader:
            shape = (reader.info.height, reader.info.width)
            masks = []
            with VideoWriter(tmp_path / "out.mkv", like=reader) as writer:
                for frame in reader:
                    masks.append(rng.integers(0, 256, shape, np.uint8))
                    writer.write(masks[-1], frame)
        words = ["ffmpeg", "-v", "error", "-i", tmp_path / "out.mkv", "-f", "rawvideo"]
        raw = subprocess.run([*words, "-pix_fmt", "gray", "-"], check=True, capture_output=True)
        assert np.array_equal(np.frombuffer(raw.stdout, np.uint8).reshape(-1, *shape), masks)


def test_cutouts_are_transparent(clips: Path, tmp_path: Path) -> None:
    with (
        VideoReader(clips / "plain.mp4") as reader,
        VideoWriter(tmp_path / "out.webm", like=reader) as writer,
    ):
        for frame in reader:
            alpha = np.zeros((96, 128, 1), np.uint8)
            alpha[:, 64:] = 255
            writer.write(np.concatenate([frame.photo.pixels(), alpha], axis=2), frame)
    told = probe(tmp_path / "out.webm")
    assert {k.lower(): v for k, v in told["video"]["tags"].items()}["alpha_mode"] == "1"
    words = ["ffmpeg", "-v", "error", "-c:v", "libvpx-vp9", "-i", tmp_path / "out.webm"]
    words += ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    raw = subprocess.run(words, check=True, capture_output=True).stdout
    alpha = np.frombuffer(raw, np.uint8).reshape(96, 128, 4)[..., 3]
    assert alpha[:, :56].max() < 16
    assert alpha[:, 72:].min() > 240


def test_odd_sides_are_filled_up_and_said(clips: Path, tmp_path: Path) -> None:
    writer = copy(clips / "odd.mkv", tmp_path / "out.mp4")
    assert writer.notes == ["its sides were odd; H.264 got one more row or column"]
    told = probe(tmp_path / "out.mp4")
    assert (told["video"]["width"], told["video"]["height"]) == (128, 96)


def test_ctrl_c_leaves_a_file_that_plays_and_an_error_leaves_none(
    clips: Path, tmp_path: Path
) -> None:
    def stop(name: str, error: type[BaseException]) -> None:
        with (
            VideoReader(clips / "plain.mp4") as reader,
            VideoWriter(tmp_path / name, like=reader) as writer,
        ):
            for frame in reader:
                writer.write(frame.photo.pixels(), frame)
                if frame.index == 20:
                    raise error

    for name, error in (("stopped.mp4", KeyboardInterrupt), ("broken.mp4", ValueError)):
        with pytest.raises(error):
            stop(name, error)
    assert [path.name for path in tmp_path.iterdir()] == ["stopped.mp4"]
    told = probe(tmp_path / "stopped.mp4")
    assert told["video"]["nb_read_packets"] == "21"
    assert float(told["audio"]["duration"]) == pytest.approx(21 / 25, abs=0.05)


def test_a_full_disk_leaves_nothing_that_looks_whole(clips: Path, tmp_path: Path) -> None:
    # A limit on the size of files does what a full disk does.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path\n"
        "from test_write import copy\n"
        "from deeplab.errors import OutputError\n"
        "try: copy(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except OutputError as error: print(error)\n"
    )
    copy(clips / "plain.mp4", tmp_path / "out.mp4")
    size = (tmp_path / "out.mp4").stat().st_size
    (tmp_path / "out.mp4").unlink()
    for limit in (1000, size // 2, size - 1000):
        target = tmp_path / "out.mp4"
        words = [sys.executable, "-c", code, clips / "plain.mp4", target, limit]
        words += [Path(__file__).parent]
        quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # bytecode, cut off, would stay
        words = list(map(str, words))
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=quiet)
        assert "cannot write" in done.stdout, (limit, done.stdout, done.stderr)
        assert "too large" in done.stdout.lower()
        assert list(tmp_path.iterdir()) == []


def test_errors_of_the_encoder_are_the_systems(clips: Path, tmp_path: Path) -> None:
    with VideoReader(clips / "plain.mp4") as reader:
        writer = VideoWriter(tmp_path / "out.mp4", like=reader)

        def full() -> None:
            raise writer._av.error.OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(OutputError, match=r"cannot write .*out\.mp4: no space left"):
            writer._try(full)


def test_arguments(clips: Path, tmp_path: Path) -> None:
    with VideoReader(clips / "plain.mp4") as reader:
        with pytest.raises(InputError, match=r"cannot hold this; expected \.mp4"):
            VideoWriter(tmp_path / "out.avi", like=reader)
        with pytest.raises(OutputError, match="there is no folder"):
            VideoWriter(tmp_path / "no" / "out.mp4", like=reader)
        frames = iter(reader)
        first = next(frames)
        with VideoWriter(tmp_path / "out.mp4", like=reader) as writer:
            with pytest.raises(InputError, match="expected RGB of 96×128"):
                writer.write(np.zeros((96, 128), np.uint8), first)
            writer.write(np.zeros((96, 128, 3), np.uint8), first)
            with pytest.raises(InputError, match="is not after"):
                writer.write(np.zeros((96, 128, 3), np.uint8), first)
    writer.close()  # a second time does nothing
    assert writer._end == Fraction(1, 25)
