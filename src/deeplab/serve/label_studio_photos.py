"""The photos of Label Studio's tasks, from Label Studio alone."""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from deeplab.serve.refusal import Refusal

_SECONDS = 20.0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows Label Studio to where a bucket has a photo, without the key."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and origin_of(newurl) != origin_of(req.full_url):
            following.remove_header("Authorization")
        return following


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return (
        parts.scheme.lower(),
        (parts.hostname or "").lower(),
        port or {"http": 80, "https": 443}.get(parts.scheme.lower()),
    )


class LabelStudio:
    """One Label Studio, of which photos are fetched; of other hosts none are.

    Args:
        url: its address.
        key: an access token of it; None where it tells one by ``/setup``.
        most_bytes: of one photo.
    """

    def __init__(self, url: str, key: str | None, *, most_bytes: int) -> None:
        self.url, self._key = url.rstrip("/") + "/", key
        self._told: str | None = None
        self._most_bytes = most_bytes
        self._opener = urllib.request.build_opener(_Redirects)
        self._access: str | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, *, most_bytes: int) -> LabelStudio:
        """Return the one that LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY name."""
        url = os.environ.get("LABEL_STUDIO_URL", "http://localhost:8080")
        return cls(url, os.environ.get("LABEL_STUDIO_API_KEY") or None, most_bytes=most_bytes)

    def take_key(self, key: Any) -> None:
        """Take the token that a request brings. It is sent to Label Studio alone."""
        if isinstance(key, str) and 0 < len(key) < 2000 and key.isprintable():
            self._told = key

    def fetch(self, address: str, *, called: str) -> bytes:
        """Return the file of a photo.

        Args:
            address: as the task's data has it.
            called: how words call the photo.

        Raises:
            Refusal: 422, it is elsewhere, not there, not allowed, or too large.
        """
        if address.startswith("data:"):
            try:
                return base64.b64decode(address.partition(",")[2], validate=True)
            except (ValueError, binascii.Error):
                raise Refusal(422, f"{called}: its data: address is not base64.") from None
        url = urljoin(self.url, address)
        if origin_of(url) != origin_of(self.url):
            raise Refusal(
                422,
                f"{called}: is at {url[:200]}, and photos are fetched from Label Studio alone "
                f"({self.url}). Set LABEL_STUDIO_URL if that is not its address; let photos of a "
                "bucket come through its cloud storage, with pre-signed addresses off.",
            )
        return self._get(url, called)

    def export(self, project: int) -> list[dict[str, Any]]:
        """Return the labelled tasks of a project.

        Raises:
            Refusal: 422, Label Studio does not give them.
        """
        url = urljoin(self.url, f"api/projects/{project}/export?exportType=JSON")
        found = json.loads(self._get(url, f"project {project}", most_bytes=1 << 30))
        return [task for task in found if isinstance(task, dict)]

    def _get(self, url: str, called: str, *, most_bytes: int | None = None) -> bytes:
        most = most_bytes or self._most_bytes
        for again in (False, True):
            request = urllib.request.Request(url, headers=self._headers(renew=again))
            try:
                with self._opener.open(request, timeout=_SECONDS) as answer:
                    content: bytes = answer.read(most + 1)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 401 and not again:
                    continue
                raise self._failed(url, called, f"it answers {error.code}") from None
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise self._failed(url, called, str(reason)) from None
            if len(content) > most:
                raise Refusal(422, f"{called}: has more than {most / 1e6:g} MB.")
            return content
        raise AssertionError

    def _failed(self, url: str, called: str, reason: str) -> Refusal:
        return Refusal(
            422,
            f"{called}: Label Studio does not give {url[:200]}: {reason}. LABEL_STUDIO_URL must be "
            f"its address ({self.url}), and LABEL_STUDIO_API_KEY an access token of it.",
        )

    def _headers(self, *, renew: bool) -> dict[str, str]:
        key = self._key or self._told
        if key is None:
            return {}
        if key.count(".") != 2:
            return {"Authorization": f"Token {key}"}
        with self._lock:  # a personal access token is exchanged for one that lasts minutes
            if renew or self._access is None:
                self._access = self._refresh(key)
            return {"Authorization": f"Bearer {self._access}"} if self._access else {}

    def _refresh(self, key: str) -> str | None:
        request = urllib.request.Request(
            urljoin(self.url, "api/token/refresh"),
            data=json.dumps({"refresh": key}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                access = json.loads(answer.read(100_000)).get("access")
        except (OSError, HTTPException, ValueError, AttributeError):
            return None
        return access if isinstance(access, str) else None
