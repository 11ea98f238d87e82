"""One address of an API."""

from __future__ import annotations

from starlette.routing import Match, Route
from starlette.types import Scope


class Address(Route):
    """An address that is known by its pattern, so that log and counts have few of them.

    Attributes:
        shared: it is another one's for all methods but its own.
    """

    shared = False

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is for it, and what to tell whoever answers."""
        match, child = super().matches(scope)
        if self.shared and match is Match.PARTIAL:
            return Match.NONE, {}
        return match, {**child, "route": self}


class SharedAddress(Address):
    """An address that is another one's for all methods but its own."""

    shared = True
