"""APIs of other programs that a server can speak beside its own: one file each.

Such a file has ``routes(service)``, the addresses, and ``describe(service)``, their part of
``openapi.json``: path → method → operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from starlette.routing import BaseRoute

from deeplab.serve import api_huggingface, api_kserve, api_label_studio
from deeplab.serve.service import Service

Api = Literal["kserve", "huggingface", "label-studio"]


class ApiModule(Protocol):
    """What the file of an API has."""

    def routes(self, service: Service) -> list[BaseRoute]:
        """Return its addresses."""

    def describe(self, service: Service) -> dict[str, Any]:
        """Return its part of ``openapi.json``: path → method → operation."""


APIS: Mapping[Api, ApiModule] = {
    "kserve": api_kserve,
    "huggingface": api_huggingface,
    "label-studio": api_label_studio,
}
