"""Listen, answer, and end in order."""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from deeplab.errors import InputError
from deeplab.serve.limits import Limits
from deeplab.serve.protocol import limit_transfers

_MOST_CONNECTIONS = 500
"""At the same time; below the number of open files that systems give a program by default."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: a name or address of this machine.
        port: 0 takes a free one.

    Raises:
        InputError: another program listens there, it is not allowed, or no such address.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port: got {port}, expected 0 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise InputError(f"host: there is no '{host}'; write an address of this machine.") from None
    try:
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port: {port} is taken by another program; choose another with "
            "--port, or --port 0 for any that is free.",
            errno.EACCES: f"port: {port} needs more rights than you have; take one from 1024 on.",
            errno.EADDRNOTAVAIL: f"host: '{host}' is no address of this machine.",
        }
        words = reasons.get(error.errno or 0, f"host: cannot listen at {host}:{port}: {error}.")
        raise InputError(words) from None


def address_of(listening: socket.socket) -> str:
    """Return what to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Return whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def run(app: FastAPI, listening: socket.socket, *, limits: Limits) -> None:
    """Answer requests until SIGINT or SIGTERM comes; then finish those that are running."""
    # What clients do wrong is answered and counted; the log is for what we do wrong.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=limit_transfers(limits.transfer_seconds),
        ws="none",
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(limits.transfer_seconds + limits.timeout_seconds),
    )
    server = uvicorn.Server(config)
    with _ending_well(server):
        server.run(sockets=[listening])


@contextmanager
def _ending_well(server: uvicorn.Server) -> Iterator[None]:
    """Make a signal that ended the server no reason to end the process: that is done already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not server.should_exit:  # it does not listen to signals yet
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
