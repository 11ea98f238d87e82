"""Debian's ffmpeg makes the clips of the tests; its ffprobe says what is in ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def ffmpeg(*arguments: str | Path) -> None:
    words = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def probe(path: Path, *, frames: bool = False) -> dict[str, Any]:
    """Return what ffprobe says of a file: its format, and its streams by kind."""
    more = ["-show_frames"] if frames else ["-count_packets"]
    words = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", *more, path]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    for stream in told["streams"]:
        told.setdefault(stream["codec_type"], stream)
    return told


def rotation(told: dict[str, Any]) -> int:
    sides = told["video"].get("side_data_list", [])
    return next((data["rotation"] for data in sides if "rotation" in data), 0)


def frame_times(path: Path) -> list[float]:
    """Return when ffprobe's decoder shows each frame, seconds."""
    frames = probe(path, frames=True)["frames"]
    return [float(f["pts_time"]) for f in frames if f["media_type"] == "video"]
