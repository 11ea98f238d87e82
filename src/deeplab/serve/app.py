"""The page and the APIs as one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import deeplab
from deeplab.errors import InputError
from deeplab.segmenter import Segmenter
from deeplab.serve import api_v1
from deeplab.serve.address import Address
from deeplab.serve.apis import APIS, Api
from deeplab.serve.browser_page import HEADERS
from deeplab.serve.description import ABOUT, describe_api
from deeplab.serve.docs_page import POLICY, write_docs_page
from deeplab.serve.door import Door, Rules
from deeplab.serve.edge import Edge
from deeplab.serve.limits import Limits
from deeplab.serve.metrics import Metrics
from deeplab.serve.rate import Rate
from deeplab.serve.refusal import Refusal, refuse
from deeplab.serve.service import Service
from deeplab.serve.site import Site


def build_app(
    segmenters: Mapping[str, Segmenter],
    *,
    limits: Limits | None = None,
    files: Mapping[str, Path] | None = None,
    rules: Rules | None = None,
    rate: Rate | None = None,
    apis: Collection[Api] = (),
    others: Callable[[], list[bytes]] = list,
) -> FastAPI:
    """Return the application, for ``uvicorn`` or to be mounted in another one.

    Its ``state.service`` is the :class:`~deeplab.serve.service.Service`.

    Args:
        segmenters: name → what runs it; the first is the default. Give each as many ``streams``
            as photos are worked on at the same time.
        limits: what is refused.
        files: name → file of the models that the page may offer; it runs ``.tflite`` alone, of
            networks for photos.
        rules: who may come in; None lets everybody in.
        rate: how often each client may ask for work.
        apis: of other programs, that are answered beside the server's own.
        others: returns what other processes of the same server have counted.

    Raises:
        InputError: there is no segmenter, or two files have the same name.
        ModelError: a ``.tflite`` file is none.
    """
    if not segmenters:
        raise InputError("model: got none, expected at least one.")
    rules = rules or Rules()
    photos = {name for name, one in segmenters.items() if one.spec.bands is None}
    site = Site(
        {name: path for name, path in (files or {}).items() if name in photos},
        {name: one.labels for name, one in segmenters.items()},
    )
    service = Service(segmenters, limits or Limits(), Metrics(segmenters))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.workers.close()
        for close in service.closing:
            close()

    app = FastAPI(
        title="deeplab",
        version=deeplab.__version__,
        description=ABOUT,
        docs_url=None,  # FastAPI's pages load their scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    description = describe_api(service, rules, apis)
    app.openapi = lambda: description  # type: ignore[method-assign]
    app.router.routes += api_v1.routes(service, others=others)
    for name in apis:
        app.router.routes += APIS[name].routes(service)
    docs = write_docs_page(description)

    async def show_docs(_: Request) -> Response:
        return HTMLResponse(docs, headers={"Content-Security-Policy": POLICY})

    app.router.routes.append(Address("/docs", show_docs, methods=["GET"]))
    app.router.default = site  # for what is none of these
    # The last one added is the outermost.
    app.add_middleware(Door, rules=rules, rate=rate)
    app.add_middleware(
        Edge, headers=HEADERS, metrics=service.metrics, closing=lambda: service.draining
    )
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http)
    return app


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refuse(error)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        404: "there is nothing here; /docs describes the API.",
        405: f"{request.method} does not work here; /docs describes the API.",
    }
    told = words.get(error.status_code, error.detail)
    return refuse(Refusal(error.status_code, told, headers=error.headers))
