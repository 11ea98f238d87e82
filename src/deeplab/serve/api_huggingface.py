"""Image segmentation as Hugging Face's inference endpoints take and give it: base64 in JSON.

Source: https://huggingface.co/docs/inference-providers/tasks/image-segmentation
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.photo.results import Segmentation
from deeplab.serve.address import SharedAddress
from deeplab.serve.api_v1 import json_answer
from deeplab.serve.body import NamedPhoto
from deeplab.serve.refusal import Refusal
from deeplab.serve.schemas import refusals
from deeplab.serve.service import Service


class Parameters(BaseModel):
    """How to segment. The thresholds of instance and panoptic segmentation mean nothing here."""

    model_config = ConfigDict(extra="forbid")
    subtask: Literal["semantic"] | None = None
    mask_threshold: None = None
    overlap_mask_area_threshold: None = None
    threshold: None = None


class HubRequest(BaseModel):
    """One photo."""

    model_config = ConfigDict(extra="forbid")
    inputs: str = Field(
        description="The file of the photo in base64.",
        json_schema_extra={"format": "photo-base64"},
    )
    parameters: Parameters | None = None


class HubSegment(BaseModel):
    """One class that is present."""

    label: str
    score: float | None = Field(
        None, description="The mean probability of its pixels; null where the model gives none."
    )
    mask: str = Field(description="A PNG in base64: 255 on the class, 0 elsewhere.")


def routes(service: Service) -> list[BaseRoute]:
    """Return the addresses: an endpoint has one model, at its root; further ones have names."""
    api = _Api(service)
    return [
        SharedAddress("/", api.segment, methods=["POST"]),
        SharedAddress("/models/{model}", api.segment, methods=["POST"]),
    ]


def describe(service: Service) -> dict[str, Any]:
    """Return the part of ``openapi.json``."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    operation = {
        "summary": "Segment as an inference endpoint of Hugging Face does",
        "description": "The photo itself, or in base64 as the inputs of a JSON document; a list of "
        "the classes that are there, each with its mask as a PNG in base64.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": HubRequest},
                **dict.fromkeys(("image/*", "application/octet-stream"), binary),
            },
        },
        "responses": {
            "200": {
                "description": "The classes that are there, the largest first.",
                "content": {"application/json": {"schema": list[HubSegment]}},
            },
            **refusals(
                _400="The request is not what such an endpoint takes.",
                _404="There is no such model.",
                _408="The photo did not arrive in time.",
                _413="The upload has too many bytes, or the photo too many pixels.",
                _415="It is no picture, or in an unknown format.",
                _422="The picture is damaged.",
                _503="Too much to do; the Retry-After header says when to try again.",
            ),
        },
    }
    name = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(service.segmenters)},
    }
    return {
        "/": {
            "get": {
                "summary": "Show the browser page",
                "responses": {
                    "200": {
                        "description": "The page.",
                        "content": {"text/html": {"schema": {"type": "string"}}},
                    }
                },
            },
            "post": operation,
        },
        "/models/{model}": {"post": {**operation, "parameters": [name]}},
    }


class _Api:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def segment(self, request: Request) -> Response:
        service = self._service
        model, segmenter = service.find(request.path_params.get("model"))
        service.workers.check()
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        upload = await service.uploads.read(request)
        try:
            data = upload.take()
            if content_type == "application/json":
                data = await asyncio.to_thread(_read_json, data)
            if not data:
                raise Refusal(422, "the photo is empty (0 bytes).")
            photos = [NamedPhoto(data)]
            await service.check(photos, spec=segmenter.spec)
        except BaseException:
            upload.release()
            raise

        def make(result: Segmentation, photo: NamedPhoto) -> list[dict[str, Any]]:
            return _write(result)

        (found,), _ = await service.segment(request, upload, photos, model=model, make=make)
        return json_answer(found)


def _read_json(body: bytes) -> bytes:
    try:
        asked = HubRequest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "body"
        raise Refusal(400, f"{where}: {fault['msg']}.") from None
    try:
        return base64.b64decode(asked.inputs, validate=True)
    except (ValueError, binascii.Error):
        raise Refusal(400, "inputs: expected the file of a photo in base64.") from None


def _write(result: Segmentation) -> list[dict[str, Any]]:
    found = []
    overlapping = isinstance(result, OverlappingSegmentation)
    confidence = None if result.logits is None or overlapping else result.confidence
    for name in result.shares:
        inside = (
            result.mask_of(name)
            if isinstance(result, OverlappingSegmentation)
            else result.mask == result.labels.names.index(name)
        )
        encoded = io.BytesIO()
        Image.fromarray(inside.astype(np.uint8) * 255).save(encoded, "PNG", compress_level=1)
        score = None if confidence is None else float(confidence[inside].mean())
        mask = base64.b64encode(encoded.getvalue()).decode()
        found.append(HubSegment(label=name, score=score, mask=mask).model_dump())
    return found
