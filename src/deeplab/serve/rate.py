"""How often each client may ask: a token bucket for each, shared by all processes of a server."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

_PLACES = 4096
_PROBES = 8

_BUCKET = np.dtype([("key", "<u8"), ("left", "<f8"), ("at", "<f8")])

TABLE_BYTES = _PLACES * _BUCKET.itemsize
"""Memory that a table of buckets takes."""


class Rate:
    """So many requests a minute for each client, all of which may come at once.

    Args:
        per_minute: for each client.
        memory: ``TABLE_BYTES`` writable bytes, zero at first; processes may share them.
        lock: guards it.
        secret: with which clients are hashed: none can choose a neighbour's place.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        memory: Any,
        lock: AbstractContextManager[Any],
        secret: bytes | None = None,
    ) -> None:
        self._most, self._per_second = max(1.0, per_minute), per_minute / 60
        self._table = np.frombuffer(memory, _BUCKET, _PLACES)
        self._lock, self._secret = lock, secret or secrets.token_bytes(16)

    def take(self, client: str, *, now: float | None = None) -> int:
        """Count a request; return 0 if it may go on, else after how many seconds to try again."""
        now = time.monotonic() if now is None else now
        digest = hashlib.blake2b(client.encode(), digest_size=8, key=self._secret).digest()
        key = int.from_bytes(digest, "little") | 1  # 0 is an empty place
        with self._lock:
            place = self._find(key, now)
            bucket = self._table[place]
            is_new = bucket["key"] != key
            waited = 0.0 if is_new else max(0.0, now - float(bucket["at"]))
            left = self._most if is_new else float(bucket["left"]) + waited * self._per_second
            left = min(self._most, left)
            is_free = left >= 1
            self._table[place] = (key, left - 1 if is_free else left, now)
        return 0 if is_free else math.ceil((1 - left) / self._per_second)

    def _find(self, key: int, now: float) -> int:
        """Return the client's place, else an empty one, else that of who asked longest ago."""
        places = [(key + step) % _PLACES for step in range(_PROBES)]
        for place in places:
            if self._table[place]["key"] == key:
                return place
        return min(places, key=lambda place: float(self._table[place]["at"]))


def name_client(address: str) -> str:
    """Return what stands for a client: its address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)
