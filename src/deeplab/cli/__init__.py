"""The command line: parse, call, print. One file per group of commands.

Exit codes: 0 all went well; 1 some photos of many could not be done; 2 an error, told in words;
130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import deeplab
from deeplab.cli.benchmark import benchmark
from deeplab.cli.console import Stream, complain
from deeplab.cli.data import data_app
from deeplab.cli.evaluate import evaluate
from deeplab.cli.export import export
from deeplab.cli.models import models_app
from deeplab.cli.optimize import optimize
from deeplab.cli.segment import segment
from deeplab.cli.serve import serve
from deeplab.cli.train import train
from deeplab.cli.weights import import_weights, info
from deeplab.errors import DeepLabError

app = typer.Typer(
    name="deeplab",
    help="Semantic segmentation with every DeepLab: a photo in, an exact full-size mask out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(segment)
app.add_typer(models_app)
app.add_typer(data_app)
app.command("import")(import_weights)
app.command()(info)
app.command()(train)
app.command()(evaluate)
# benchmark_model writes its options with underscores; whoever pastes them is understood.
app.command(context_settings={"token_normalize_func": lambda word: word.replace("_", "-")})(
    benchmark
)
app.command()(export)
app.command()(optimize)
app.command()(serve)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deeplab {deeplab.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (at any place).")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed in one line."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="deeplab", standalone_mode=False)
    except DeepLabError as error:
        if debug:
            raise
        complain(str(error))
        return 2
    except (OSError, RecursionError, UnicodeError, MemoryError) as error:
        # Of what was given or of the machine, wherever it comes from; the rest is our own bug.
        if debug:
            raise
        complain(_in_words(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return 130
    except Exception as error:
        # A wrong option or argument. Where the class lives differs between versions of typer.
        if not hasattr(error, "format_message"):
            raise
        if error.format_message():  # nothing where the help was shown instead
            complain(error.format_message())
        return 2
    return code if isinstance(code, int) else 0


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "a file that was given is nested too deeply to be read."
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give a smaller --size or --memory, or less."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}."
    return f"{error}."


def main() -> None:
    """Run the command line of this process."""
    # A path or a label that the terminal cannot show must not end the work.
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        lines, encoding = sys.stdout.line_buffering, sys.stdout.encoding
        sys.stdout = Stream(
            sys.stdout.detach(), encoding=encoding, errors="replace", line_buffering=lines
        )
    if "--debug" not in sys.argv:
        _silence_engines()
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except OSError:  # nobody reads any more, or the disk is full; Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or 1
    sys.exit(code)


def _silence_engines() -> None:
    """Send what native libraries print on descriptor 2 nowhere; Python's stderr stays.

    LiteRT announces its delegate there in every process, and has no switch for it.
    """
    try:
        ours = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no stderr at all
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    encoding = getattr(sys.stderr, "encoding", "utf-8")
    sys.stderr = open(ours, "w", buffering=1, encoding=encoding, errors="replace")  # noqa: SIM115
