"""The threads that segment, and what may wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect

from deeplab.serve.limits import Limits
from deeplab.serve.refusal import Refusal

T = TypeVar("T")


class Workers:
    """A pool of threads with a bounded queue in front of it.

    Attributes:
        pending: photos that are waiting or being worked on.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.concurrency, thread_name_prefix="deeplab-serve")
        self._pixels = _Room(limits.max_pixels_at_work)
        self._lock = threading.Lock()
        self._usual_seconds = 0.0
        self.pending = 0

    def check(self) -> None:
        """Refuse where the queue is full, so that nothing is uploaded in vain.

        Raises:
            Refusal: 503.
        """
        if self.pending >= self._limits.concurrency + self._limits.queue:
            raise Refusal(
                503,
                f"{self.pending} photos are waiting or being worked on already, which is the "
                "most that this server takes on. Try again later.",
                retry_seconds=self._wait_seconds(),
            )

    async def run(
        self,
        work: Callable[[Job], T],
        *,
        gone: Callable[[], Awaitable[None]],
        after: Callable[[], None],
    ) -> T:
        """Run ``work`` in a thread, as soon as one is free, and return what it returns.

        Args:
            work: gets the :class:`Job`.
            gone: comes to an end when nobody waits for the result any more.
            after: called, from any thread, when the work is over or will never begin.

        Raises:
            Refusal: the queue is full, or the time is over (503).
            ClientDisconnect: nobody waits for the result any more.
        """
        try:
            self.check()
        except Refusal:
            after()
            raise
        job = Job(self._pixels, time.monotonic() + self._limits.timeout_seconds)
        with self._lock:
            self.pending += 1
        started = self._pool.submit(self._timed, work, job)
        started.add_done_callback(lambda _: self._end(after))
        result = asyncio.wrap_future(started)
        watch = asyncio.ensure_future(gone())
        try:
            await asyncio.wait(
                (result, watch),
                timeout=self._limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if result.done():
                return result.result()
            job.cancelled = True
            if watch.done():
                raise ClientDisconnect
            raise self._too_late()
        finally:
            watch.cancel()
            result.cancel()  # takes it out of the queue; a thread that is at work finishes

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: Callable[[Job], T], job: Job) -> T:
        start = time.monotonic()
        if job.cancelled or start > job.deadline:
            raise self._too_late()
        try:
            return work(job)
        except TimeoutError:
            raise self._too_late() from None
        finally:
            seconds = time.monotonic() - start
            self._usual_seconds += 0.1 * (seconds - self._usual_seconds)

    def _end(self, after: Callable[[], None]) -> None:
        with self._lock:
            self.pending -= 1
        after()

    def _too_late(self) -> Refusal:
        return Refusal(
            503,
            f"the photo was not done within {self._limits.timeout_seconds:g} seconds. Try again "
            "later, or send a smaller photo.",
            retry_seconds=self._wait_seconds(),
        )

    def _wait_seconds(self) -> int:
        """Return how long it takes, about, until those who wait now are done."""
        return max(1, round(self.pending * self._usual_seconds / self._limits.concurrency))


class Job:
    """One photo at work.

    Attributes:
        deadline: after this, on the monotonic clock, nobody waits for it.
        cancelled: nobody waits for it.
    """

    def __init__(self, pixels: _Room, deadline: float) -> None:
        self._pixels, self.deadline, self.cancelled = pixels, deadline, False

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many decoded pixels, and keep it.

        Raises:
            TimeoutError: there was none before the deadline.
        """
        self._pixels.take(pixels, seconds=self.deadline - time.monotonic())
        try:
            yield
        finally:
            self._pixels.give_back(pixels)


class _Room:
    """So much of something may be in use by all threads together."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    def take(self, amount: int, *, seconds: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= amount, timeout=max(0.0, seconds)):
                raise TimeoutError
            self._free -= amount

    def give_back(self, amount: int) -> None:
        with self._changed:
            self._free += amount
            self._changed.notify_all()
