"""Listen, answer, and end in order."""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import multiprocessing
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from deeplab.errors import InputError
from deeplab.serve.drain import DrainingServer
from deeplab.serve.limits import Limits
from deeplab.serve.protocol import limit_transfers


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
        made = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port: {port} is taken by another program; choose another with "
            "--port, or --port 0 for any that is free.",
            errno.EACCES: f"port: {port} needs more rights than you have; take one from 1024 on.",
            errno.EADDRNOTAVAIL: f"host: '{host}' is no address of this machine.",
        }
        words = reasons.get(error.errno or 0, f"host: cannot listen at {host}:{port}: {error}.")
        raise InputError(words) from None
    # asyncio sets TCP_NODELAY on connections of sockets that say that they are TCP; those of
    # create_server do not. Without it each answer on a connection that is kept open waits 40 ms.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())


def address_of(listening: socket.socket) -> str:
    """Return what to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(listening: socket.socket) -> bool:
    """Return whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def run(
    app: FastAPI, listening: socket.socket, *, limits: Limits, drain_seconds: float = 0
) -> None:
    """Answer requests until SIGINT or SIGTERM comes; then finish those that are running.

    Args:
        app: of :func:`~deeplab.serve.app.build_app`.
        listening: of :func:`listen`; it is closed in the end.
        limits: of the same application.
        drain_seconds: how long new connections are still taken after the signal, while ``/readyz``
            says that the end is near.
    """
    # What clients do wrong is answered and counted; the log is for what we do wrong.
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=limit_transfers(limits.transfer_seconds, most_connections=limits.max_connections),
        ws="none",
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.transfer_seconds + limits.timeout_seconds),
    )

    def tell() -> None:
        app.state.service.draining = True

    server = DrainingServer(config, tell=tell, drain_seconds=drain_seconds)
    with _ending_well(server), _ending_with_parent(server):
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


@contextmanager
def _ending_with_parent(server: uvicorn.Server) -> Iterator[None]:
    """End a process of several as soon as the one that started it is no more."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
    yield
