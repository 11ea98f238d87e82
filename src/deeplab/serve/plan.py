"""What a server is told, in one piece that travels to its processes, and how it starts."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from deeplab.errors import InputError
from deeplab.segmenter import Runtime, Segmenter
from deeplab.serve.apis import Api
from deeplab.serve.app import build_app
from deeplab.serve.door import Rules
from deeplab.serve.limits import Limits
from deeplab.serve.log import LogFormat, start_log
from deeplab.serve.models import open_models
from deeplab.serve.rate import TABLE_BYTES, Rate
from deeplab.serve.run import run
from deeplab.serve.shared import Shared, Slot

Tell: TypeAlias = "Callable[[str, Segmenter, str | None], None]"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a server is told.

    Attributes:
        files: name → file of the models, the default first.
        threads: of the network, for each photo.
        runtime: the engine; None takes the usual one of each file.
        device: where the engine computes; None is the CPU.
        told: what else a segmenter is told.
        limits: what is refused, by each process.
        rules: who may come in.
        per_minute: requests for work of each client; None is no limit.
        apis: of other programs.
        access_log: a line for every request.
        log_format: of the lines.
        drain_seconds: how long new connections are still taken when the end is near.
        workers: processes.
        page: offer the models on the browser page too, which knows what their files say, and
            nothing of what else a segmenter is told.
    """

    files: dict[str, Path]
    threads: int = 1
    runtime: Runtime | None = None
    device: str | None = None
    told: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)
    per_minute: float | None = None
    apis: tuple[Api, ...] = ()
    access_log: bool = True
    log_format: LogFormat = "text"
    drain_seconds: float = 0
    workers: int = 1
    page: bool = True

    def __post_init__(self) -> None:
        if self.per_minute is not None and not 0 < self.per_minute < math.inf:
            raise InputError(f"rate: got {self.per_minute:g} a minute, expected more than 0.")


def serve(
    plan: Plan,
    listening: socket.socket,
    *,
    tell: Tell | None,
    ready: Callable[[], None],
    shared: Shared | None = None,
    number: int = 0,
) -> None:
    """Open the models and answer requests until a signal comes.

    Args:
        plan: what the server is told.
        listening: where it listens.
        tell: tells what a model leaves open: its name, itself, the device that was asked for;
            None tells nobody.
        ready: called when the models are open.
        shared: with the other processes, where there are several.
        number: of this process.

    Raises:
        InputError, ModelError, MissingExtraError: as :func:`~deeplab.serve.models.open_models`.
    """
    segmenters = open_models(
        plan.files,
        streams=plan.limits.concurrency,
        threads=plan.threads,
        runtime=plan.runtime,
        device=plan.device,
        **plan.told,
    )
    if tell is not None:
        for name, segmenter in segmenters.items():
            tell(name, segmenter, plan.device)
    app = build_app(
        segmenters,
        limits=plan.limits,
        files=plan.files if plan.page else None,
        rules=plan.rules,
        rate=_open_rate(plan, shared),
        apis=plan.apis,
        others=shared.read_others(number) if shared else list,
    )
    start_log(access=plan.access_log, form=plan.log_format)
    service = app.state.service
    slot = Slot(shared, number) if shared else None
    if slot is not None:
        slot.keep(service.metrics, service.gauges)
    ready()
    try:
        run(app, listening, limits=plan.limits, drain_seconds=plan.drain_seconds)
    finally:
        if slot is not None:
            slot.close()


def _open_rate(plan: Plan, shared: Shared | None) -> Rate | None:
    if plan.per_minute is None:
        return None
    if shared is None:
        return Rate(plan.per_minute, memory=bytearray(TABLE_BYTES), lock=threading.Lock())
    return Rate(plan.per_minute, memory=shared.rates, lock=shared.lock, secret=shared.secret)
