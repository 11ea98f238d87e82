"""Many items over the workers of a Ray cluster: each is done once, whoever dies meanwhile.

Actors open what they need once, and are given a few items at a time. Ray Data would do as well for
what never fails; here an item that kills its worker, time and again, must end as a failure of its
own and not be tried for ever.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from deeplab import __version__
from deeplab.errors import DeepLabError, InputError, MissingExtraError
from deeplab.limits import MAX_WORKERS

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3
"""How often an item may be alone with a worker that dies before it is given up."""

_MOST_AT_ONCE = 16
"""Items that a worker is given at a time; fewer towards the end, so that all end together."""

_AHEAD = 2
"""Parcels that each worker has: the one at work and the next."""

_LOOK_AROUND_SECONDS = 5.0
"""How often the cluster is asked whether it has grown."""

_PATIENCE_SECONDS = 300.0
"""How long a cluster may have no room for even one worker."""


@dataclass(frozen=True)
class Lost:
    """What became of an item whose worker died with it, each time."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What each worker takes of the cluster: processors, graphics processors."""

    cpus: float = 1
    gpus: float = 0


@contextmanager
def connected(cluster: str) -> Iterator[None]:
    """Be connected to a Ray cluster until the block ends.

    Args:
        cluster: "local" starts one of this machine's cores, which ends with the block; "auto" is
            the one that this machine is part of; else an address: ``ray://head:10001``,
            ``head:6379``.

    Raises:
        InputError: there is no such cluster, or it does not answer.
        MissingExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of anything
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--cluster", package="ray", extra="cluster") from None
    if ray.is_initialized():  # by whoever calls us; it stays theirs
        yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        settings |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
    else:
        settings |= {"address": cluster}
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises bare ones where it cannot start
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(
            f"--cluster: got '{cluster}', and no cluster answers there ({reason}). Start one with "
            "'ray start --head', or give local. A cluster that asks for a token wants "
            "RAY_AUTH_MODE=token here, and its token in ~/.ray/auth_token."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def has_gpus() -> bool:
    """Return whether the cluster that this process is connected to has graphics processors."""
    import ray

    return bool(ray.cluster_resources().get("GPU"))


def spread(
    items: Sequence[Item],
    open_worker: Callable[..., Callable[[Sequence[Item]], Sequence[Result]]],
    arguments: Mapping[str, Any],
    *,
    needs: Needs,
    limit: int | None = None,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Give items to the workers of the cluster, and yield what became of each, once.

    They come as they are done, in any order. Workers that die are replaced, and their items go to
    others; machines that join in the meantime are used.

    Args:
        items: anything that travels.
        open_worker: called once in every worker with ``arguments``; returns what does some items.
            It is found by its name there, so it stands in a module. Errors that it raises end the
            run.
        arguments: what travels to every worker.
        needs: of each worker.
        limit: workers at most; None takes what the cluster has room for.

    Raises:
        DeepLabError: what a worker raised, with its machine's name; or the cluster has no room.
    """
    run = _Run[Item, Result](items, open_worker, arguments, needs=needs, limit=limit)
    try:
        yield from run.results()
    finally:
        run.end()


@dataclass(frozen=True)
class _Refusal:
    """An error of ours in a worker; as text, since not every error travels."""

    text: str
    machine: str


