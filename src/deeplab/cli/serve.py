"""``deeplab serve``: the page and an HTTP API."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from deeplab.cli import model_options
from deeplab.cli.console import check_choices, check_number, complain
from deeplab.errors import InputError, MissingExtraError
from deeplab.limits import MAX_COUNT, MAX_SECONDS, MAX_THREADS, MAX_WORKERS

if TYPE_CHECKING:
    import socket

    from deeplab.segmenter import Segmenter


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--model", help="A name or a file; may be repeated, the first is the default."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(max=MAX_COUNT, help="0 takes any that is free.")] = 8000,
    max_megabytes: Annotated[
        float, typer.Option(max=100_000, callback=check_number, help="Of one upload.")
    ] = 20,
    max_megapixels: Annotated[
        float, typer.Option(max=100_000, callback=check_number, help="Of one photo.")
    ] = 50,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            max=MAX_SECONDS,
            callback=check_number,
            help="From a photo's last byte to its result.",
        ),
    ] = 30,
    transfer_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            max=MAX_SECONDS,
            callback=check_number,
            help="For sending a photo, and for taking a result.",
        ),
    ] = 30,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WORKERS, help="Photos worked on at once (default: all cores)."),
    ] = None,
    max_photos: Annotated[int, typer.Option(min=1, max=MAX_WORKERS, help="Of one request.")] = 16,
    queue: Annotated[int, typer.Option(min=0, max=MAX_COUNT, help="Photos that may wait.")] = 64,
    threads: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Of the network, for each photo.")
    ] = 1,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For all photos at work: 2GB (default: most of it)."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="The engine, where several run the model.")
    ] = None,
    device: model_options.Device = None,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
    fit: model_options.Fit = None,
    size: model_options.Size = None,
    output_name: model_options.OutputName = None,
    token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with tokens, one a line, of which requests must show one; without it, "
            "those in the environment's DEEPLAB_TOKEN.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A site whose pages may use the API, https://example.org, or *; may be repeated.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name of this server, *.example.org for all below one, or *; may be repeated. "
            "Unless said, localhost where only this machine can reach it, else any.",
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Where a proxy puts it: /segment.")
    ] = "",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            max=MAX_COUNT,
            callback=check_number,
            help="Requests a minute that each client may make (default: any number).",
        ),
    ] = None,
    api: Annotated[
        list[str] | None,
        typer.Option(help="Of other programs: kserve, huggingface, label-studio; may be repeated."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Processes, each with models of its own.")
    ] = 1,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=MAX_SECONDS,
            help="From SIGTERM, when /readyz says no, until no connection is taken.",
        ),
    ] = 0,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Write a line for every request.")
    ] = True,
    log_format: Annotated[str, typer.Option(help="Of the log's lines: text, json.")] = "text",
) -> None:
    """Serve the browser page, and an HTTP API for photos; Ctrl-C ends it."""
    _check_installed()
    from deeplab.cli.models import show_progress
    from deeplab.photo.memory import default_budget, parse_bytes
    from deeplab.segmenter import Runtime, count_cores
    from deeplab.serve.apis import Api
    from deeplab.serve.door import LOCAL_HOSTS, Rules
    from deeplab.serve.limits import Limits
    from deeplab.serve.log import LogFormat, start_log
    from deeplab.serve.models import find_models
    from deeplab.serve.plan import Plan
    from deeplab.serve.plan import serve as serve_here
    from deeplab.serve.processes import serve_in_processes
    from deeplab.serve.run import is_local, listen

    check_choices("--runtime", [runtime] if runtime else [], get_args(Runtime))
    check_choices("--api", api or [], get_args(Api))
    check_choices("--log-format", [log_format], get_args(LogFormat))
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    only_here = {
        "--normalisation": normalisation, "--fit": fit, "--output-name": output_name
    }  # fmt: skip
    left_out = [option for option, value in only_here.items() if value is not None]
    if left_out:
        complain(
            f"note: the browser page does not know {' and '.join(left_out)}, so it offers no "
            "model; the API does."
        )
    if "label-studio" in (api or []) and workers > 1:
        raise InputError(
            f"--workers: got {workers} with --api label-studio, which learns in one process; leave "
            "it out."
        )
    memory_bytes = parse_bytes("--memory", memory) if memory else default_budget()
    limits = Limits(
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
        timeout_seconds=timeout,
        transfer_seconds=transfer_timeout,
        concurrency=concurrency or max(1, count_cores() // threads // workers),
        queue=queue,
        max_photos=max_photos,
        memory_bytes=memory_bytes // workers,
    )
    rules = Rules(
        tokens=_read_tokens(token),
        hosts=tuple(allowed_host) if allowed_host and "*" not in allowed_host else None,
        origins=tuple(allow_origin or ()),
        root_path=root_path,
    )
    with listen(host, port) as listening:  # before the models, which take a while
        if is_local(listening) and not allowed_host:
            rules = dataclasses.replace(rules, hosts=LOCAL_HOSTS)
        with show_progress() as progress:
            files = find_models(model or ["voc"], progress=progress)
        plan = Plan(
            files=files,
            threads=threads,
            runtime=cast("Runtime | None", runtime),
            device=device,
            told=told,
            limits=limits,
            rules=rules,
            per_minute=rate,
            apis=tuple(cast("list[Api]", list(dict.fromkeys(api or [])))),
            access_log=access_log,
            log_format=cast("LogFormat", log_format),
            drain_seconds=drain,
            workers=workers,
            page=not left_out,
        )
        start_log(access=access_log, form=plan.log_format)
        (serve_here if workers == 1 else serve_in_processes)(
            plan,
            listening,
            tell=_tell,
            ready=lambda: _greet(listening, list(files), has_token=bool(rules.tokens)),
        )


def _tell(name: str, segmenter: Segmenter, device: str | None) -> None:
    model_options.tell_assumed(name, segmenter.card)
    if segmenter.spec.bands is not None:
        complain(f"note: the browser page does not offer {name}, which is no network for photos.")
    model_options.tell_device(name, device, segmenter.network.device)


def _read_tokens(path: Path | None) -> tuple[str, ...]:
    from deeplab.serve.door import read_tokens

    if path is None:
        return read_tokens(os.environ.get("DEEPLAB_TOKEN", "").splitlines())
    try:
        found = read_tokens(path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"--token: cannot read {path}: {reason}.") from None
    if not found:
        raise InputError(f"--token: there is no token in {path}; write one, at least 8 letters.")
    return found


def _check_installed() -> None:
    for package in ("fastapi", "uvicorn", "python-multipart", "brotli"):
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingExtraError("The server", package=package, extra="serve")


def _greet(listening: socket.socket, names: list[str], *, has_token: bool) -> None:
    from deeplab.errors import OutputError
    from deeplab.serve.browser_page import find_page
    from deeplab.serve.run import address_of, is_local

    address = address_of(listening)
    typer.echo(f"{address} serves {', '.join(names)}; {address}docs describes the API.", err=True)
    if not is_local(listening):
        lacking = (
            "there is no encryption" if has_token else "there is no password and no encryption"
        )
        advice = "" if has_token else ", give it a --token"
        complain(
            f"warning: other machines can reach this server, and {lacking}. Put a web server with "
            f"that in front of it{advice}, or leave --host out."
        )
    try:
        find_page()
    except OutputError:
        complain("note: the browser page is not built in this copy (make web builds it).")
