"""What uvicorn's protocol lacks: an end to waiting, and refusals in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from deeplab.serve.door import CROWDED
from deeplab.serve.refusal import PROBLEM_TYPE, problem

_HEAD_SECONDS = 10.0
"""At most, from the opening of a connection, or the first byte of a further request, to the end of
its headers."""


def limit_transfers(seconds: float, *, most_connections: int) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with an end to waiting.

    Args:
        seconds: how long a client may take to receive an answer.
        most_connections: requests on further ones are marked as ``CROWDED``.
    """

    class TimedProtocol(H11Protocol):
        """Closes connections on which a client is slow to ask, or to take its answer."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._request = _Timer(self.loop, min(seconds, _HEAD_SECONDS), self._give_up)
            self._answer = _Timer(self.loop, seconds, self._cut)
            self.app_state = dict(self.app_state)  # this connection's

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._request.start()

        def data_received(self, data: bytes) -> None:
            self.app_state[CROWDED] = len(self.connections) > most_connections
            super().data_received(data)
            if self._is_busy():
                self._request.stop()
            else:
                self._request.start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._request.stop()
            self._answer.stop()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._answer.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._answer.stop()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._answer.start()  # where the last of the answer was not taken, closing waits for it

        def send_400_response(self, msg: str) -> None:
            """Say that what came is no HTTP, where nothing was said yet."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                words = f"{msg[:1].lower()}{msg[1:]} Expected HTTP/1.1, see RFC 9112."
                content = problem(400, words)
                headers = [
                    (b"content-type", PROBLEM_TYPE.encode()),
                    (b"content-length", str(len(content)).encode()),
                    (b"connection", b"close"),
                ]
                response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
                for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _is_busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _give_up(self) -> None:
            if not self._is_busy():
                self._cut()

        def _cut(self) -> None:
            self.transport.abort()

    return TimedProtocol


class _Timer:
    """Calls something once after a while, unless it is stopped before."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._action = loop, seconds, action
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, unless it does already."""
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._action)

    def stop(self) -> None:
        """Do not call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
