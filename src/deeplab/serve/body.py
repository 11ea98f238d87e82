"""A photo out of a request, counted while it comes in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from io import BytesIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser, parse_options_header
from starlette.requests import Request

from deeplab.serve.limits import Limits
from deeplab.serve.refusal import Refusal

_RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is the photo itself. The last is what curl says where nobody tells it."""

_FORM = "multipart/form-data"


class Uploads:
    """Reads bodies, and knows how many bytes of them are in memory.

    Attributes:
        held: bytes of all uploads, from their first byte until :meth:`release`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self.held = 0

    def hold(self, size: int) -> None:
        """Count so many bytes more, or less."""
        with self._lock:
            self.held += size

    async def read(self, request: Request) -> Upload:
        """Return the body of a request. Whoever gets it calls ``release`` when done with it.

        Raises:
            Refusal: too many bytes (413), too slow (408), not a photo by what its headers say
                (415), or too many uploads at once (503).
            ClientDisconnect: nobody is there any more.
        """
        content_type, boundary = _check_headers(request)
        declared = request.headers.get("content-length", "0")
        if int(declared) > self._limits.max_bytes:
            raise self._too_large(f"{int(declared) / 1e6:.1f} MB")
        upload = Upload(self, boundary if content_type == _FORM else None)
        try:
            await asyncio.wait_for(
                self._fill(upload, request.stream()), self._limits.transfer_seconds
            )
        except asyncio.TimeoutError:
            upload.release()
            raise Refusal(
                408,
                f"the photo did not arrive within {self._limits.transfer_seconds:g} seconds; "
                f"{upload.size / 1e6:.1f} MB of it did.",
            ) from None
        except BaseException:
            upload.release()
            raise
        return upload

    async def _fill(self, upload: Upload, stream: AsyncIterator[bytes]) -> None:
        async for chunk in stream:
            upload.add(chunk)
            if upload.size > self._limits.max_bytes:
                raise self._too_large("more")
            if self.held > self._limits.max_bytes_held:
                raise Refusal(
                    503,
                    "there are too many uploads at once. Try again later.",
                    retry_seconds=1,
                )

    def _too_large(self, got: str) -> Refusal:
        return Refusal(
            413,
            f"the upload may have at most {self._limits.max_megabytes:g} MB, it has {got}. "
            "Send a smaller photo, or one that is compressed more.",
        )


class Upload:
    """The body of one request.

    Attributes:
        size: in bytes.
    """

    def __init__(self, uploads: Uploads, boundary: bytes | None) -> None:
        self._uploads, self._boundary = uploads, boundary
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Keep some more bytes."""
        self._chunks.append(chunk)
        self.size += len(chunk)
        self._uploads.hold(len(chunk))

    def photo(self) -> bytes:
        """Return the bytes of the photo: the body, or the file in the form that the body is.

        Raises:
            Refusal: there is no photo (422).
        """
        body = b"".join(self._chunks)
        self._chunks = []
        if self._boundary is not None:
            body = _only_file(body, self._boundary)
        if not body:
            raise Refusal(422, "the photo is empty (0 bytes).")
        return body

    def release(self) -> None:
        """Let go of the bytes."""
        self._uploads.hold(-self.size)
        self._chunks, self.size = [], 0


def _check_headers(request: Request) -> tuple[str, bytes]:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal(415, f"Content-Encoding: got '{encoding}'; send the photo as it is.")
    header = request.headers.get("content-type") or "application/octet-stream"
    kind, options = parse_options_header(header)
    content_type = kind.decode("latin-1").lower()
    if content_type != _FORM and not content_type.startswith(_RAW):
        raise Refusal(
            415,
            f"Content-Type: got '{content_type}', expected image/…, application/octet-stream, or "
            f"{_FORM} with one file.",
        )
    boundary = options.get(b"boundary", b"")
    if content_type == _FORM and not boundary:
        raise Refusal(422, f"Content-Type: {_FORM} without its boundary.")
    return content_type, boundary


def _only_file(body: bytes, boundary: bytes) -> bytes:
    """Return the content of the one file in a form. Nothing is written to the disk."""
    files: list[File] = []
    try:
        form = FormParser(
            _FORM,
            on_field=None,
            on_file=files.append,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": float("inf")},
        )
        form.write(body)
        form.finalize()
    except FormParserError as error:
        raise Refusal(422, f"the form is broken: {error}.") from None
    if len(files) != 1:
        raise Refusal(422, f"the form has {len(files)} files in it, expected one, the photo.")
    content = files[0].file_object
    assert isinstance(content, BytesIO)
    return content.getvalue()
