"""The body of a request, counted while it comes in, and the photos and fields in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy.typing as npt
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from deeplab.serve.limits import Limits
from deeplab.serve.refusal import Refusal

_RAW = ("image/", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is the photo itself. The last is what curl says where nobody tells it."""

FORM = "multipart/form-data"

_PHOTO_FIELDS = ("photo", "photos", "file", "files", "image", "images")
"""Names of parts without a file name that are photos whatever is in them."""

_MOST_PARTS = 256
_MOST_FIELD_BYTES = 100_000

BACKGROUND = "background"
"""The one part with a file name that is no photo to segment: the picture behind the objects."""


@dataclass(frozen=True)
class NamedPhoto:
    """One photo of a request.

    Attributes:
        data: the file, or (H, W, 3) uint8 RGB; (H, W, C) of a network for other pictures.
        name: as its sender calls it, without folders; None where nobody says.
        title: how words to the sender call it.
    """

    data: bytes | npt.NDArray[Any]
    name: str | None = None
    title: str = "photo"


@dataclass
class Contents:
    """What was in a body.

    Attributes:
        photos: in the order in which they came.
        fields: name and value of the other parts, in order.
        background: of the part of that name, where it is a file.
    """

    photos: list[NamedPhoto] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)
    background: bytes | None = None


class Uploads:
    """Reads bodies, and knows how many bytes of them are in memory.

    Attributes:
        held: bytes of all uploads, from their first byte until :meth:`Upload.release`.
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
            Refusal: too many bytes (413), too slow (408), compressed (415), or too many uploads
                at once (503).
            ClientDisconnect: nobody is there any more.
        """
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Refusal(415, f"Content-Encoding: got '{encoding}'; send the body as it is.")
        declared = request.headers.get("content-length", "0")
        if int(declared) > self._limits.max_bytes:
            raise self._too_large(f"{int(declared) / 1e6:.1f} MB")
        upload = Upload(self)
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

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Keep some more bytes."""
        self._chunks.append(chunk)
        self.size += len(chunk)
        self._uploads.hold(len(chunk))

    def take(self) -> bytes:
        """Return the body; it is kept here no longer, but counted until :meth:`release`."""
        body = b"".join(self._chunks)
        self._chunks = []
        return body

    def release(self) -> None:
        """Let go of the bytes."""
        self._uploads.hold(-self.size)
        self._chunks, self.size = [], 0


def read_content_type(request: Request) -> tuple[str, bytes]:
    """Return the type of a body that has photos in it, and the boundary where it is a form.

    Raises:
        Refusal: it has none by what its headers say (415), or a form lacks its boundary (422).
    """
    header = request.headers.get("content-type") or "application/octet-stream"
    kind, options = parse_options_header(header)
    content_type = kind.decode("latin-1").lower()
    if content_type != FORM and not content_type.startswith(_RAW):
        raise Refusal(
            415,
            f"Content-Type: got '{content_type}', expected image/…, application/octet-stream, or "
            f"{FORM} with a file in it.",
        )
    boundary = options.get(b"boundary", b"")
    if content_type == FORM and not boundary:
        raise Refusal(422, f"Content-Type: {FORM} without its boundary.")
    return content_type, boundary


def read_contents(
    body: bytes, boundary: bytes | None, *, parameters: tuple[str, ...], max_photos: int
) -> Contents:
    """Return the photos and the fields of a body.

    Args:
        body: of the request.
        boundary: where it is a form; None where it is the photo itself.
        parameters: parts of these names without a file name are fields. Any other such part is a
            photo, if it is named like one or holds what is no text.
        max_photos: that are taken.

    Raises:
        Refusal: the form is broken, there is no photo, one is empty, or too many (422).
    """
    contents = Contents([NamedPhoto(body)])
    if boundary is not None:
        contents = _read_form(body, boundary, parameters, max_photos)
    if not contents.photos:
        raise Refusal(422, "the form has no photo in it; add one: curl -F photo=@photo.jpg …")
    for photo in contents.photos:
        if not len(photo.data):
            raise Refusal(422, f"the {photo.title} is empty (0 bytes).")
    return contents


def _read_form(
    body: bytes, boundary: bytes, parameters: tuple[str, ...], max_photos: int
) -> Contents:
    """Take a form apart. Nothing is written to the disk."""
    files: list[tuple[str | None, bytes]] = []
    contents = Contents()

    def add_file(part: File) -> None:
        opened = part.file_object
        assert isinstance(opened, BytesIO)
        if (part.field_name or b"").decode("utf-8", "replace") == BACKGROUND:
            if contents.background is not None:
                raise Refusal(422, f"{BACKGROUND}: got it twice, expected it once.")
            contents.background = opened.getvalue()
            return
        files.append((_base_name(part.file_name or b""), opened.getvalue()))
        if len(files) > max_photos:
            raise Refusal(422, f"the form has more than {max_photos} photos in it; send fewer.")

    def add_field(part: Field) -> None:
        name = (part.field_name or b"").decode("utf-8", "replace")
        value = part.value or b""
        if name not in parameters and (name in _PHOTO_FIELDS or not _is_text(value)):
            files.append((None, value))
            return
        if len(value) > _MOST_FIELD_BYTES:
            raise Refusal(422, f"{name}: got {len(value)} bytes, expected a short text.")
        contents.fields.append((name, value.decode("utf-8", "replace")))

    try:
        form = FormParser(
            FORM,
            on_field=_counted(add_field),
            on_file=_counted(add_file),
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": float("inf")},
        )
        form.write(body)
        form.finalize()
    except FormParserError as error:
        raise Refusal(422, f"the form is broken: {error}.") from None
    for number, (name, data) in enumerate(files, 1):
        title = "photo"
        if len(files) > 1:
            title = f"photo {number} ({name})" if name else f"photo {number}"
        contents.photos.append(NamedPhoto(data, name, title))
    return contents


def _counted(add: Callable[..., None]) -> Callable[..., None]:
    parts = 0

    def count_and_add(part: Field | File) -> None:
        nonlocal parts
        parts += 1
        if parts > _MOST_PARTS:
            raise Refusal(422, f"the form has more than {_MOST_PARTS} parts; send fewer.")
        add(part)

    return count_and_add


def _is_text(value: bytes) -> bool:
    try:
        return value.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def _base_name(name: bytes) -> str | None:
    """Return a file's name without folders and without what would confuse a terminal."""
    text = name.decode("utf-8", "replace")
    text = PureWindowsPath(PurePosixPath(text).name).name
    return "".join(letter for letter in text if letter.isprintable())[:200] or None
