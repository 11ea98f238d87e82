"""What the answers look like, for ``openapi.json``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from deeplab.serve.refusal import PROBLEM_TYPE


class Problem(BaseModel):
    """Why a request is refused, RFC 9457."""

    title: str
    status: int
    detail: str
    error: str


class Runs(BaseModel):
    """Pixels as run lengths, column by column, beginning with those outside, as COCO has them."""

    size: tuple[int, int] = Field(description="Height and width.")
    counts: list[int]


class FoundClass(BaseModel):
    """One class that is present."""

    id: int
    name: str
    colour: tuple[int, int, int] = Field(description="Red, green and blue, to 255.")
    share: float = Field(description="Of the photo, to 1.")
    threshold: float | None = Field(
        None, description="Where classes overlap: how probable it had to be."
    )
    segmentation: Runs


class Timings(BaseModel):
    """Milliseconds by stage."""

    decode: float
    network: float
    mask: float


class FoundInPhoto(BaseModel):
    """The classes that are present."""

    height: int
    width: int
    classes: list[FoundClass]
    timings_ms: Timings


class Found(FoundInPhoto):
    """The answer for output=json."""

    model: str


class Box(BaseModel):
    """One object: a connected region of one class."""

    id: int = Field(description="Of the class.")
    name: str
    colour: tuple[int, int, int]
    area: int = Field(description="In pixels.")
    box: tuple[int, int, int, int] = Field(description="x, y, width and height in pixels.")


class Outline(Box):
    """An object with its outlines."""

    polygons: list[list[tuple[int, int]]] = Field(
        description="Rings of corners (x, y) along the sides of pixels. A pixel is inside where an "
        "odd number of rings goes around it, so a ring in another one is a hole."
    )


class BoxesInPhoto(BaseModel):
    """The objects, the largest first."""

    height: int
    width: int
    objects: list[Box]
    timings_ms: Timings


class Boxes(BoxesInPhoto):
    """The answer for output=boxes."""

    model: str


class PolygonsInPhoto(BaseModel):
    """The objects with their outlines, the largest first."""

    height: int
    width: int
    objects: list[Outline]
    timings_ms: Timings


class Polygons(PolygonsInPhoto):
    """The answer for output=polygons."""

    model: str


class _Named(BaseModel):
    photo: str | None = Field(description="As its sender calls it; null where nobody said.")


class NamedFound(_Named, FoundInPhoto):
    """One photo of several."""


class NamedBoxes(_Named, BoxesInPhoto):
    """One photo of several."""


class NamedPolygons(_Named, PolygonsInPhoto):
    """One photo of several."""


class Several(BaseModel):
    """The answer for several photos, in the order in which they came."""

    model: str
    photos: list[NamedFound] | list[NamedBoxes] | list[NamedPolygons]


class PhotoProblem(BaseModel):
    """Why a photo is refused, RFC 9457."""

    title: str
    status: int = Field(description="The one that the photo alone would have got.")
    detail: str


class NamedRefused(_Named):
    """One photo of several that cannot be read."""

    error: PhotoProblem


class Partly(BaseModel):
    """The answer for several photos of which some cannot be read, in the order they came in."""

    model: str
    photos: (
        list[NamedFound | NamedRefused]
        | list[NamedBoxes | NamedRefused]
        | list[NamedPolygons | NamedRefused]
    )


class Labels(BaseModel):
    """The classes by id."""

    names: list[str]
    colours: list[tuple[int, int, int]]
    background: int | None
    ignore_index: int | None
    overlap: bool = Field(False, description="A pixel may be of several classes, or of none.")


class ServedModel(BaseModel):
    """One model."""

    name: str
    height: int = Field(description="Of the network's frame.")
    width: int
    fit: str
    labels: Labels
    channels: int = Field(description="Of the pictures: 3 for photos.")
    numbers: str = Field(description="Of the pictures: uint8, uint16 or float32.")
    thresholds: list[float] | None = Field(
        description="Where classes overlap: how probable each must be."
    )


class ServedModels(BaseModel):
    """The models, the default first."""

    models: list[ServedModel]


class Health(BaseModel):
    """The server is up."""

    status: str
    version: str


class Status(BaseModel):
    """It is so."""

    status: str


def refusals(**words: str) -> dict[str, dict[str, Any]]:
    """Return responses by status from ``_404="There is no such model."``."""
    return {
        status.lstrip("_"): {
            "description": text,
            "content": {PROBLEM_TYPE: {"schema": Problem}},
        }
        for status, text in words.items()
    }


def answer_of(summary: str, schema: Any, **more: Any) -> dict[str, Any]:
    """Return an operation that answers with JSON, and ``more`` responses."""
    content = {"application/json": {"schema": schema}}
    found = {"description": summary, "content": content}
    return {"summary": summary, "responses": {"200": found, **more}}


def resolve(node: Any, components: dict[str, Any]) -> Any:
    """Return a description in which references stand for types; what they mean is collected."""
    if isinstance(node, dict):
        return {str(key): resolve(value, components) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [resolve(value, components) for value in node]
    if isinstance(node, (str, int, float, bool)) or node is None:
        return node
    schema = TypeAdapter(node).json_schema(
        ref_template="#/components/schemas/{model}", mode="serialization"
    )
    components.update(schema.pop("$defs", {}))
    if isinstance(node, type) and issubclass(node, BaseModel) and not hasattr(node, "__origin__"):
        components[node.__name__] = schema
        return {"$ref": f"#/components/schemas/{node.__name__}"}
    return schema
