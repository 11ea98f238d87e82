"""Label Studio's machine learning backend: predictions for its tasks, learning from corrections.

Source: labelstud.io, "Integrate Label Studio into your machine learning pipeline";
HumanSignal/label-studio-ml-backend, label_studio_ml/api.py; HumanSignal/label-studio,
label_studio/ml/api_connector.py, for what is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from deeplab.data.label_studio_writer import LabelConfig, read_config, write_prediction
from deeplab.errors import InputError
from deeplab.photo.images import Photo
from deeplab.runtimes.network_card import refuse_bands
from deeplab.serve.address import Address
from deeplab.serve.api_v1 import json_answer
from deeplab.serve.edge import note
from deeplab.serve.label_studio_photos import LabelStudio
from deeplab.serve.label_studio_projects import Project, Projects, find_photo
from deeplab.serve.refusal import Refusal, refusing
from deeplab.serve.schemas import refusals
from deeplab.serve.service import Service
from deeplab.serve.work import Job

_LEARNS_FROM = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED")
_MOST_TASKS = 1000


class PredictRequest(BaseModel):
    """Tasks to predict."""

    model_config = ConfigDict(extra="allow")
    tasks: list[dict[str, Any]] = Field(max_length=_MOST_TASKS)
    label_config: str | None = None
    project: str | int | None = None


class SetupRequest(BaseModel):
    """A project that begins to use the backend."""

    model_config = ConfigDict(extra="allow")
    project: str | int | None = None
    schema_: str = Field("", alias="schema")
    access_token: str | None = None


class Webhook(BaseModel):
    """Something happened in a project."""

    model_config = ConfigDict(extra="allow")
    action: str
    project: dict[str, Any] | None = None
    annotation: dict[str, Any] | list[dict[str, Any]] | None = None
    task: dict[str, Any] | list[dict[str, Any]] | None = None


class TrainRequest(BaseModel):
    """Labelled tasks, as versions before 1.4.1 send them."""

    model_config = ConfigDict(extra="allow")
    annotations: list[dict[str, Any]]
    label_config: str
    project: str | int | None = None


class Prediction(BaseModel):
    """What is seen in one task's photo."""

    result: list[dict[str, Any]]
    score: float | None = None
    model_version: str


class Predictions(BaseModel):
    """Of all tasks, in their order."""

    results: list[Prediction]
    model_version: str


class SetUp(BaseModel):
    """Which network predicts."""

    model_version: str


class Up(BaseModel):
    """The backend lives; what it has learnt of each project, in words."""

    status: str
    model_class: str
    learnt: dict[str, str]


class Begun(BaseModel):
    """Learning has begun, where a job is named."""

    job: str | None = None
    model_version: str | None = None


def routes(service: Service) -> list[BaseRoute]:
    """Return the addresses."""
    api = _Api(service)
    return [
        Address("/health", api.health, methods=["GET"]),
        Address("/setup", api.setup, methods=["POST"]),
        Address("/predict", api.predict, methods=["POST"]),
        Address("/webhook", api.webhook, methods=["POST"]),
        Address("/train", api.train, methods=["POST"]),
    ]


def describe(service: Service) -> dict[str, Any]:
    """Return the part of ``openapi.json``."""
    refused = refusals(
        _400="The request is not what Label Studio sends.",
        _408="The request did not arrive in time.",
        _413="It has too many bytes.",
        _415="It is compressed.",
        _422="The labelling configuration has no brush or polygon labels, or a photo is elsewhere "
        "than in Label Studio, not there or damaged.",
        _503="Too much to do; the Retry-After header says when to try again.",
    )

    def operation(summary: str, asked: Any, given: Any, status: str = "200") -> dict[str, Any]:
        return {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
            "responses": {
                status: {
                    "description": "Done.",
                    "content": {"application/json": {"schema": given}},
                },
                **refused,
            },
        }

    return {
        "/health": {
            "get": {
                "summary": "Whether Label Studio's backend lives",
                "responses": {
                    "200": {
                        "description": "It does.",
                        "content": {"application/json": {"schema": Up}},
                    }
                },
            }
        },
        "/setup": {"post": operation("Take on a project of Label Studio", SetupRequest, SetUp)},
        "/predict": {"post": operation("Predict tasks", PredictRequest, Predictions)},
        "/webhook": {"post": operation("Learn from a correction", Webhook, Begun, "201")},
        "/train": {"post": operation("Learn from labelled tasks", TrainRequest, Begun, "201")},
    }


