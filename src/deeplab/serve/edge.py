"""What happens to every request, whatever it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deeplab.serve.metrics import Metrics

_LINGER_SECONDS = 5.0
"""How long a refused upload is still read, and thrown away."""

GONE = 499
"""For log and metrics: the client closed the connection. Nobody is there to read a status."""

access_log = logging.getLogger("deeplab.serve.access")


class Edge:
    """Sets headers, counts, writes the access log, and lets refused uploads end in order.

    An answer that comes before the whole request was read would be lost: closing a connection on
    which bytes are still arriving makes the client's system throw away what it has not read. So
    what is left of the upload is read for a while.
    """

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str], metrics: Metrics) -> None:
        self._app, self._headers, self._metrics = app, headers, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._headers)
        start = time.perf_counter()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = GONE
        except Exception:
            exchange.status = 500
            raise
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "page")
            known = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count_request(
                route,
                known,
                exchange.status,
                seconds=seconds,
                received=exchange.received,
                sent=exchange.sent,
            )
            access_log.info(
                "%s %s %s %d %.1f ms, %d B in, %d B out",
                (scope.get("client") or ["-"])[0],
                scope["method"],
                _target(scope),
                exchange.status,
                1000 * seconds,
                exchange.received,
                exchange.sent,
            )


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Exchange:
    """One request and its answer, watched."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        self._receive, self._send, self._headers = receive, send, headers
        asked = Headers(scope=scope)
        has_body = "transfer-encoding" in asked or asked.get("content-length", "0") != "0"
        self._body_left = has_body
        self._waits_for_leave = has_body and "expect" in asked  # to send it at all
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
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
            if self._body_left:
                headers["Connection"] = "close"
        else:
            self.sent += len(message.get("body", b""))
            is_last = not message.get("more_body", False)
            if is_last and self._body_left and not self._waits_for_leave:
                await self._send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._read_on(), _LINGER_SECONDS)
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _read_on(self) -> None:
        while self._body_left:
            await self.receive()


def _target(scope: Scope) -> str:
    """Return path and query as they came, which is in visible ASCII letters alone."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    text = path + b"?" + query if query else path
    return ascii(text.decode("ascii", "backslashreplace"))[1:-1]
