"""``deeplab export``: a release pair in another format, with a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplab.cli.console import check_choices, parse_size, split_names, stderr, stdout
from deeplab.errors import InputError
from deeplab.limits import MAX_THREADS

if TYPE_CHECKING:
    from deeplab.data import Dataset
    from deeplab.export.certificate import Certificate
    from deeplab.export.plan import KeepFloat


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A release pair; for web, a .tflite too.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="For web: the folder to write.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="tflite, onnx, openvino, web, …")
    ] = "tflite",
    file: Annotated[
        Path | None,
        typer.Option("-o", metavar="FILE", help="File to write (default: named as the pair)."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, float16, dynamic or int8.")] = "float32",
    output: Annotated[
        str, typer.Option(help="logits (finest masks), or mask: resize and argmax inside.")
    ] = "logits",
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the frame: 513 or 1025x2049 (default: the pair's)."),
    ] = None,
    output_stride: Annotated[
        int | None, typer.Option(max=32, help="To run at: 8, 16 or 32 (default: the pair's).")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="int8: photos like those that it will see."),
    ] = None,
    keep_float: Annotated[
        str | None,
        typer.Option(metavar="auto|LAYERS", help="int8: layers that stay float; auto finds them."),
    ] = None,
    integer_io: Annotated[
        bool, typer.Option("--integer-io", help="int8: integers in and out too.")
    ] = False,
    photos: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="For the certificate (default: those above, or ours)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATASET", help="For the certificate: tells what labels say of both."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set.")] = "val",
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="For the latencies.")] = 1,
    allow: Annotated[
        bool, typer.Option("--allow", help="Keep the file even where it is not equal enough.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists already.")
    ] = False,
) -> None:
    """Write a network for phones, browsers and servers, and prove that it computes the same."""
    from deeplab.export import FORMATS
    from deeplab.export import export as run
    from deeplab.export.web import export_page

    check_choices("--to", [to], [*FORMATS, "web"])
    if folder is not None and to != "web":
        raise InputError(f"got {folder}, but only --to web takes a folder; name the file with -o.")
    kept: KeepFloat = ()
    if keep_float is not None:
        kept = "auto" if keep_float == "auto" else split_names("--keep-float", keep_float)
    options: dict[str, Any] = {
        "precision": precision,
        "output": output,
        "size": parse_size("--size", size) if size else None,
        "output_stride": output_stride,
        "calibrate": _find(calibrate),
        "keep_float": kept,
        "integer_io": integer_io,
        "photos": _find(photos, arrays=True),
        "dataset": _open_dataset(data, split) if data else None,
        "allow": allow,
        "overwrite": overwrite,
        "threads": threads,
        "on_certificate": _print_certificate,
    }
    with stderr().status("opening") as status:
        options["on_step"] = status.update
        if to == "web":
            page = export_page(model, _need_folder(folder or file), **options)
            written = f"{page.folder}, a page for any host with {page.model.name} in it"
        else:
            found = run(model, to, file=file, **options)
            written = f"{found.file} and {found.certificate_file}"
    typer.echo(f"written: {written}")


def _need_folder(folder: Path | None) -> Path:
    if folder is None:
        raise InputError("DIR: --to web writes a folder; name it behind: --to web DIR")
    return folder


def _open_dataset(path: Path, split: str) -> Dataset:
    from deeplab.data import open_dataset

    return open_dataset(path, split=split)


def _find(folder: str | None, *, arrays: bool = False) -> list[Path]:
    from deeplab.cli.photos import find_and_tell

    return find_and_tell([folder], arrays=arrays) if folder else []


def _print_certificate(found: Certificate) -> None:
    stdout().print(found.table())
    for name, text in found.facts().items():
        typer.echo(f"{name}: {text}")