class _Worker:
    """What runs in an actor."""

    def __init__(self, open_worker: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self._open, self._arguments = open_worker, arguments
        self._work: Callable[[Sequence[Any]], Sequence[Any]] | None = None

    def start(self, version: str) -> _Refusal | None:
        """Open what is needed."""
        if version != __version__:
            return _refusal(f"deeplab {__version__} is installed, and the command is {version}.")
        try:
            self._work = self._open(**self._arguments)
        except DeepLabError as error:
            return _refusal(str(error))
        return None

    def do(self, items: Sequence[Any]) -> list[Any] | _Refusal:
        """Do a parcel; the answers are in its order."""
        assert self._work is not None
        try:
            return list(self._work(items))
        except DeepLabError as error:
            return _refusal(str(error))


def _refusal(text: str) -> _Refusal:
    return _Refusal(text, socket.gethostname())


def _reason(error: Exception) -> str:
    """Return what Ray says of a death, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    if "No module named 'deeplab" in text:
        return "deeplab is not installed on a machine of the cluster"
    if "Traceback" in text:
        text = text.splitlines()[-1]
    return " ".join(text.split())[:300].rstrip(".")


@dataclass
class _Member:
    """A worker as the driver knows it.

    Attributes:
        actor: what takes parcels.
        starting: what comes when it is open; None when it is.
        parcels: the indices that it was given, by what comes back; the first is at work.
    """

    actor: Any
    starting: Any
    parcels: dict[Any, list[int]] = field(default_factory=dict)


class _Run(Generic[Item, Result]):
    """One run of :func:`spread`."""

    def __init__(
        self,
        items: Sequence[Item],
        open_worker: Callable[..., Any],
        arguments: Mapping[str, Any],
        *,
        needs: Needs,
        limit: int | None,
    ) -> None:
        import ray

        self._ray, self._needs, self._limit = ray, needs, limit
        self._items = items
        self._waiting = deque(range(len(items)))
        self._alone: deque[int] = deque()
        self._deaths: Counter[int] = Counter()
        self._members: list[_Member] = []
        self._failed_starts = 0
        self._looked = self._moved = -math.inf
        self._actor = ray.remote(
            num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0, max_task_retries=0
        )(_Worker)
        # Once for all: a model, say, goes to each machine and not to each worker.
        self._sent = ray.put(open_worker), ray.put(dict(arguments))

    def results(self) -> Iterator[tuple[Item, Result | Lost]]:
        """Yield what became of every item."""
        self._moved = time.monotonic()
        while self._waiting or self._alone or any(one.parcels for one in self._members):
            self._grow()
            self._feed()
            due = {ref: one for one in self._members for ref in one.parcels}
            due |= {one.starting: one for one in self._members if one.starting is not None}
            done, _ = self._ray.wait([*due], timeout=1.0) if due else ([], [])
            if done:
                self._moved = time.monotonic()
            elif not any(one.starting is None for one in self._members):
                self._check_patience()
            for ref in done:
                yield from self._take(due[ref], ref)

    def end(self) -> None:
        """Let all workers go."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members = []

    def _grow(self) -> None:
        """Start as many workers as there is room and work for."""
        now = time.monotonic()
        left = len(self._waiting) + len(self._alone)
        if now < self._looked + _LOOK_AROUND_SECONDS or not left:
            return
        self._looked = now
        there = self._ray.cluster_resources()
        room = there.get("CPU", 0) / self._needs.cpus
        if self._needs.gpus:
            room = min(room, there.get("GPU", 0) / self._needs.gpus)
        wanted = min(max(1, int(room)), left + len(self._members), self._limit or MAX_WORKERS)
        while len(self._members) < wanted:
            actor = self._actor.remote(*self._sent)
            self._members.append(_Member(actor, actor.start.remote(__version__)))

    def _feed(self) -> None:
        """Give the next parcels to whoever is open."""
        ready = [one for one in self._members if one.starting is None]
        for depth in range(_AHEAD):
            for member in ready:
                if len(member.parcels) != depth or any(
                    items[0] in self._deaths for items in member.parcels.values()
                ):
                    continue
                if self._alone and not depth:
                    self._give(member, [self._alone.popleft()])
                elif self._waiting:
                    share = len(self._waiting) // (2 * _AHEAD * len(ready))
                    count = max(1, min(_MOST_AT_ONCE, share))
                    count = min(count, len(self._waiting))
                    self._give(member, [self._waiting.popleft() for _ in range(count)])

    def _give(self, member: _Member, parcel: list[int]) -> None:
        items = [self._items[index] for index in parcel]
        member.parcels[member.actor.do.remote(items)] = parcel

    def _take(self, member: _Member, ref: Any) -> Iterator[tuple[Item, Result | Lost]]:
        """Take what came from a worker, or notice that it is gone."""
        if member not in self._members:
            return
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            yield from self._bury(member, error)
            return
        if isinstance(answer, _Refusal):
            raise DeepLabError(f"on {answer.machine}: {answer.text}")
        self._failed_starts = 0
        if ref == member.starting:  # over ray:// it is another object
            member.starting = None
            return
        for index, one in zip(member.parcels.pop(ref), answer, strict=True):
            yield self._items[index], one

    def _bury(self, member: _Member, error: Exception) -> Iterator[tuple[Item, Result | Lost]]:
        """Take what a dead worker had done, and give the rest of its items to others.

        Of the parcel at work each item is tried alone from now on, so that the one that kills its
        worker, if there is one, is found.
        """
        self._members.remove(member)
        self._ray.kill(member.actor)  # it may be cut off only; what it was given is given again
        self._looked = -math.inf
        reason = _reason(error)
        if member.starting is not None:
            self._failed_starts += 1
            if self._failed_starts >= TRIES:
                raise DeepLabError(f"--cluster: workers die before they are open: {reason}.")
        at_work = True
        for ref, parcel in member.parcels.items():
            try:
                answer = self._ray.get(ref)
                if isinstance(answer, list):
                    for index, one in zip(parcel, answer, strict=True):
                        yield self._items[index], one
                    continue
            except self._ray.exceptions.RayError:
                pass
            if not at_work:
                self._waiting.extendleft(reversed(parcel))
                continue
            at_work = False
            for index in parcel:
                self._deaths[index] += len(parcel) == 1
                if self._deaths[index] >= TRIES:
                    lost = Lost(f"its worker died with it, {TRIES} times: {reason}")
                    yield self._items[index], lost
                else:
                    self._alone.append(index)

    def _check_patience(self) -> None:
        if time.monotonic() > self._moved + _PATIENCE_SECONDS:
            there = self._ray.cluster_resources()
            raise DeepLabError(
                f"--cluster: no worker could start for {_PATIENCE_SECONDS:.0f} s; each needs "
                f"{self._needs.cpus:g} CPUs and {self._needs.gpus:g} GPUs, and the cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}, perhaps taken by others."
            )
