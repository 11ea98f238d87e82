"""Who may come in: hosts, origins, tokens, and how often."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deeplab.errors import InputError
from deeplab.serve.rate import Rate, name_client
from deeplab.serve.refusal import Refusal, refuse

_OPEN = ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready",
         "/manifest.webmanifest")  # fmt: skip
"""Told to everybody: what watches a server has no token, and browsers send none with the last."""

CROWDED = "crowded"
"""In the state of a request: there are more connections than are served."""

_MAY_SEND = (
    "Accept, Authorization, Content-Type, Inference-Header-Content-Length, X-Request-ID, "
    "traceparent"
)
_MAY_READ = "Inference-Header-Content-Length, Retry-After, Server-Timing, X-Request-ID, traceparent"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may come in.

    Attributes:
        tokens: one of which every request must show; none lets everybody in.
        hosts: names by which the server may be called, "*.example.org" for all below one; None
            takes any. Addresses in numbers are always taken: no name of another can lead there.
        origins: of pages on other sites that may use the API, "https://example.org", or "*".
        root_path: in front of every address where a proxy puts it, "/segment"; "" is none.
    """

    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    origins: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        for token in self.tokens:
            if not re.fullmatch("[!-~]{8,}", token):
                raise InputError(
                    "token: expected at least 8 visible ASCII letters without spaces, for example "
                    "what `openssl rand -hex 32` prints."
                )
        for host in self.hosts or ():
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", host):
                raise InputError(
                    f"allowed-host: got '{host}', expected a name such as example.org or "
                    "*.example.org, without scheme and port."
                )
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#]+", origin):
                raise InputError(
                    f"allow-origin: got '{origin}', expected scheme, host and port alone, such as "
                    "https://example.org, or *."
                )
        if self.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.root_path):
            raise InputError(
                f"root-path: got '{self.root_path}', expected a path such as /segment, with a "
                "slash in front and none at the end."
            )


LOCAL_HOSTS = ("localhost", "*.localhost")
"""Names of a server that only this machine can reach. A page of another site, whose name is made to
lead here ("DNS rebinding"), calls it by its own."""


class Door:
    """Lets requests in, or refuses them.

    Args:
        app: what is behind it.
        rules: who may come in.
        rate: how often each client may ask for work; None is no limit.
    """

    def __init__(self, app: ASGIApp, *, rules: Rules, rate: Rate | None) -> None:
        self._app, self._rules, self._rate = app, rules, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._take_root_path(scope)
        request = Request(scope)
        origin = request.headers.get("origin")
        granted = self._granted(origin)

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start" and self._rules.origins:
                headers = MutableHeaders(scope=message)
                if granted:
                    headers["Access-Control-Allow-Origin"] = granted
                    headers["Access-Control-Expose-Headers"] = _MAY_READ
                if granted != "*":
                    headers.add_vary_header("Origin")
            await send(message)

        try:
            self._check_crowd(scope)
            self._check_host(request.headers)
            is_preflight = (
                scope["method"] == "OPTIONS" and "access-control-request-method" in request.headers
            )
            if origin and is_preflight:
                response = self._answer_preflight(origin, granted)
            else:
                self._check_site(request, granted)
                self._check_token(request)
                self._check_rate(request)
                await self._app(scope, receive, send_with_origin)
                return
        except Refusal as refusal:
            response = refuse(refusal)
            if refusal.status == 401:  # a line of its own: browsers read one scheme a line
                response.headers.append("WWW-Authenticate", 'Bearer realm="deeplab"')
        await response(scope, receive, send_with_origin)

    def _take_root_path(self, scope: Scope) -> None:
        """Say where the application stands, whether a proxy left the path in front or not."""
        root, path = self._rules.root_path, scope["path"]
        if not root:
            return
        scope["root_path"] = root
        if path != root and not path.startswith(f"{root}/"):
            scope["path"] = root + path

    def _check_crowd(self, scope: Scope) -> None:
        if scope.get("state", {}).get(CROWDED) and _local_path(scope) not in _OPEN:
            raise Refusal(
                503,
                "there are too many connections. Try again later.",
                retry_seconds=1,
                headers={"Connection": "close"},
            )

    def _check_host(self, headers: Headers) -> None:
        if self._rules.hosts is None:
            return
        host = headers.get("host", "")
        name = re.sub(r":\d*$", "", host).lower().rstrip(".")
        if _is_address(name) or any(_matches(name, known) for known in self._rules.hosts):
            return
        raise Refusal(
            421,
            f"Host: got '{host[:100]}', which is no name of this server. Whoever runs it lets it "
            "in with --allowed-host.",
        )

    def _granted(self, origin: str | None) -> str | None:
        if origin is None or not self._rules.origins:
            return None
        if "*" in self._rules.origins:
            return "*"
        return origin if origin in self._rules.origins else None

    def _answer_preflight(self, origin: str, granted: str | None) -> Response:
        if granted is None:
            raise _other_site(origin)
        headers = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST",
            "Access-Control-Allow-Headers": _MAY_SEND,
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers=headers)

    def _check_site(self, request: Request, granted: str | None) -> None:
        """Refuse work for pages of other sites: a browser sends it for them, unseen."""
        site = request.headers.get("sec-fetch-site", "none")
        if request.method == "POST" and site in ("cross-site", "same-site") and granted is None:
            raise _other_site(request.headers.get("origin", site))

    def _check_token(self, request: Request) -> None:
        if not self._rules.tokens or _local_path(request.scope) in _OPEN:
            return
        shown = _shown_token(request.headers.get("authorization", ""))
        # All of them are compared, each in constant time.
        matches = [hmac.compare_digest(shown, token.encode()) for token in self._rules.tokens]
        if shown and any(matches):
            return
        self._count(request)
        got = "another" if shown else "none"
        raise Refusal(
            401,
            f"Authorization: got {got}, expected 'Bearer TOKEN' with a token of this server (a "
            "browser asks for a password: it is the token).",
            headers={"WWW-Authenticate": 'Basic realm="deeplab"'},
        )

    def _check_rate(self, request: Request) -> None:
        if request.method == "POST":
            self._count(request)

    def _count(self, request: Request) -> None:
        if self._rate is None:
            return
        client = name_client(request.client.host if request.client else "-")
        if seconds := self._rate.take(client):
            raise Refusal(
                429,
                f"there were too many requests from {client}. Try again in {seconds} seconds.",
                retry_seconds=seconds,
            )


def _local_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _shown_token(authorization: str) -> bytes:
    """Return the token of a header: that of a bearer, or the password that a browser sends."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _matches(name: str, known: str) -> bool:
    known = known.lower()
    if known.startswith("*."):
        return name.endswith(known[1:])
    return name == known


def _other_site(origin: str) -> Refusal:
    return Refusal(
        403,
        f"Origin: got '{origin[:100]}', another site. Whoever runs this server lets its pages in "
        "with --allow-origin.",
    )


def read_tokens(lines: Collection[str]) -> tuple[str, ...]:
    """Return the tokens of a file: one a line; empty lines and those with # in front are none."""
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
