"""Clips as other programs write them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ffmpeg_oracle import ffmpeg

SIDE = "size=128x96"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of clips: plain, turned, of variable rate, odd, cut off, broken, …"""
    pytest.importorskip("av", reason="needs the extra 'video'")
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("needs ffmpeg and ffprobe, the oracles")
    folder = tmp_path_factory.mktemp("clips")
    plain = folder / "plain.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2={SIDE}:rate=25:duration=2"),
        *("-f", "lavfi", "-i", "sine=440:duration=2"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-movflags", "+faststart", plain),
    )
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", "rotate=90", folder / "turned.mp4")
    ffmpeg(
        *("-i", plain, "-vf", "select='not(mod(n,7))+not(mod(n,3))'", "-fps_mode", "vfr"),
        *("-c:a", "copy", "-video_track_timescale", "90000", folder / "variable.mp4"),
    )
    ffmpeg("-i", plain, "-c", "copy", folder / "stream.ts")
    ffmpeg("-i", plain, "-c", "copy", folder / "plain.mkv")
    ffmpeg("-i", plain, "-frames:v", "1", "-an", folder / "one.mp4")
    ffmpeg("-i", plain, "-vn", "-c:a", "copy", folder / "sound.m4a")
    ffmpeg("-i", plain, "-vf", "format=bgr0,crop=127:95", "-an", "-c:v", "ffv1", folder / "odd.mkv")
    ffmpeg("-i", plain, "-vf", "format=bgr0,crop=1:1", "-an", "-c:v", "ffv1", folder / "point.mkv")
    ffmpeg(
        *("-i", plain, "-c:v", "libx264", "-an", "-vf", "scale=out_range=full"),
        *("-color_range", "pc", "-colorspace", "bt709", folder / "full.mp4"),
    )
    ffmpeg("-i", plain, "-c:v", "copy", "-c:a", "pcm_s16le", folder / "pcm.mov")
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    ffmpeg(
        *("-i", plain, "-c", "copy", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key),
        *("-encryption_kid", key, folder / "locked.mp4"),
    )
    whole = plain.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index lies in front
    ffmpeg("-i", plain, "-c", "copy", folder / "behind.mp4")
    (folder / "no-index.mp4").write_bytes((folder / "behind.mp4").read_bytes()[:20_000])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all " * 200)
    damaged = bytearray(whole)
    for at in range(len(whole) // 3, len(whole), 700):
        damaged[at] ^= 0xFF
    (folder / "damaged.mp4").write_bytes(damaged)
    return folder
