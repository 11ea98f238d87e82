"""A request that is not done, and the words and the status that its sender gets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from starlette.responses import Response

from deeplab.errors import ImageError, ImageFormatError, ImageSizeError, InputError


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """Ends a request with a status and words.

    Attributes:
        status: 4xx where the request is wrong, 503 where there is too much to do.
        words: what was got, what was expected, what to do.
        headers: that the answer carries beside its content.
    """

    def __init__(
        self,
        status: int,
        words: str,
        *,
        retry_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(words)
        self.status, self.words = status, words
        self.headers = dict(headers or {})
        if retry_seconds is not None:
            self.headers["Retry-After"] = str(max(1, retry_seconds))


PROBLEM_TYPE = "application/problem+json"


def problem(status: int, words: str) -> bytes:
    """Return the body of an answer that refuses.

    Its ``error`` is where clients of the Open Inference Protocol look.
    """
    content = describe_problem(status, words) | {"error": words}
    return json.dumps(content, ensure_ascii=False).encode()


def describe_problem(status: int, words: str) -> dict[str, str | int]:
    """Return what is wrong. Source: RFC 9457."""
    return {"title": HTTPStatus(status).phrase, "status": status, "detail": words}


def refuse(refusal: Refusal) -> Response:
    """Return the answer that says it."""
    content = problem(refusal.status, refusal.words)
    return Response(content, refusal.status, headers=refusal.headers, media_type=PROBLEM_TYPE)


@contextmanager
def refusing(what: str, *, max_pixels: int) -> Iterator[None]:
    """Turn what is wrong with a photo into a refusal.

    Args:
        what: how the photo is called in its words.
        max_pixels: the limit that is told.

    Raises:
        Refusal: the photo is too large (413), in no known format (415), or damaged (422).
    """
    try:
        yield
    except ImageSizeError:
        raise Refusal(
            413,
            f"{what} may have at most {max_pixels / 1e6:g} megapixels, it has more. Send a "
            "smaller one.",
        ) from None
    except ImageFormatError as error:
        raise Refusal(415, _words(error, what)) from None
    except (ImageError, InputError) as error:
        raise Refusal(422, _words(error, what)) from None


def _words(error: Exception, what: str) -> str:
    return str(error).replace("the bytes: ", f"{what}: ", 1)
