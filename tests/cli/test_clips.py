from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from deeplab import cli
from tiny_tflite import tiny_network

pytest.importorskip("av", reason="needs the extra 'video'")
if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
    pytest.skip("needs ffmpeg and ffprobe, the oracles", allow_module_level=True)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "in").mkdir()
    words = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10:duration=1"]
    words += ["-f", "lavfi", "-i", "sine=440:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    subprocess.run([*words, "-c:a", "aac", folder / "in" / "clip.mp4"], check=True)
    Image.new("RGB", (40, 30), (90, 120, 10)).save(folder / "in" / "photo.png")
    (folder / "in" / "notes.ts").write_text("export const typescript = 1;\n")
    (folder / "in" / "bad.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(100))
    (folder / "tiny.tflite").write_bytes(tiny_network(frame=65))
    (folder / "labels.txt").write_text("background\ncat\ndog\nbird\n")
    return folder


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], inputs: Path) -> Run:
    def run_one(*arguments: str | Path, model: bool = True) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if model:
            words += ["-m", str(inputs / "tiny.tflite"), "--labels", str(inputs / "labels.txt")]
        code = cli.run(["segment", *words])
        out, err = capfd.readouterr()
        ours = [line for line in err.splitlines() if not line.startswith("INFO: ")]
        return code, out, "\n".join(ours)

    return run_one


def packets(path: Path) -> int:
    words = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0", "-of", "csv=p=0"]
    words += ["-show_entries", "stream=nb_read_packets", path]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def test_a_folder_of_photos_and_clips(run: Run, inputs: Path, tmp_path: Path) -> None:
    code, out, err = run(inputs / "in", "-o", tmp_path)
    assert code == 1
    assert "clip.mp4: 10 frames, 1.0 s, 96×64" in out
    assert "flicker" in out
    assert "bad.mov: is no video that can be read" in err
    assert "1 of 3 photos and videos could not be done" in err
    assert "passed over: 1 .ts" in err
    names = {"clip.overlay.mp4", "clip.mask.mkv", "photo.overlay.jpg", "photo.mask.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert packets(tmp_path / "clip.overlay.mp4") == packets(tmp_path / "clip.mask.mkv") == 10


def test_everything_that_is_saved_of_a_clip(run: Run, inputs: Path, tmp_path: Path) -> None:
    kinds = "overlay,contour,blur,cutout,json,mask,mask-pngs"
    code, out, err = run(inputs / "in" / "clip.mp4", "-o", tmp_path, "--save", kinds, "--json")
    assert code == 0, err
    (told,) = json.loads(out)["videos"]
    assert told["frames"] == 10
    assert 0 <= told["flicker"] <= 1
    assert set(told["files"]) == set(kinds.split(","))
    for path in map(Path, told["files"].values()):
        assert path.exists()
        if path.suffix in (".mp4", ".webm", ".mkv"):
            assert packets(path) == 10
    lines = [json.loads(line) for line in (tmp_path / "clip.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == [index / 10 for index in range(10)]
    assert sum(found["share"] for found in lines[3]["classes"]) == pytest.approx(1)
    pngs = sorted((tmp_path / "clip.masks").iterdir())
    assert [path.name for path in pngs] == [f"{index:06}.png" for index in range(10)]
    with Image.open(pngs[0]) as first:
        assert (first.mode, first.size) == ("P", (96, 64))
    before = (tmp_path / "clip.mask.mkv").read_bytes()
    code, _, err = run(inputs / "in" / "clip.mp4", "-o", tmp_path, "--save", kinds)
    assert (code, "exists already" in err) == (2, True)
    code, _, err = run(inputs / "in" / "clip.mp4", "-o", tmp_path, "--save", kinds, "--overwrite")
    assert code == 0, err
    assert (tmp_path / "clip.mask.mkv").read_bytes() == before


def test_results_beside_their_clip_are_not_segmented_again(
    run: Run, inputs: Path, tmp_path: Path
) -> None:
    shutil.copy(inputs / "in" / "clip.mp4", tmp_path)
    for _ in range(2):
        words = ("-o", tmp_path, "--save", "overlay,mask-pngs", "--overwrite", "--json")
        code, out, err = run(tmp_path, *words)
        assert code == 0, err
        assert len(json.loads(out)["videos"]) == 1
        assert "photos" not in json.loads(out)
    assert "earlier results" in err


def test_what_does_not_go_together_is_refused(run: Run, inputs: Path, tmp_path: Path) -> None:
    clip = inputs / "in" / "clip.mp4"
    for words, part in [
        ((clip, "--save", "probabilities"), "'probabilities' is not written of videos"),
        ((inputs / "in", "--save", "mask-pngs"), "'mask-pngs' is not written of photos"),
        ((clip, "--crf"), "--crf: refines photos"),
        ((clip, "--show"), "--show: draws into a terminal"),
        ((clip, "--seconds", "nan"), "--seconds"),
        ((inputs / "in" / "bad.mov", "/dev/video99"), "could not be done"),
    ]:
        code, _, err = run(*words, "-o", tmp_path / "out")
        assert code in (1, 2)
        assert part in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_only_and_seconds(run: Run, inputs: Path, tmp_path: Path) -> None:
    words = ("--only", "cat", "--seconds", "0.5", "--no-steady", "--json", "--save", "json")
    code, out, err = run(inputs / "in" / "clip.mp4", "-o", tmp_path, *words)
    assert code == 0, err
    assert json.loads(out)["videos"][0]["frames"] == 5
    for line in (tmp_path / "clip.jsonl").read_text().splitlines():
        assert {found["name"] for found in json.loads(line)["classes"]} <= {"background", "cat"}


def test_an_interrupt_that_somebody_dropped_ends_it_too(
    run: Run, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(*_: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("deeplab.cli.clips._Watch.tell", drop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background: it is ignored
    try:
        code, _, err = run(inputs / "in" / "clip.mp4", "-o", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "its files were closed and play" in err
    assert packets(tmp_path / "clip.overlay.mp4") == 1


def test_a_live_source_that_is_stopped_leaves_files_that_play(inputs: Path, tmp_path: Path) -> None:
    # MPEG-TS over HTTP, as many cameras send it; the sender goes on until it is told to end.
    port = 20_000 + os.getpid() % 20_000
    address = f"http://127.0.0.1:{port}/camera?key=secret"
    words = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10"]
    words += ["-c:v", "libx264", "-tune", "zerolatency", "-g", "10", "-pix_fmt", "yuv420p"]
    words += ["-f", "mpegts", "-listen", "1", address.partition("?")[0]]
    sender = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    # Tests that run in the background inherit that Ctrl-C is ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from deeplab.cli import main; main()"
    words = [sys.executable, "-c", code, "segment", address, "-o", str(tmp_path), "-m"]
    words += [str(inputs / "tiny.tflite"), "--labels", str(inputs / "labels.txt")]
    ours = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*.part.mp4")) and time.monotonic() < deadline:
            assert ours.poll() is None, ours.communicate()
            time.sleep(0.2)
        time.sleep(3)
        ours.send_signal(signal.SIGINT)
        out, err = ours.communicate(timeout=60)
    finally:
        ours.kill()
        sender.kill()
        sender.wait()
    assert ours.returncode == 130, err
    assert "its files were closed and play" in err
    name = f"127-0-0-1-{port}-camera"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.mask.mkv", f"{name}.overlay.mp4"]
    assert packets(tmp_path / f"{name}.overlay.mp4") >= 5
    assert "frames" in out
