"""``deeplab serve``: the page and an HTTP API."""

from __future__ import annotations

import importlib.util
import logging
import sys
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from deeplab.cli import model_options
from deeplab.cli.console import check_choices, check_number, complain
from deeplab.errors import MissingExtraError
from deeplab.limits import MAX_COUNT, MAX_SECONDS, MAX_THREADS, MAX_WORKERS

if TYPE_CHECKING:
    import socket


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
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Write a line for every request.")
    ] = True,
) -> None:
    """Serve the browser page, and an HTTP API for photos; Ctrl-C ends it."""
    _check_installed()
    from deeplab.cli.models import show_progress
    from deeplab.photo.memory import default_budget, parse_bytes
    from deeplab.segmenter import Runtime, count_cores
    from deeplab.serve.app import build_app
    from deeplab.serve.limits import Limits
    from deeplab.serve.models import find_models, open_models
    from deeplab.serve.run import listen, run

    check_choices("--runtime", [runtime] if runtime else [], get_args(Runtime))
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    limits = Limits(
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
        timeout_seconds=timeout,
        transfer_seconds=transfer_timeout,
        concurrency=concurrency or max(1, count_cores() // threads),
        queue=queue,
        memory_bytes=parse_bytes("--memory", memory) if memory else default_budget(),
    )
    with listen(host, port) as listening:  # before the models, which take a while
        with show_progress() as progress:
            files = find_models(model or ["voc"], progress=progress)
        segmenters = open_models(
            files,
            streams=limits.concurrency,
            threads=threads,
            runtime=cast("Runtime | None", runtime),
            device=device,
            **told,
        )
        for name, segmenter in segmenters.items():
            model_options.tell_assumed(name, segmenter.card)
            model_options.tell_device(name, device, segmenter.network.device)
        app = build_app(segmenters, limits=limits, files=files)
        _start_log(access_log)
        _greet(listening, list(segmenters))
        run(app, listening, limits=limits)


def _check_installed() -> None:
    for package in ("fastapi", "uvicorn", "python-multipart"):
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingExtraError("The server", package=package, extra="serve")


def _start_log(access_log: bool) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("deeplab.serve.access").setLevel(
        logging.INFO if access_log else logging.ERROR
    )


def _greet(listening: socket.socket, names: list[str]) -> None:
    from deeplab.errors import OutputError
    from deeplab.serve.browser_page import find_page
    from deeplab.serve.run import address_of, is_local

    address = address_of(listening)
    typer.echo(f"{address} serves {', '.join(names)}; {address}docs describes the API.", err=True)
    if not is_local(listening):
        complain(
            "warning: other machines can reach this server, and there is no password and no "
            "encryption. Put a web server with both in front of it, or leave --host out."
        )
    try:
        find_page()
    except OutputError:
        complain("note: the browser page is not built in this copy (make web builds it).")
