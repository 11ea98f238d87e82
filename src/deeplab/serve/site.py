"""The browser page, its runtime and the models it may load."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

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
"""Files that are sent compressed: LiteRT's WebAssembly becomes a third of its 9 MB."""

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
        self._packed: dict[Path, bytes] = {}
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
        packs = path.suffix in _PACKED and "gzip" in request.headers.get("accept-encoding", "")
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}{"-gzip" if packs else ""}"'
        hashed = name.startswith("assets/")  # their names change with their content
        headers = {
            "ETag": tag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "public, max-age=31536000, immutable" if hashed else "no-cache",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        if packs:
            if path not in self._packed:
                self._packed[path] = await asyncio.to_thread(_pack, path)
            headers["Content-Encoding"] = "gzip"
            return Response(self._packed[path], headers=headers, media_type=media_type)
        return FileResponse(path, headers=headers, media_type=media_type, stat_result=status)


def _pack(path: Path) -> bytes:
    packed: bytes = igzip.compress(path.read_bytes(), compresslevel=3)
    return packed
