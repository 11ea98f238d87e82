"""What machine this is, as it says itself."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

_ENGINES = ("ai-edge-litert", "openvino", "torch", "onnxruntime", "executorch")


def name_device() -> str:
    """Return the computer's or the processor's name, and how many cores it has."""
    name = _name_processor() or platform.processor() or platform.machine()
    count = os.cpu_count() or 1
    return f"{name}, {count} core{'s' if count > 1 else ''}"


def name_system() -> str:
    """Return the operating system and the Python that runs here."""
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}"


def list_engines() -> dict[str, str]:
    """Return the installed engines and their versions."""
    found = {}
    for engine in _ENGINES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[engine] = importlib.metadata.version(engine)
    return found


def machine() -> str:
    """Return device and Python in one line, for the head of a table."""
    return f"{name_device()}; Python {platform.python_version()}"


def _name_processor() -> str | None:
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
            return told or None
    # A small board (Raspberry Pi, Coral) says what it is; Arm processors do not say their name.
    for file in ("/proc/device-tree/model", "/proc/cpuinfo"):
        with suppress(OSError):
            for line in Path(file).read_text("utf-8", "replace").split("\n"):
                field, _, value = line.rstrip("\0").partition(":")
                if file == "/proc/device-tree/model" and field:
                    return field
                if field.strip() == "model name" and value:
                    return value.strip()
    return None
