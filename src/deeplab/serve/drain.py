"""The end of a server, in which no client sees a connection reset."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
import time
from collections.abc import Callable

import uvicorn

_HANDSHAKE_SECONDS = 0.2
"""For connections that are being opened when the socket stops taking new ones."""

_IDLE_SECONDS = 1.0
"""How long a connection that is kept open may stay without a request. A client that sends one is
answered, and told that the connection ends; only those that are silent are closed."""


class DrainingServer(uvicorn.Server):
    """Ends in four steps: it says so, takes no new connections, answers what comes, and closes.

    Args:
        config: of uvicorn.
        tell: called at the beginning of the end.
        drain_seconds: how long new connections are still taken after that.
    """

    def __init__(
        self, config: uvicorn.Config, *, tell: Callable[[], None], drain_seconds: float
    ) -> None:
        super().__init__(config)
        self._tell, self._drain_seconds = tell, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end as uvicorn does."""
        self._tell()
        await self._wait(self._drain_seconds)
        filtered = [refuse_new(listening) for listening in sockets or []]
        if any(filtered):
            await self._wait(_HANDSHAKE_SECONDS)  # the loop takes those who stand in line
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        await self._wait(_IDLE_SECONDS, until=lambda: not self.server_state.connections)
        await super().shutdown(sockets)

    async def _wait(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until() and not self.force_exit:
            await asyncio.sleep(0.02)


def refuse_new(listening: socket.socket) -> bool:
    """Let a listening socket take no new connection, but those that are being opened.

    Closing it would reset clients that stand in line. Their number grows no more when the kernel
    drops the packets that ask for a new connection: a filter on the socket, where the system has
    such. Clients ask again a second later, and find the port closed.

    Returns:
        Whether the system could.
    """
    if not sys.platform.startswith("linux"):
        return False
    # In the TCP header, byte 13 holds the flags. Source: RFC 9293, section 3.1.
    load_flags, jump_if_set, give_back = 0x30, 0x45, 0x06
    syn, ack = 0x02, 0x10
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (load_flags, 0, 0, 13),
            (jump_if_set, 0, 2, syn),
            (jump_if_set, 1, 0, ack),
            (give_back, 0, 0, 0),
            (give_back, 0, 0, 0xFFFF_FFFF),
        )
    )
    kept = ctypes.create_string_buffer(program)
    option = struct.pack("HL", len(program) // 8, ctypes.addressof(kept))
    attach_filter = 26  # SO_ATTACH_FILTER, which the socket module does not name
    try:
        listening.setsockopt(socket.SOL_SOCKET, attach_filter, option)
    except OSError:
        return False
    return True
