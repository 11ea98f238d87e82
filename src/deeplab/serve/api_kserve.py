"""The Open Inference Protocol, version 2, over HTTP, as KServe, Triton and others speak it.

Source: https://github.com/kserve/open-inference-protocol (REST), and Triton's extension for binary
tensors (``protocol/extension_binary_data.md`` of triton-inference-server/server).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

import deeplab
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.photo.results import Segmentation
from deeplab.segmenter import Segmenter
from deeplab.serve.address import Address
from deeplab.serve.answers import keep
from deeplab.serve.api_v1 import json_answer
from deeplab.serve.body import NamedPhoto
from deeplab.serve.refusal import Refusal
from deeplab.serve.schemas import answer_of, refusals
from deeplab.serve.service import Service
from deeplab.serve.wishes import check_classes

UInt8 = npt.NDArray[np.uint8]

_HEADER = "Inference-Header-Content-Length"
_VERSION = "1"


class Tensor(BaseModel):
    """A tensor's name, type and shape."""

    name: str
    datatype: str
    shape: list[int]


class TensorData(Tensor):
    """A tensor; without ``data``, its bytes follow the JSON."""

    model_config = ConfigDict(extra="forbid")
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    data: list[Any] | None = None


class WantedTensor(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid")
    name: str
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """One inference: ``photo`` (BYTES, files) or ``image`` (UINT8, pixels)."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = None
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    inputs: list[TensorData]
    outputs: list[WantedTensor] | None = None


class InferAnswer(BaseModel):
    """Its result."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[TensorData]


class ModelMetadata(BaseModel):
    """What a model takes and gives; -1 is any number."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the server lives."""

    live: bool


class Ready(BaseModel):
    """Whether the server or a model is ready."""

    ready: bool
    name: str | None = None


_NUMBERS = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}
"""What NumPy and the protocol call the same numbers."""

_OUTPUTS = (Tensor(name="mask", datatype="UINT8", shape=[-1, -1, -1]),)