class _Api:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._studio = LabelStudio.from_environment(most_bytes=service.limits.max_bytes)
        name, segmenter = service.find(None)
        if segmenter.labels.overlap:
            raise InputError(
                f"api: label-studio takes models with one class per pixel, but the classes of "
                f"'{name}' overlap; name another model first, or leave label-studio out."
            )
        refuse_bands(segmenter.card, f"--api label-studio: {name}")
        self._name = name
        self._projects = Projects(name, segmenter, self._studio)
        service.closing.append(self._projects.close)

    async def health(self, _: Request) -> Response:
        up = Up(status="UP", model_class=f"deeplab {self._name}", learnt=self._projects.say())
        return json_answer(up.model_dump())

    async def setup(self, request: Request) -> Response:
        asked = await self._read(request, SetupRequest)
        self._studio.take_key(asked.access_token)
        project = self._project(asked.project, asked.schema_)
        return json_answer(SetUp(model_version=project.version).model_dump())

    async def predict(self, request: Request) -> Response:
        asked = await self._read(request, PredictRequest)
        project = self._project(asked.project, asked.label_config)
        note(request.scope, model=self._name, photos=len(asked.tasks))
        version = project.version
        results = [
            await self._service.workers.run(
                lambda job, task=task: self._predict(job, task, project),  # type: ignore[misc]
                gone=lambda: _gone(request),
                after=lambda: None,
            )
            for task in asked.tasks
        ]
        return json_answer({"results": results, "model_version": version})

    def _predict(self, job: Job, task: Mapping[str, Any], project: Project) -> dict[str, Any]:
        called = f"task {task.get('id')}"
        address = find_photo(task, project.config)
        content = self._studio.fetch(address, called=called)
        limits, segmenter = self._service.limits, project.segmenter
        with refusing(called, max_pixels=limits.max_pixels):
            photo = Photo(content, max_pixels=limits.max_pixels, name=address[:500])
            room = 4 * photo.height * photo.width  # brush masks hold four numbers a pixel
            with job.holding(min(room, limits.max_pixels_at_work)):
                seen = segmenter(photo)
                return write_prediction(seen, project.config, version=project.version)

    async def webhook(self, request: Request) -> Response:
        asked = await self._read(request, Webhook)
        about = asked.project or {}
        key = str(about.get("id", ""))
        config = about.get("label_config")
        if asked.action == "PROJECT_DELETED" or not isinstance(config, str):
            self._projects.forget(key)
            return _created(Begun())
        project = self._project(key, config)
        if asked.action in _LEARNS_FROM:
            self._projects.take(key, _listed(asked.annotation), _listed(asked.task))
            self._projects.learn(key)
        elif asked.action == "TASKS_DELETED":
            self._projects.forget(key, [str(task.get("id")) for task in _listed(asked.task)])
            self._projects.learn(key)
        elif asked.action in ("START_TRAINING", "ANNOTATIONS_DELETED"):
            # What was deleted comes without its task, so all is asked for again.
            self._projects.learn(key, export=True)
        else:
            return _created(Begun(model_version=project.version))
        return _created(Begun(job=f"project-{key}", model_version=project.version))

    async def train(self, request: Request) -> Response:
        asked = await self._read(request, TrainRequest)
        key = _key(asked.project)
        project = self._project(key, asked.label_config)
        for task in asked.annotations:
            self._projects.take(key, _listed(task.get("annotations")), [task])
        self._projects.learn(key)
        return _created(Begun(job=f"project-{key}", model_version=project.version))

    def _project(self, key: str | int | None, text: str | None) -> Project:
        """Return a project by its id and configuration.

        Raises:
            Refusal: 422, there is no configuration, or nothing can be drawn with it.
        """
        config: LabelConfig | None = None
        if text:
            try:
                config = read_config(text)
            except InputError as error:
                raise Refusal(422, str(error)) from None
        project = self._projects.find(_key(key), config)
        if project is None:
            raise Refusal(422, "label_config: is missing; send the project's, or /setup first.")
        return project

    async def _read(self, request: Request, kind: type[Any]) -> Any:
        """Return the JSON of a request as one of the models above.

        Raises:
            Refusal: 400, it is another one.
        """
        upload = await self._service.uploads.read(request)
        try:
            return kind.model_validate(json.loads(upload.take()))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "body"
            raise Refusal(400, f"{where}: {fault['msg']}.") from None
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON.") from None
        finally:
            upload.release()


def _key(project: str | int | None) -> str:
    """Return a project's id of "12.1700000000", its id and when it was made."""
    return str(project if project is not None else "").partition(".")[0]


def _listed(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, dict)]


def _created(made: BaseModel) -> Response:
    answer = json_answer(made.model_dump())
    answer.status_code = 201
    return answer


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
