"""One address of an API."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send


class Address(Route):
    """An address that is known by its pattern, so that log and counts have few of them."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is for it, and what to tell whoever answers."""
        match, child = super().matches(scope)
        return match, {**child, "route": self}


class SharedAddress(Address):
    """An address at which ``GET`` finds a file, or none."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request is for it; one for a file is not."""
        match, child = super().matches(scope)
        is_for_file = match is Match.PARTIAL and scope["method"] in ("GET", "HEAD")
        return (Match.NONE, {}) if is_for_file else (match, child)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse another method.

        Raises:
            HTTPException: 405.
        """
        methods = self.methods or set()
        if scope["method"] not in methods:
            is_page = scope["path"].removeprefix(scope.get("root_path", "")) == "/"
            allowed = {"GET", "HEAD", *methods} if is_page else methods
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        await super().handle(scope, receive, send)
