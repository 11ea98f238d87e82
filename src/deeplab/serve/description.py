"""What ``openapi.json`` says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import deeplab
from deeplab.serve.accept import MEDIA_TYPES, TIFF, ZIP
from deeplab.serve.apis import APIS, Api
from deeplab.serve.door import Rules
from deeplab.serve.schemas import (
    Boxes,
    Found,
    Health,
    Partly,
    Polygons,
    ServedModels,
    Several,
    Status,
    answer_of,
    refusals,
    resolve,
)
from deeplab.serve.service import Service
from deeplab.serve.wishes import MOST_AREA, MOST_RADIUS, OUTPUTS

ABOUT = """Semantic segmentation: a photo in, a mask of the photo's full size out.

Nothing is written to a disk, and no path or address in a request is ever opened."""

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

_BINARY = {"schema": {"type": "string", "format": "binary"}}

_ABOUT_SEGMENT = """Segment photos: the body of the request, or the files in a form. What is asked \
for stands in the address or in fields of the form, each once.

json: the classes that are there, with share and run lengths as COCO has them, column by column, \
beginning with the pixels outside. mask: a palette PNG, pixel value = class id; where classes \
overlap, a TIFF with a page per class, 0 and 1. overlay: the photo \
in the classes' colours, JPEG or PNG. contour: the photo with their outlines. cutout: the objects \
on a transparent ground. blur: the photo with all but the objects out of focus. replace: the \
objects before a colour, or before the picture that is the form's background. confidence: how \
probable the class of each pixel is, grey, 255 is certain. boxes: the connected objects. polygons: \
those with their outlines.

Several photos in a form come back as one JSON document, or as a zip file with a picture each. \
Where some of them cannot be read the status is 207, and each has its own error, in its place in \
the document, or in refused.json in the zip file; where none can be read, the first one's error is \
the answer."""


def describe_api(service: Service, rules: Rules, apis: Collection[Api]) -> dict[str, Any]:
    """Return ``openapi.json`` for the models that are served and the rules that hold."""
    paths: dict[str, Any] = {
        "/v1/segment": {"post": _segment(service)},
        "/v1/models": {"get": answer_of("List the models", ServedModels)},
        "/healthz": {"get": answer_of("Tell whether the server is up", Health)},
        "/livez": {"get": answer_of("Tell whether the process answers", Status)},
        "/readyz": {
            "get": answer_of(
                "Tell whether to send requests here",
                Status,
                **refusals(_503="The server is about to end."),
            )
        },
        "/metrics": {
            "get": {
                "summary": "Count, for Prometheus",
                "responses": {
                    "200": {
                        "description": "Its text format.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                },
            }
        },
    }
    for name in apis:
        paths |= APIS[name].describe(service)
    for path, methods in paths.items():
        for method, operation in methods.items():
            operation["operationId"] = f"{method}_{path.strip('/').replace('/', '_') or 'root'}"
            operation["responses"] |= _common(path, method, rules)
    components: dict[str, Any] = {}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "deeplab", "version": deeplab.__version__, "description": ABOUT},
        "paths": resolve(paths, components),
    }
    described["components"] = {"schemas": dict(sorted(components.items()))}
    if rules.tokens:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
        for path in ("/healthz", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
            if path in paths:
                described["paths"][path]["get"]["security"] = []
    return described


def _common(path: str, method: str, rules: Rules) -> dict[str, Any]:
    """Return the refusals that have nothing to do with what is asked for."""
    found: dict[str, Any] = {}
    if rules.tokens:
        found |= refusals(_401="The request shows no token of this server.")
    if method == "post":
        found |= refusals(
            _403="A page of another site asks, which is not let in.",
            _429="The client asks too often; the Retry-After header says when to try again.",
        )
    if rules.hosts is not None:
        found |= refusals(_421="The server is called by a name that is not its own.")
    return found


def _segment(service: Service) -> dict[str, Any]:
    pictures = sorted(
        {kind for kinds in MEDIA_TYPES.values() for kind in kinds if "image" in kind} | {TIFF}
    )
    properties = {name: schema for name, _, schema in _parameters(service)}
    # In a form, an array would be several fields of one name.
    properties["only"] = properties["only"]["items"]
    photos = {"type": "array", "items": _BINARY["schema"], "minItems": 1,
              "maxItems": service.limits.max_photos}  # fmt: skip
    return {
        "summary": "Segment photos",
        "description": _ABOUT_SEGMENT,
        "parameters": [
            {
                "name": name,
                "in": "query",
                "description": what,
                "schema": schema,
                **({"style": "form", "explode": False} if schema["type"] == "array" else {}),
            }
            for name, what, schema in _parameters(service)
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"photo": photos, **properties},
                        "required": ["photo"],
                        "additionalProperties": False,
                    },
                    "encoding": {"photo": {"contentType": "image/*"}},
                },
            },
        },
        "responses": {
            "200": {
                "description": "What was asked for, at the photo's own size.",
                "content": {
                    "application/json": {
                        "schema": Found | Boxes | Polygons | Several,
                        "example": _FOUND_EXAMPLE,
                    },
                    **dict.fromkeys(pictures, _BINARY),
                    ZIP: _BINARY,
                },
            },
            "207": {
                "description": "What was asked for, and errors of photos that cannot be read.",
                "content": {"application/json": {"schema": Partly}, ZIP: _BINARY},
            },
            **refusals(
                _404="There is no such model.",
                _406="The output does not come in a type that the Accept header takes.",
                _408="The photo did not arrive in time.",
                _413="The upload has too many bytes, or a photo too many pixels.",
                _415="It is no picture, or in an unknown format.",
                _422="A picture is damaged, or a parameter is wrong.",
                _503="Too much to do; the Retry-After header says when to try again.",
            ),
        },
    }


def _parameters(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (name, what it is, schema)."""
    classes = dict.fromkeys(n for one in service.segmenters.values() for n in one.labels.names)
    return [
        ("model", "A name from /v1/models; else the first there.",
         {"type": "string", "enum": list(service.segmenters)}),
        ("output", "What to make; else what the Accept header takes, json first.",
         {"type": "string", "enum": list(OUTPUTS)}),
        ("only", "Classes to keep, commas between them; all else becomes background.",
         {"type": "array", "items": {"type": "string", "enum": list(classes)}, "minItems": 1}),
        ("background", "For replace: a colour such as #ff8800; white where nobody says.",
         {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"}),
        ("radius", "For blur: in pixels; 1/40 of the shorter side where nobody says.",
         {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_RADIUS}),
        ("min_area", "For boxes and polygons: smaller objects, in pixels, are left out.",
         {"type": "integer", "minimum": 0, "maximum": MOST_AREA}),
    ]  # fmt: skip