def _inputs(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return what goes in: pixels, or files."""
    kind = spec.bands.kind if spec.bands else "uint8"
    return (
        Tensor(name="image", datatype=_NUMBERS[kind], shape=[-1, -1, -1, spec.channels]),
        Tensor(name="photo", datatype="BYTES", shape=[-1]),
    )


def _outputs(labels: LabelSet) -> tuple[Tensor, ...]:
    """Return what comes out: of overlapping classes a mask each, 0 and 1."""
    if not labels.overlap:
        return _OUTPUTS
    return (Tensor(name="masks", datatype="UINT8", shape=[-1, len(labels), -1, -1]),)


def routes(service: Service) -> list[BaseRoute]:
    """Return the addresses."""
    api = _Api(service)
    found: list[BaseRoute] = [
        Address("/v2", api.server, methods=["GET"]),
        Address("/v2/health/live", api.live, methods=["GET"]),
        Address("/v2/health/ready", api.ready, methods=["GET"]),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Address(model, api.model, methods=["GET"]),
            Address(f"{model}/ready", api.model_ready, methods=["GET"]),
            Address(f"{model}/infer", api.infer, methods=["POST"]),
        ]
    return found


def describe(service: Service) -> dict[str, Any]:
    """Return the part of ``openapi.json``."""
    name = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": list(service.segmenters)},
    }
    unknown = refusals(_404="There is no such model.")
    infer = {
        "summary": "Segment by the Open Inference Protocol",
        "description": "One input: image, UINT8 of shape [n, height, width, 3], RGB; or photo, "
        "BYTES of shape [n], files (base64 in JSON), all of one size. One output: mask, UINT8 of "
        f"shape [n, height, width], class ids. Tensors are JSON, or bytes behind it ({_HEADER}).",
        "parameters": [name],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": InferRequest}},
        },
        "responses": {
            "200": {
                "description": "The mask.",
                "content": {
                    "application/json": {"schema": InferAnswer},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **refusals(
                _400="The request is not what the protocol asks for.",
                _404="There is no such model.",
                _408="It did not arrive in time.",
                _413="It has too many bytes, or a photo too many pixels.",
                _415="A photo is no picture.",
                _422="A photo is damaged, or a class unknown.",
                _503="Too much to do; the Retry-After header says when to try again.",
            ),
        },
    }
    return {
        "/v2": {"get": answer_of("Tell what the server is", ServerMetadata)},
        "/v2/health/live": {"get": answer_of("Tell whether the server lives", Live)},
        "/v2/health/ready": {
            "get": answer_of("Tell whether the server is ready", Ready,
                             **refusals(_503="It is about to end."))
        },
        "/v2/models/{model}": {
            "get": answer_of("Tell what a model takes and gives", ModelMetadata, **unknown)
            | {"parameters": [name]}
        },
        "/v2/models/{model}/ready": {
            "get": answer_of("Tell whether a model is ready", Ready, **unknown)
            | {"parameters": [name]}
        },
        "/v2/models/{model}/infer": {"post": infer},
    }  # fmt: skip


class _Api:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, _: Request) -> Response:
        return json_answer(
            ServerMetadata(
                name="deeplab", version=deeplab.__version__, extensions=["binary_tensor_data"]
            ).model_dump()
        )

    async def live(self, _: Request) -> Response:
        return json_answer({"live": True})

    async def ready(self, _: Request) -> Response:
        if self._service.draining:
            raise Refusal(503, "the server is about to end; ask another.", retry_seconds=1)
        return json_answer({"ready": True})

    async def model(self, request: Request) -> Response:
        name = self._find(request)
        segmenter = self._service.segmenters[name]
        found = ModelMetadata(
            name=name,
            versions=[_VERSION],
            platform="deeplab",
            inputs=list(_inputs(segmenter.spec)),
            outputs=list(_outputs(segmenter.labels)),
        )
        return json_answer(found.model_dump())

    async def model_ready(self, request: Request) -> Response:
        return json_answer({"name": self._find(request), "ready": not self._service.draining})

    def _find(self, request: Request) -> str:
        version = request.path_params.get("version", _VERSION)
        if version != _VERSION:
            raise Refusal(404, f"version: there is no '{version[:100]}', only {_VERSION}.")
        return self._service.find(request.path_params["model"])[0]

    async def infer(self, request: Request) -> Response:
        service = self._service
        model = self._find(request)
        service.workers.check()
        upload = await service.uploads.read(request)
        try:
            segmenter = service.segmenters[model]
            asked = await asyncio.to_thread(
                _read_request, upload.take(), request, service.limits.max_photos, segmenter
            )
            check_classes(asked.only, segmenter.labels)
            await service.check(asked.photos, spec=segmenter.spec)
        except BaseException:
            upload.release()
            raise

        def make(result: Segmentation, photo: NamedPhoto) -> UInt8:
            kept = keep(result, asked.only)
            if isinstance(kept, OverlappingSegmentation):
                return kept.masks.view(np.uint8)
            return kept.mask

        masks, _ = await service.segment(request, upload, asked.photos, model=model, make=make)
        return await asyncio.to_thread(_answer, masks, model, asked)


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        photos: to segment.
        only: classes to keep.
        binary: the mask comes as bytes behind the JSON.
        output: what the tensor with it is called.
    """

    id: str | None
    photos: list[NamedPhoto]
    only: tuple[str, ...]
    binary: bool
    output: str


def _read_request(body: bytes, request: Request, max_photos: int, segmenter: Segmenter) -> _Asked:
    ((output,), (image, _)) = _outputs(segmenter.labels), _inputs(segmenter.spec)
    length = request.headers.get(_HEADER)
    if length is not None and (not length.isdecimal() or int(length) > len(body)):
        raise Refusal(
            400, f"{_HEADER}: got '{length[:20]}', expected the bytes of JSON, {len(body)} at most."
        )
    head = body[: int(length)] if length is not None else body
    try:
        asked = InferRequest.model_validate_json(head)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "body"
        raise Refusal(400, f"{where}: {fault['msg']}.") from None
    if len(asked.inputs) != 1:
        raise Refusal(
            400, f"inputs: got {len(asked.inputs)} tensors, expected one, image or photo."
        )
    _check_known(asked.parameters, ("only", "binary_data_output"))
    binary = asked.parameters.get("binary_data_output") is True
    if asked.outputs is not None:
        wanted = [one.name for one in asked.outputs]
        if wanted != [output.name]:
            got = ", ".join(wanted)[:200]
            raise Refusal(400, f"outputs: got {got}, there is only {output.name}.")
        _check_known(asked.outputs[0].parameters, ("binary_data",))
        binary = asked.outputs[0].parameters.get("binary_data", binary) is True
    only = asked.parameters.get("only", "")
    if not isinstance(only, str):
        raise Refusal(400, f"only: got {only}, expected names of classes with commas between.")
    names = tuple(part.strip() for part in only.split(",") if part.strip())
    photos = _read_photos(asked.inputs[0], body[len(head) :], image)
    if not 1 <= len(photos) <= max_photos:
        raise Refusal(400, f"inputs: got {len(photos)} photos, expected 1 to {max_photos}.")
    return _Asked(asked.id, photos, names, binary, output.name)


def _check_known(parameters: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise Refusal(
            400, f"parameters: '{unknown[0][:100]}' is unknown here, expected {', '.join(known)}."
        )


def _read_photos(tensor: TensorData, tail: bytes, image: Tensor) -> list[NamedPhoto]:
    size = tensor.parameters.get("binary_data_size")
    _check_known(tensor.parameters, ("binary_data_size",))
    if (size is None) == (tensor.data is None):
        raise Refusal(400, f"{tensor.name}: expected either data or binary_data_size.")
    if size is not None and size != len(tail):
        raise Refusal(400, f"{tensor.name}: got {len(tail)} bytes behind the JSON, not {size}.")
    if tensor.name == "photo" and tensor.datatype == "BYTES" and len(tensor.shape) == 1:
        files = _split(tail) if tensor.data is None else [_decode(one) for one in tensor.data]
        if tensor.shape != [len(files)]:
            raise Refusal(400, f"photo: got {len(files)} files for shape {tensor.shape}.")
        return [NamedPhoto(file, None, f"photo {n}") for n, file in enumerate(files, 1)]
    shape = tensor.shape
    is_image = (tensor.name, tensor.datatype) == (image.name, image.datatype)
    if not is_image or len(shape) != 4 or shape[3] != image.shape[3]:
        raise Refusal(
            400,
            f"inputs: got '{tensor.name[:100]}', {tensor.datatype[:20]} of shape {shape[:9]}, "
            f"expected image, {image.datatype} of shape [n, height, width, {image.shape[3]}], or "
            "photo, BYTES of shape [n].",
        )
    pixels = _read_pixels(tensor, tail)
    return [NamedPhoto(one, None, f"image {number}") for number, one in enumerate(pixels, 1)]


def _read_pixels(tensor: TensorData, tail: bytes) -> npt.NDArray[Any]:
    dtype = np.dtype({theirs: ours for ours, theirs in _NUMBERS.items()}[tensor.datatype])
    if min(tensor.shape) < 1:
        raise Refusal(400, f"image: got shape {tensor.shape}, expected 1 or more of everything.")
    if tensor.data is None:
        if len(tail) % dtype.itemsize:
            raise Refusal(400, f"image: got {len(tail)} bytes, which are no whole {dtype} numbers.")
        values = np.frombuffer(tail, dtype.newbyteorder("<"))
    else:
        try:
            given = np.asarray(tensor.data)
        except ValueError:
            given = np.empty(0)
        _check_numbers(given, dtype)
        values = given.astype(dtype).ravel()
    count = 1
    for side in tensor.shape:
        count *= side
    if values.size != count:
        raise Refusal(400, f"image: got {values.size} values for shape {tensor.shape}.")
    return values.reshape(tensor.shape)


def _check_numbers(given: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    if dtype.kind == "f":
        if given.dtype.kind not in "iuf" or not given.size:
            raise Refusal(400, "image: data has something in it that is no number.")
        return
    most = np.iinfo(dtype).max
    is_whole = given.dtype.kind in "iu" and given.size > 0
    if not is_whole or given.min() < 0 or given.max() > most:
        raise Refusal(400, f"image: data has something in it that is no whole number to {most}.")


def _split(tail: bytes) -> list[bytes]:
    """Take apart elements that each have their length in front, four bytes little-endian."""
    found, at = [], 0
    while at < len(tail):
        if at + 4 > len(tail):
            break
        (length,) = struct.unpack_from("<I", tail, at)
        at += 4
        if at + length > len(tail):
            raise Refusal(400, "photo: an element is longer than what follows the JSON.")
        found.append(tail[at : at + length])
        at += length
    return found


def _decode(element: Any) -> bytes:
    try:
        return base64.b64decode(element, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refusal(400, "photo: data has something in it that is no base64.") from None


def _answer(masks: list[UInt8], model: str, asked: _Asked) -> Response:
    shapes = sorted({mask.shape for mask in masks})
    if len(shapes) > 1:
        raise Refusal(
            400, f"photo: got sizes {shapes}; one tensor holds one size. Send them one by one."
        )
    shape = [len(masks), *shapes[0]]
    tensor: dict[str, Any] = {"name": asked.output, "datatype": "UINT8", "shape": shape}
    content = {"model_name": model, "model_version": _VERSION, "outputs": [tensor]}
    if asked.id is not None:
        content["id"] = asked.id
    headers = {"Cache-Control": "no-store"}
    if not asked.binary:
        tensor["data"] = np.stack(masks).ravel().tolist()
        return Response(json.dumps(content), media_type="application/json", headers=headers)
    tail = b"".join(np.ascontiguousarray(mask).tobytes() for mask in masks)
    tensor["parameters"] = {"binary_data_size": len(tail)}
    head = json.dumps(content).encode()
    headers[_HEADER] = str(len(head))
    return Response(head + tail, media_type="application/octet-stream", headers=headers)
