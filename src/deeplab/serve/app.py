"""The page and the API as one ASGI application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import deeplab
from deeplab.errors import InputError, near_matches
from deeplab.segmenter import Segmenter
from deeplab.serve.answers import Answer, Output, choose_output, make_answer
from deeplab.serve.body import Uploads
from deeplab.serve.browser_page import HEADERS
from deeplab.serve.description import ABOUT, HEALTH, METRICS, MODELS, SEGMENT
from deeplab.serve.docs_page import POLICY, write_docs_page
from deeplab.serve.edge import Edge
from deeplab.serve.limits import Limits
from deeplab.serve.metrics import MEDIA_TYPE, Metrics
from deeplab.serve.refusal import PROBLEM_TYPE, Refusal, problem
from deeplab.serve.site import Site
from deeplab.serve.work import Job, Workers

_PICTURE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
"""For results; a browser puts a picture that is opened alone into a page with its own style."""


def build_app(
    segmenters: Mapping[str, Segmenter],
    *,
    limits: Limits | None = None,
    files: Mapping[str, Path] | None = None,
) -> FastAPI:
    """Return the application, for ``uvicorn`` or to be mounted in another one.

    Args:
        segmenters: name → what runs it; the first is the default. Give each as many ``streams``
            as photos are worked on at the same time.
        limits: what is refused.
        files: name → file of the models that the page may offer; it runs ``.tflite`` alone.

    Raises:
        InputError: there is no segmenter, or two files have the same name.
        ModelError: a ``.tflite`` file is none.
    """
    if not segmenters:
        raise InputError("model: got none, expected at least one.")
    site = Site(files or {}, {name: one.labels for name, one in segmenters.items()})
    api = _Api(segmenters, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        api.workers.close()

    app = FastAPI(
        title="deeplab",
        version=deeplab.__version__,
        description=ABOUT,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_api_route("/v1/segment", api.segment, methods=["POST"], **SEGMENT)
    app.add_api_route("/v1/models", api.models, methods=["GET"], **MODELS)
    app.add_api_route("/healthz", api.health, methods=["GET"], **HEALTH)
    app.add_api_route("/metrics", api.count, methods=["GET"], **METRICS)

    docs = write_docs_page(app.openapi())

    async def show_docs() -> Response:
        return HTMLResponse(docs, headers={"Content-Security-Policy": POLICY})

    app.add_api_route("/docs", show_docs, methods=["GET"], include_in_schema=False)
    app.router.default = site  # for what is none of these
    app.add_middleware(Edge, headers=HEADERS, metrics=api.metrics)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_fault)
    return app


class _Wishes(BaseModel):
    """What a request for a segmentation may ask for, in its address."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="A name from /v1/models; else the first there.")
    output: Output | None = Field(
        None, description="What to make; else what the Accept header takes, json first."
    )
    only: str | None = Field(
        None, description="Classes to keep, commas between them; all else becomes background."
    )


class _Api:
    """What the addresses of the API do."""

    def __init__(self, segmenters: Mapping[str, Segmenter], limits: Limits) -> None:
        self._segmenters, self._limits = segmenters, limits
        self.workers, self.uploads, self.metrics = Workers(limits), Uploads(limits), Metrics()

    async def segment(self, wishes: Annotated[_Wishes, Query()], request: Request) -> Response:
        name = wishes.model or next(iter(self._segmenters))
        if name not in self._segmenters:
            raise Refusal(
                404,
                f"model: there is no '{name}' here.{near_matches(name, self._segmenters)} "
                f"There is: {', '.join(self._segmenters)}.",
            )
        accept = request.headers.get("accept", "")
        output, media_type = choose_output(wishes.output, accept)
        self.workers.check()
        upload = await self.uploads.read(request)

        def work(job: Job) -> Answer:
            return make_answer(
                upload.photo(),
                self._segmenters[name],
                model=name,
                output=output,
                media_type=media_type,
                accept=accept,
                only=[part.strip() for part in (wishes.only or "").split(",") if part.strip()],
                limits=self._limits,
                job=job,
            )

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        made = await self.workers.run(work, gone=gone, after=upload.release)
        self.metrics.count_photo(name, made.timings_ms)
        timings = (f"{stage};dur={ms:.1f}" for stage, ms in made.timings_ms.items())
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _PICTURE_POLICY,
            "Server-Timing": ", ".join(timings),
        }
        return Response(made.content, media_type=made.media_type, headers=headers)

    async def models(self) -> Response:
        found = [
            {
                "name": name,
                "height": segmenter.spec.height,
                "width": segmenter.spec.width,
                "fit": segmenter.spec.fit,
                "labels": segmenter.labels.to_dict(),
            }
            for name, segmenter in self._segmenters.items()
        ]
        return _json({"models": found})

    async def health(self) -> Response:
        return _json({"status": "ok", "version": deeplab.__version__})

    async def count(self) -> Response:
        gauges = {
            "deeplab_photos_pending": ("Waiting or at work.", float(self.workers.pending)),
            "deeplab_uploads_held_bytes": ("Of photos in memory.", float(self.uploads.held)),
        }
        return Response(self.metrics.to_text(gauges), media_type=MEDIA_TYPE)


def _json(content: Any) -> Response:
    text = json.dumps(content, ensure_ascii=False)
    headers = {"Cache-Control": "no-store"}
    return Response(text.encode(), media_type="application/json", headers=headers)


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _problem(error.status, error.words, error.headers)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        404: "there is nothing here; /docs describes the API.",
        405: f"{request.method} does not work here; /docs describes the API.",
    }
    return _problem(error.status_code, words.get(error.status_code, error.detail), error.headers)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    words = []
    for fault in error.errors():
        name = fault["loc"][-1]
        if fault["type"] == "extra_forbidden":
            known = list(_Wishes.model_fields)
            words.append(
                f"there is no parameter '{name}'.{near_matches(name, known)} "
                f"Expected: {', '.join(known)}."
            )
        else:
            expected = fault.get("ctx", {}).get("expected", fault["msg"])
            words.append(f"{name}: got '{fault['input']}', expected {expected}.")
    return _problem(422, " ".join(words))


async def _answer_fault(_: Request, error: Exception) -> Response:
    return _problem(500, "something went wrong here; the server's log says more.")


def _problem(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(problem(status, words), status, headers=headers, media_type=PROBLEM_TYPE)
