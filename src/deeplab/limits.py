"""How much is too much: where the numbers that people give end.

Beyond these ends an engine ends the process, a machine gives no more, or nobody lives to see it.
"""

from __future__ import annotations

from deeplab.errors import InputError

MAX_THREADS = 256
"""Of a network, on one photo."""

MAX_WORKERS = 1024
"""Photos worked on at the same time."""

MAX_SIDE = 16_384
"""Of a network's frame, in pixels."""

MAX_SECONDS = 86_400.0
"""Of waiting and of measuring: a day."""

MAX_COUNT = 1_000_000_000
"""Of anything that is done one after the other."""


def check_whole(field: str, value: object, *, most: int) -> None:
    """Refuse what is no whole number from 1 to ``most``.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{field}: got {value!r}, expected a whole number from 1 to {most}.")
