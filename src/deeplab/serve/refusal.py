"""A request that is not done, and the words and the status that its sender gets."""

from __future__ import annotations

import json
from http import HTTPStatus


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """Ends a request with a status and words.

    Attributes:
        status: 4xx where the request is wrong, 503 where there is too much to do.
        words: what was got, what was expected, what to do.
        retry_seconds: when to try again, for 503.
    """

    def __init__(self, status: int, words: str, *, retry_seconds: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_seconds = status, words, retry_seconds

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the answer carries beside its content."""
        return {"Retry-After": str(self.retry_seconds)} if self.retry_seconds else {}


PROBLEM_TYPE = "application/problem+json"


def problem(status: int, words: str) -> bytes:
    """Return the body of an answer that refuses. Source: RFC 9457."""
    title = HTTPStatus(status).phrase
    content = {"title": title, "status": status, "detail": words}
    return json.dumps(content, ensure_ascii=False).encode()
