"""On which processor a network runs: one vocabulary for every engine, and what to say of it.

``cpu`` is what nobody has to ask for, and the reference: what any other device answers is compared
with it first (:mod:`deeplab.runtimes.device_check`). ``gpu`` and ``npu`` take what the engine finds
of that kind; ``cuda``, ``mps`` and ``tensorrt`` name one maker's way. ``auto`` takes the fastest
that is here and answers as the CPU does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deeplab.errors import InputError, ModelError, near_matches
from deeplab.runtimes.answers import last_line

KINDS = ("auto", "cpu", "gpu", "npu", "cuda", "mps", "tensorrt")

VOCABULARY = "auto, cpu, gpu, npu, cuda, cuda:1, mps, tensorrt"
"""The words in messages and helps."""

_WRITTEN = re.compile(r"([a-z]+)(?::(\d{1,3}))?")

_NUMBERED = ("gpu", "cuda", "tensorrt")

_MEMORY = re.compile(
    r"out of memory|failed to allocate|alloc[a-z_]* fail|memoryallocation|out_of_resources"
    r"|cannot allocate|bad_alloc|not enough memory",
    re.IGNORECASE,
)
"""How engines and drivers say that a device's memory is too small."""


@dataclass(frozen=True)
class Device:
    """A word of the vocabulary.

    Attributes:
        kind: one of ``KINDS``.
        index: which of several, from 0.
    """

    kind: str = "cpu"
    index: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.index else self.kind


CPU = Device()
AUTO = Device("auto")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One device as one engine sees it.

    Attributes:
        device: the word that asks for it.
        name: what it is called here, or by what way the engine reaches it.
        here: whether this machine has it; None where only a trial tells.
        cure: how to get what is missing.
    """

    device: Device
    name: str
    here: bool | None
    cure: str = ""


def read_device(text: str | Device | None) -> Device:
    """Return a device by its word; None is the CPU.

    Raises:
        InputError: there is no such word.
    """
    if text is None or isinstance(text, Device):
        return text or CPU
    found = _WRITTEN.fullmatch(text)
    if not found or found[1] not in KINDS or (found[2] and found[1] not in _NUMBERED):
        close = near_matches(text, KINDS)
        raise InputError(f"device: got '{text}', expected one of {VOCABULARY}.{close}")
    return Device(found[1], int(found[2] or 0))


def check_device(engine: str, device: Device, places: Sequence[Place]) -> None:
    """Refuse a device that an engine does not know, or that this machine does not have.

    Args:
        engine: its name, for messages.
        device: what was asked for.
        places: all that the engine knows, here or not.

    Raises:
        InputError: with what is here instead, and how to get what is missing.
    """
    if device in (CPU, AUTO):
        return
    here = ", ".join(str(place.device) for place in places if place.here is not False)
    known = [place for place in places if place.device.kind == device.kind]
    if not known:
        raise InputError(
            f"device: '{engine}' does not compute on '{device}'; here it takes {here} "
            "('deeplab info --devices' lists every engine's)."
        )
    if any(place.here is None or (place.here and place.device == device) for place in known):
        return
    count = sum(place.here is True for place in known)
    if count:
        raise InputError(
            f"device: got '{device}', but '{engine}' finds {count} of that kind here, counted from "
            f"0; it takes {here}."
        )
    raise InputError(
        f"device: '{engine}' finds no '{device.kind}' here. It needs {known[0].cure}. Without that "
        f"it takes {here}."
    )


def cannot_run(name: str, engine: str, device: Device, error: Exception) -> ModelError:
    """Return what to raise where a device fails to open or to run a network, with the cure.

    Args:
        name: of the file.
        engine: its name, for people.
        device: on which it was tried.
        error: what the engine raised.
    """
    if _MEMORY.search(str(error)):
        cure = (
            f"the memory of '{device}' is too small for it: take a smaller --size, end what else "
            "runs there, or leave --device out"
        )
    else:
        cure = "leave --device out to run it on the CPU"
    return ModelError(
        f"{name}: {engine} cannot run this network on '{device}'; {cure}. ({last_line(error)})"
    )
