"""The server's own API: photos in, segmentations out; what is served; how it does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

import deeplab
from deeplab.serve.accept import choose_output, choose_output_of_several
from deeplab.serve.address import Address
from deeplab.serve.answers import Order, Part, join, make_part, make_refused
from deeplab.serve.body import FORM, Contents, NamedPhoto, Upload, read_content_type, read_contents
from deeplab.serve.metrics import MEDIA_TYPE
from deeplab.serve.refusal import Refusal
from deeplab.serve.service import Service
from deeplab.serve.wishes import PARAMETERS, Wishes, check_classes, read_wishes

_PICTURE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
"""For results; a browser puts a picture that is opened alone into a page with its own style."""


def routes(service: Service, *, others: Callable[[], list[bytes]]) -> list[BaseRoute]:
    """Return the addresses of the API.

    Args:
        service: what works.
        others: returns what the other processes of the server have counted.
    """
    api = _Api(service, others)
    return [
        Address("/v1/segment", api.segment, methods=["POST"]),
        Address("/v1/models", api.models, methods=["GET"]),
        Address("/healthz", api.health, methods=["GET"]),
        Address("/livez", api.live, methods=["GET"]),
        Address("/readyz", api.ready, methods=["GET"]),
        Address("/metrics", api.count, methods=["GET"]),
    ]


class _Api:
    """What the addresses do."""

    def __init__(self, service: Service, others: Callable[[], list[bytes]]) -> None:
        self._service, self._others = service, others

    async def segment(self, request: Request) -> Response:
        """Segment the photos of a request."""
        service, limits = self._service, self._service.limits
        accept = request.headers.get("accept", "")
        content_type, boundary = read_content_type(request)
        # Everything that is wrong with the address is told before a byte is uploaded.
        pairs = QueryParams(request.scope["query_string"]).multi_items()
        self._check(read_wishes(pairs), accept, is_form=content_type == FORM)
        service.workers.check()
        upload = await service.uploads.read(request)
        try:
            contents = await asyncio.to_thread(
                read_contents,
                upload.take(),
                boundary if content_type == FORM else None,
                parameters=PARAMETERS,
                max_photos=limits.max_photos,
            )
            wishes = read_wishes([*pairs, *contents.fields])
            order = await self._order(wishes, contents, accept)
            spec = service.segmenters[order.model].spec
            await service.check_any(contents.photos, spec=spec)
        except BaseException:
            upload.release()
            raise
        return await self._make(request, upload, contents.photos, order)

    def _check(self, wishes: Wishes, accept: str, *, is_form: bool) -> None:
        if wishes.model is None and is_form:
            return
        labels = self._service.find(wishes.model)[1].labels
        check_classes(wishes.only, labels)
        if not is_form:
            choose_output(wishes.output, accept, overlap=labels.overlap)

    async def _order(self, wishes: Wishes, contents: Contents, accept: str) -> Order:
        name, segmenter = self._service.find(wishes.model)
        check_classes(wishes.only, segmenter.labels)
        several = len(contents.photos) > 1
        choose = choose_output_of_several if several else choose_output
        output, media_type = choose(wishes.output, accept, overlap=segmenter.labels.overlap)
        pixels = 0
        if contents.background is not None:
            if output != "replace" or wishes.background is not None:
                words = "only output=replace reads it" if output != "replace" else "got it twice"
                raise Refusal(422, f"background: {words}. Leave it out.")
            (pixels,) = await self._service.check(
                [NamedPhoto(contents.background, None, "background")]
            )
        return Order(
            model=name,
            output=output,
            media_type=media_type,
            accept=accept,
            wishes=wishes,
            background=contents.background,
            background_pixels=pixels,
        )

    async def _make(
        self, request: Request, upload: Upload, photos: list[NamedPhoto], order: Order
    ) -> Response:
        def make(result: Any, photo: NamedPhoto) -> Part:
            return make_part(result, photo.name, order)

        def refused(refusal: Refusal, photo: NamedPhoto) -> Part:
            return make_refused(refusal, photo.name, order)

        parts, timings_ms = await self._service.segment(
            request,
            upload,
            photos,
            model=order.model,
            make=make,
            room_for=order.room_for,
            refused=refused if len(photos) > 1 else None,
        )
        made = join(parts, model=order.model, several=len(photos) > 1)
        timings = (f"{stage};dur={ms:.1f}" for stage, ms in timings_ms.items())
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _PICTURE_POLICY,
            "Server-Timing": ", ".join(timings),
        }
        return Response(made.content, made.status, headers, made.media_type)

    async def models(self, _: Request) -> Response:
        """List the models."""
        found = [
            {
                "name": name,
                "height": segmenter.spec.height,
                "width": segmenter.spec.width,
                "fit": segmenter.spec.fit,
                "labels": segmenter.labels.to_dict(),
                "thresholds": list(segmenter.card.thresholds) or None,
                "channels": segmenter.spec.channels,
                "numbers": segmenter.spec.bands.kind if segmenter.spec.bands else "uint8",
            }
            for name, segmenter in self._service.segmenters.items()
        ]
        return json_answer({"models": found})

    async def health(self, _: Request) -> Response:
        """Say that the server is up."""
        return json_answer({"status": "ok", "version": deeplab.__version__})

    async def live(self, _: Request) -> Response:
        """Say that the process answers."""
        return json_answer({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Say whether to send more requests here."""
        if self._service.draining:
            raise Refusal(503, "the server is about to end; ask another.", retry_seconds=1)
        return json_answer({"status": "ok"})

    async def count(self, _: Request) -> Response:
        """Count, for Prometheus."""
        text = self._service.metrics.to_text(self._service.gauges(), self._others())
        return Response(text, media_type=MEDIA_TYPE)


def json_answer(content: Any) -> Response:
    """Return an answer that is not to be kept."""
    text = json.dumps(content, ensure_ascii=False)
    headers = {"Cache-Control": "no-store"}
    return Response(text.encode(), media_type="application/json", headers=headers)
