"""What happens to every request, whatever it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deeplab.serve.metrics import Metrics
from deeplab.serve.refusal import PROBLEM_TYPE, problem

_LINGER_SECONDS = 5.0
"""How long a refused upload is still read, and thrown away."""

GONE = 499
"""For log and metrics: the client closed the connection. Nobody is there to read a status."""

access_log = logging.getLogger("deeplab.serve.access")
error_log = logging.getLogger("deeplab.serve.error")

_NOTES = "deeplab.notes"


def note(scope: Scope, **notes: Any) -> None:
    """Let the log's line of a request say more."""
    scope.get(_NOTES, {}).update(notes)


class Edge:
    """Names requests, sets headers, counts, writes the access log, and ends refusals in order.

    An answer that comes before the whole request was read would be lost: closing a connection on
    which bytes are still arriving makes the client's system throw away what it has not read. So
    what is left of the upload is read for a while.

    ``HEAD`` is answered as ``GET`` is, without the body.

    Args:
        app: what answers.
        headers: of every answer, where it has none of that name.
        metrics: counts.
        closing: tells whether connections are to end after their answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str],
        metrics: Metrics,
        closing: Callable[[], bool],
    ) -> None:
        self._app, self._headers, self._metrics, self._closing = app, headers, metrics, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        trace = Trace(asked)
        headers = {**self._headers, **trace.headers}
        method = scope["method"]
        inner = {**scope, _NOTES: trace.notes, "method": "GET" if method == "HEAD" else method}
        exchange = _Exchange(scope, receive, send, headers, self._closing)
        start = time.perf_counter()
        try:
            await self._app(inner, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = GONE
        except Exception:
            error_log.exception("%s failed", trace.request_id, extra={"notes": trace.notes})
            await exchange.fail()
        finally:
            seconds = time.perf_counter() - start
            self._metrics.count_request(
                getattr(inner.get("route"), "path", "page"),
                method if method in _METHODS else "other",
                exchange.status,
                seconds=seconds,
                received=exchange.received,
                sent=exchange.sent,
            )
            _write_line(scope, exchange, trace, seconds)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Trace:
    """The names of one request: its own, and that of what it is a part of.

    Source: https://www.w3.org/TR/trace-context/ (traceparent, version 00).

    Attributes:
        request_id: the client's ``X-Request-ID`` where it is short and plain, else a new one.
        headers: that the answer carries.
        notes: for the log.
    """

    def __init__(self, asked: Headers) -> None:
        given = asked.get("x-request-id", "")
        is_plain = re.fullmatch(r"[A-Za-z0-9._:/+=@-]{1,128}", given)
        self.request_id = given if is_plain else secrets.token_hex(16)
        self.headers = {"X-Request-ID": self.request_id}
        self.notes: dict[str, Any] = {"request_id": self.request_id}
        found = re.fullmatch(
            r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?",
            asked.get("traceparent", "").strip(),
        )
        if found is None or found[1] == "ff" or not int(found[2], 16) or not int(found[3], 16):
            return
        if found[1] == "00" and found[5]:
            return
        span = secrets.token_hex(8)
        self.notes |= {"trace_id": found[2], "parent_id": found[3], "span_id": span}
        self.headers["traceparent"] = f"00-{found[2]}-{span}-{found[4]}"


class _Exchange:
    """One request and its answer, watched."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
        closing: Callable[[], bool],
    ) -> None:
        self._receive, self._send, self._headers = receive, send, headers
        self._closing, self._is_head = closing, scope["method"] == "HEAD"
        asked = Headers(scope=scope)
        has_body = "transfer-encoding" in asked or asked.get("content-length", "0") != "0"
        self._body_left = has_body
        self._waits_for_leave = has_body and "expect" in asked  # to send it at all
        self._started = False
        self.status = GONE
        self.received = self.sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits_for_leave = False
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_left = message.get("more_body", False)
        else:
            self._body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
            if self._body_left or self._closing():
                headers["Connection"] = "close"
        else:
            if self._is_head:
                message = {**message, "body": b""}
            self.sent += len(message.get("body", b""))
            is_last = not message.get("more_body", False)
            if is_last and self._body_left and not self._waits_for_leave:
                await self._send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._read_on(), _LINGER_SECONDS)
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def fail(self) -> None:
        """Say that something went wrong here, where nothing was said yet."""
        if self._started:
            raise ConnectionAbortedError  # an answer that is cut off must not look whole
        words = "something went wrong here; the server's log says more, by the X-Request-ID."
        content = problem(500, words)
        headers = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": content})

    async def _read_on(self) -> None:
        while self._body_left:
            await self.receive()


def _write_line(scope: Scope, exchange: _Exchange, trace: Trace, seconds: float) -> None:
    client = (scope.get("client") or ["-"])[0]
    target = _target(scope)
    access_log.info(
        "%s %s %s %d %.1f ms, %d B in, %d B out",
        client,
        scope["method"],
        target,
        exchange.status,
        1000 * seconds,
        exchange.received,
        exchange.sent,
        extra={
            "notes": {
                "client": client,
                "method": scope["method"],
                "target": target,
                "status": exchange.status,
                "duration_ms": round(1000 * seconds, 1),
                "bytes_in": exchange.received,
                "bytes_out": exchange.sent,
                **trace.notes,
            }
        },
    )


def _target(scope: Scope) -> str:
    """Return path and query as they came, which is in visible ASCII letters alone."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    text = path + b"?" + query if query else path
    return ascii(text.decode("ascii", "backslashreplace"))[1:-1]
