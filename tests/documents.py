"""What the documents tell a reader to type, taken out of them and typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

Block = tuple[str, str]  # (language, text)


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)


@dataclass(frozen=True)
class Command:
    """A line that starts with "$ ", and the lines below it: parts of what it prints."""

    line: str
    prints: tuple[str, ...]


def commands(console: str) -> list[Command]:
    """Return the commands of a console block."""
    found: list[Command] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ()))
        elif line.strip():
            found[-1] = Command(found[-1].line, (*found[-1].prints, line.strip()))
    return found


def run(command: Command, *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command as the reader would; "# exit code 1" behind it says that it fails."""
    words = shlex.split(command.line, comments=True)
    assert words[0] == "deeplab", command.line
    expected = re.search(r"# exit code (\d+)$", command.line)
    done = subprocess.run(
        [sys.executable, "-c", "from deeplab.cli import main; main()", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == int(expected[1] if expected else 0), f"{command.line}\n{done.stderr}"
    assert done.stdout or done.stderr, command.line
    told = f"{done.stdout}\n{done.stderr}"
    missing = [part for part in command.prints if part not in told]
    assert not missing, f"{command.line}\ndid not print {missing}, but:\n{told}"
