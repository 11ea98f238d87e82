"""The browser page, its runtime and the models it may load."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import brotli
from isal import igzip
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from deeplab.errors import OutputError
from deeplab.labels import LabelSet
from deeplab.serve.browser_page import (
    CATALOGUE,
    MEDIA_TYPES,
    PageModel,
    describe_models,
    find_page,
    has_one_size,
    offer,
)
from deeplab.serve.docs_page import POLICY

_PACKED = (".html", ".js", ".css", ".svg", ".wasm")
"""Files that are sent compressed: LiteRT's WebAssembly becomes a quarter of its 9 MB."""

_LARGEST_PACKED_MODEL = 8_000_000
"""Models up to this many bytes are sent compressed, too: by a fifth less. They are kept in memory,
and larger ones would take it, and seconds of a core."""

Coding = Literal["gzip", "br"]

_BROTLI_QUALITY = 5
"""A quarter smaller than gzip in twice the time; 9 gives 4 % more in ten times the time."""

_NO_PAGE = """<!doctype html><html lang="en-GB"><meta charset="utf-8"><title>deeplab</title>
<p>The browser page is not built in this copy of deeplab (make web builds it).</p>
<p>The API is here: <a href="docs">what it does</a>.</p></html>
"""


class Site:
    """An ASGI application that sends files, all of which are listed when it is made.

    What a request names is looked up in that list and nowhere else.

    Args:
        models: name → file; those that are no ``.tflite``, or take pictures of any size, are left
            out, browsers cannot run them. What comes inside the package brings the others of it.
        labels: name → classes.

    Attributes:
        has_page: the page is built.

    Raises:
        InputError: two files have the same name.
        ModelError: a ``.tflite`` file is none.
    """

    def __init__(self, models: Mapping[str, Path], labels: Mapping[str, LabelSet]) -> None:
        offered = offer(
            [
                PageModel(path=path, title=name, labels=labels.get(name))
                for name, path in models.items()
                if path.suffix == ".tflite" and has_one_size(path)
            ]
        )
        self._catalogue = json.dumps(describe_models(offered), ensure_ascii=False).encode()
        self._packed: dict[tuple[Path, Coding], asyncio.Future[bytes]] = {}
        self._files = {name: path for model in offered for name, path in model.files.items()}
        try:
            page = find_page()
        except OutputError:
            self.has_page = False
            return
        self.has_page = True
        found = [path for path in page.rglob("*") if path.is_file()]
        self._files |= {path.relative_to(page).as_posix(): path for path in found}
        self._files |= {"": page / "index.html", "favicon.ico": page / "icon-192.png"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is for no address of the API.

        Raises:
            HTTPException: there is no such file (404), or it is asked for in another way (405).
        """
        request = Request(scope)
        name = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
        if name != CATALOGUE and name != "" and name not in self._files:
            raise HTTPException(404)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        response = await self._answer(name, request)
        await response(scope, receive, send)

    async def _answer(self, name: str, request: Request) -> Response:
        if name == CATALOGUE:
            return Response(
                self._catalogue,
                media_type=MEDIA_TYPES[".json"],
                headers={"Cache-Control": "no-cache"},
            )
        if name == "" and not self.has_page:
            return HTMLResponse(_NO_PAGE, headers={"Content-Security-Policy": POLICY})
        path = self._files[name]
        status = path.stat()
        coding = self._choose_coding(path, request.headers.get("accept-encoding", ""))
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}{f"-{coding}" if coding else ""}"'
        hashed = name.startswith("assets/")  # their names change with their content
        headers = {
            "ETag": tag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "public, max-age=31536000, immutable" if hashed else "no-cache",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        if coding is not None:
            headers["Content-Encoding"] = coding
            packed = await asyncio.shield(self._pack(path, coding))
            return Response(packed, headers=headers, media_type=media_type)
        return FileResponse(path, headers=headers, media_type=media_type, stat_result=status)

    def _choose_coding(self, path: Path, accepted: str) -> Coding | None:
        """Return how a file is sent: by Brotli as soon as that is done, else by gzip."""
        codings = {part.partition(";")[0].strip().lower() for part in accepted.split(",")
                   if not re.search(r";\s*q=0(\.0*)?\s*$", part)}  # fmt: skip
        is_small = path.suffix == ".tflite" and path.stat().st_size <= _LARGEST_PACKED_MODEL
        if path.suffix not in _PACKED and not is_small:
            return None
        if "br" in codings and (self._pack(path, "br").done() or "gzip" not in codings):
            return "br"
        return "gzip" if "gzip" in codings else None

    def _pack(self, path: Path, coding: Coding) -> asyncio.Future[bytes]:
        """Return a compressed file, which is made once."""
        if (path, coding) not in self._packed:
            made = asyncio.to_thread(_COMPRESS[coding], path)
            self._packed[path, coding] = asyncio.ensure_future(made)
        return self._packed[path, coding]


def _gzip(path: Path) -> bytes:
    packed: bytes = igzip.compress(path.read_bytes(), compresslevel=3)
    return packed


def _brotli(path: Path) -> bytes:
    packed: bytes = brotli.compress(path.read_bytes(), quality=_BROTLI_QUALITY)
    return packed


_COMPRESS: dict[Coding, Callable[[Path], bytes]] = {"gzip": _gzip, "br": _brotli}
