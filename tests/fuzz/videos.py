"""Small videos with something wrong in them: played and counted, or refused in one line."""

from __future__ import annotations

import functools
import io
import random as rng
from pathlib import Path

import av
import numpy as np
from photos import change

from deeplab.errors import DeepLabError
from deeplab.video.read import VideoReader

_KINDS = (("mp4", "libx264", "yuv420p"), ("mkv", "ffv1", "gray"), ("webm", "vp9", "yuv420p"),
          ("avi", "mjpeg", "yuvj420p"), ("ts", "libx264", "yuv420p"))  # fmt: skip
FRAMES = 12


@functools.cache
def _write(kind: int) -> bytes:
    form, codec, pixels = _KINDS[kind]
    stored = io.BytesIO()
    name = {"mkv": "matroska", "ts": "mpegts"}.get(form, form)
    with av.open(stored, "w", format=name) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(FRAMES):
            grain = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grain, format="rgb24")))
        file.mux(stream.encode(None))
    return stored.getvalue()


def run_one(random: rng.Random, folder: Path) -> str:
    """Play one changed video; frames that are lost from what the file promises are counted."""
    kind = random.randrange(len(_KINDS))
    data = _write(kind)
    changed = change(random, data)
    path = folder / f"clip.{_KINDS[kind][0]}"
    path.write_bytes(changed)
    try:
        with VideoReader(path, threads=1) as reader:
            frames = list(reader)
            for frame in frames[:3]:
                size = frame.photo.decode().size
                assert size == (reader.info.width, reader.info.height), size
            times = [frame.pts for frame in frames]
            assert times == sorted({*times}), times
            counts = reader.counts
            assert counts.frames == len(frames)
            promised = reader.info.frames
            short = promised is not None and len(frames) < promised
            assert not short or counts.in_words(), (promised, len(frames))
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    if _KINDS[kind][0] in ("mkv", "webm") and len(changed) < len(data):
        assert len(frames) == FRAMES or counts.in_words(), "cut off, and nothing said"
    return "played with counts" if counts.in_words() else "played"
