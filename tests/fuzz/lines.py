"""Command lines at random: an exit code and one line, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import random as rng
from pathlib import Path
from typing import Any

import typer

from deeplab import cli
from tiny_folder import make_folder
from tiny_tflite import tiny_network

_LEFT_OUT = ("serve", "train", "benchmark", "pull")
"""They run for as long as they are let, or use the network."""
_ODD = ("", " ", ".", "..", "/", "-1", "0", "1", "3", "1e9", "nan", "inf", "-inf",
        "99999999999999999999", "0.5", "x", "ä", "a,b", ",", "33", "33x17", "1,4", "*", "[", "[/]",
        "\x1b[31m", "a" * 300, "a/" * 2100 + "b", "9" * 5000, "\udcff", "a\nb", "2GB",
        "/dev/null", "/proc/self/mem", "/root/nothing", "val", "train", "cpu", "litert", "mask",
        "voc-fast")  # fmt: skip


def _commands() -> dict[tuple[str, ...], Any]:
    found = {}

    def walk(command: Any, names: tuple[str, ...]) -> None:
        for name, one in getattr(command, "commands", {}).items():
            if name not in _LEFT_OUT:
                walk(one, (*names, name))
        if not hasattr(command, "commands"):
            found[names] = command

    walk(typer.main.get_command(cli.build_app()), ())
    return found


COMMANDS = _commands()


def run_one(random: rng.Random, folder: Path) -> str:
    """Run one line in a folder with a data set, a photo and a model in it."""
    make_folder(folder / "data", pairs=4)
    (folder / "net.tflite").write_bytes(tiny_network(classes=3))
    (folder / "latin.txt").write_bytes(b"caf\xe9\nb\nc\n")
    (folder / "deep.json").write_text("[" * 100_000)
    files = ("data", "net.tflite", "latin.txt", "deep.json", "data/labels.txt",
             "data/images/p00.jpg", "data/masks", "data/images", "new",
             "data/train.txt")  # fmt: skip
    names = random.choice(list(COMMANDS))
    line = list(names)
    for parameter in COMMANDS[names].params:
        if parameter.param_type_name == "argument":
            line += [random.choice((*files, *files, *_ODD))]
        elif random.random() < 0.25:
            line += [random.choice(parameter.opts)]
            if not parameter.is_flag:
                line += [random.choice((*files, *_ODD))]
    out, error = io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = cli.run(line)
    except BaseException as problem:
        raise AssertionError(f"{line}: {type(problem).__name__}: {problem}") from problem
    finally:
        os.chdir(before)
    assert code in (0, 1, 2), (line, code)
    assert code != 2 or error.getvalue().strip(), line
    assert "\x1b[31m" not in error.getvalue() + out.getvalue(), line
    return f"exit {code}"
