"""What reaches the terminal, and how users' mistakes are told."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.models import OptionInfo

from deeplab import cli
from deeplab.cli.console import clean, complain, parse_size, stderr, stdout
from deeplab.errors import InputError

HOSTILE = "[red]cat[/red] [/] \x1b]0;title\x07 \x9b2J \u202egpj.exe"
SHOWN = r"[red]cat[/red] [/] \u001b]0;title\u0007 \u009b2J \u202egpj.exe"


def test_labels_stand_in_tables_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("class", title=HOSTILE)
    table.add_row(HOSTILE)
    stdout().print(table)
    stdout().print(Text("cat \x1b[2J"))
    stderr().print(HOSTILE)
    told = capsys.readouterr()
    assert told.out.count(SHOWN) == 2
    assert told.out.endswith("cat \\u001b[2J\n")
    assert told.err == SHOWN + "\n"


def test_an_error_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    complain(f"two\n  lines, \r\n{HOSTILE}")
    assert capsys.readouterr().err == f"deeplab: two lines, {SHOWN}\n"
    assert clean("plain 猫\ttext\n") == "plain 猫\ttext\n"


def in_process(code: str, **options) -> subprocess.CompletedProcess[str]:
    start = "import sys, typer; from deeplab import cli; from deeplab.cli.console import stdout\n"
    return subprocess.run(
        [sys.executable, "-c", f"{start}{code}\ncli.main()"],
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


def test_what_is_printed_without_a_console_is_shown_too() -> None:
    code = f"cli.run = lambda _: print({HOSTILE!r}) or typer.echo({HOSTILE!r}) or 0"
    done = in_process(code)
    assert done.stdout == f"{SHOWN}\n" * 2, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_output_is_told() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "deeplab", "models", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_faults_of_the_machine_and_of_files_are_one_line(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(cli, "build_app", lambda typed: fail)
    assert cli.run(["segment"]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    with pytest.raises(type(error)):
        cli.run(["segment", "--debug"])


@pytest.mark.parametrize("text", ["9" * 5000, "513x0", "16385", "99999", "1x2x3", "", "-5", "1e3"])
def test_sizes_have_an_end(text: str) -> None:
    with pytest.raises(InputError, match="--size: got"):
        parse_size("--size", text)


def numbers(app: typer.Typer) -> list[tuple[str, OptionInfo]]:
    """Return the options of all commands that take a number."""
    found = [option for group in app.registered_groups for option in numbers(group.typer_instance)]
    for command in app.registered_commands:
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
            kinds = {*get_args(kind)} or {kind}
            if kinds & {int, float}:
                found += [(f"{command.callback.__name__} {name}", note) for note in notes]
    return found


def test_every_number_has_an_end() -> None:
    found = numbers(cli.build_app())
    assert len(found) > 20
    assert [name for name, option in found if option.max is None] == []


@pytest.mark.parametrize(
    "line",
    [
        "serve --timeout nan", "serve --max-megabytes inf", "serve --concurrency 2000000000",
        "benchmark voc --min-secs nan", "benchmark voc --max-secs inf", "benchmark voc --threads 0",
        "benchmark voc --threads 100000", "segment x.jpg --threads 100000",
        "segment x.jpg --workers 2000000000", "evaluate voc . --tile 99999999999",
        "benchmark x.json --output-stride 99999999999999999999", "export x.json --size 1e9",
    ],
)  # fmt: skip
def test_numbers_beyond_reason_are_refused_at_once(line: str, capsys) -> None:
    assert cli.run(line.split()) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "deeplab: " in told


@pytest.mark.parametrize("text", ["nan", "0", "inf", "1,1e9", "-1"])
def test_lists_of_numbers_have_an_end(text: str) -> None:
    from deeplab.cli.console import parse_numbers

    with pytest.raises(InputError, match="expected numbers above 0, at most 16"):
        parse_numbers("--scales", text, most=16)


def test_only_the_typed_command_is_imported() -> None:
    """All of them together cost more than a small photo."""
    script = (
        "import sys; from deeplab.cli import run; code = run(sys.argv[1:]); "
        "print(sorted(name for name in sys.modules if name.startswith('deeplab.cli.')))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run([*command, "segment", "-h"], capture_output=True, text=True, check=True)
    assert "--device" in done.stdout
    for other in ("benchmark", "evaluate", "train", "serve", "export"):
        assert f"deeplab.cli.{other}'" not in done.stdout
    done = subprocess.run([*command, "-h"], capture_output=True, text=True, check=True)
    for name in cli._COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("command", ["train --data .", "evaluate voc .", "import photo.jpg -o a"])
def test_without_torch_the_extra_is_named(command: str, tmp_path: Path) -> None:
    """As the core install is: these commands import torch at once, and ended in a traceback."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from deeplab.cli import run\n"
        f"sys.exit(run({command.split()!r}))\n"
    )
    (tmp_path / "photo.jpg").write_bytes(b"x")
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "pip install 'deeplab[train]'" in found.stderr


def test_a_photo_in_place_of_a_command_is_told_where_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"")
    assert cli.run([str(path)]) == 2
    assert f"deeplab segment {path}" in capsys.readouterr().err
