"""What ``openapi.json`` says beyond the parameters."""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response

from deeplab.serve.answers import MEDIA_TYPES
from deeplab.serve.refusal import PROBLEM_TYPE

ABOUT = """Semantic segmentation: a photo in, a mask of the photo's full size out.

Nothing is written to a disk, and no path or address in a request is ever opened."""

_PROBLEM = {"type": "object", "properties": {
    "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
}}  # fmt: skip

_FOUND_EXAMPLE = {
    "model": "voc",
    "height": 2,
    "width": 3,
    "classes": [
        {
            "id": 8,
            "name": "cat",
            "colour": [64, 0, 0],
            "share": 0.5,
            "segmentation": {"size": [2, 3], "counts": [2, 3, 1]},
        }
    ],
    "timings_ms": {"decode": 1.5, "network": 6.0, "mask": 0.7},
}

_PICTURES = sorted({kind for kinds in MEDIA_TYPES.values() for kind in kinds})


def _refusals(**words: str) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_TYPE: {"schema": _PROBLEM}}
    return {
        int(status.lstrip("_")): {"description": text, "content": content}
        for status, text in words.items()
    }


SEGMENT: dict[str, Any] = {
    "summary": "Segment a photo",
    "description": """Segment a photo: the body of the request, or the one file in a form.

json: the classes that are there, with share and run lengths as COCO has them, column by column,
beginning with the pixels outside. mask: a palette PNG, pixel value = class id. overlay: the photo
in the classes' colours, JPEG or PNG. cutout: the objects on a transparent ground.""",
    "response_class": Response,
    "responses": {
        200: {
            "description": "What was asked for, at the photo's own size.",
            "content": {
                kind: {"example": _FOUND_EXAMPLE}
                if kind == "application/json"
                else {"schema": {"type": "string", "format": "binary"}}
                for kind in _PICTURES
            },
        },
        **_refusals(
            _404="There is no such model.",
            _406="The output does not come in a type that the Accept header takes.",
            _408="The photo did not arrive in time.",
            _413="The upload has too many bytes, or the photo too many pixels.",
            _415="It is no picture, or in an unknown format.",
            _422="The picture is damaged, or a parameter is wrong.",
            _503="Too much to do; the Retry-After header says when to try again.",
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                **{
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in ("image/*", "application/octet-stream")
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"photo": {"type": "string", "format": "binary"}},
                        "required": ["photo"],
                    }
                },
            },
        }
    },
}

MODELS: dict[str, Any] = {
    "summary": "List the models",
    "description": "The models that are served, the default first: the network's frame, and the "
    "names and colours of its classes by id.",
    "response_class": Response,
    "responses": {
        200: {
            "description": "The models.",
            "content": {
                "application/json": {
                    "example": {
                        "models": [
                            {
                                "name": "voc",
                                "height": 609,
                                "width": 609,
                                "fit": "letterbox",
                                "labels": {
                                    "names": ["background", "aeroplane"],
                                    "colours": [[0, 0, 0], [128, 0, 0]],
                                    "background": 0,
                                    "ignore_index": 255,
                                },
                            }
                        ]
                    }
                }
            },
        }
    },
}

HEALTH: dict[str, Any] = {
    "summary": "Tell whether the server is up",
    "response_class": Response,
    "responses": {200: {"description": "It is.", "content": {"application/json": {}}}},
}

METRICS: dict[str, Any] = {
    "summary": "Count, for Prometheus",
    "response_class": Response,
    "responses": {200: {"description": "Its text format.", "content": {"text/plain": {}}}},
}
