"""Label Studio's labelling configuration, and masks out as the results that it shows.

    <View>
      <Image name="image" value="$image"/>
      <BrushLabels name="tag" toName="image">
        <Label value="Cat"/>  <Label value="Telly" predicted_values="tv, tv/monitor"/>
      </BrushLabels>
    </View>

Source: labelstud.io, "Brush", "Polygon", "Import pre-annotations"; HumanSignal/label-studio-sdk,
label_studio_sdk/converter/brush.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from deeplab.data.export import BACKGROUND, is_background
from deeplab.data.run_lengths import encode_brush_mask
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.photo.outlines import find_objects
from deeplab.photo.polygons import TOLERANCE, make_polygons
from deeplab.photo.results import Segmentation

_CONTROLS: Mapping[str, Literal["brush", "polygon"]] = {
    "BrushLabels": "brush",
    "PolygonLabels": "polygon",
}
_MOST_LETTERS = 1_000_000
_MOST_CLASSES = 254


@dataclass(frozen=True)
class LabelConfig:
    """What a project's configuration says about the drawing of classes on a photo.

    Attributes:
        kind: with what objects are drawn.
        from_name: of the tag with the labels.
        to_name: of the tag with the photo.
        key: under which a task's data has the photo; None where the tag does not say.
        classes: the labels.
        aliases: what else a label is called, as ``predicted_values`` says → the label.
    """

    kind: Literal["brush", "polygon"]
    from_name: str
    to_name: str
    key: str | None
    classes: tuple[str, ...]
    aliases: Mapping[str, str]

    @property
    def labels(self) -> LabelSet:
        """The classes that a network of this project has: the background is the first."""
        named = [name for name in self.classes if not is_background(name)]
        return LabelSet((BACKGROUND, *named))

    @property
    def ids(self) -> dict[str, int]:
        """Label → class id of :attr:`labels`."""
        ids = {name: index for index, name in enumerate(self.labels.names)}
        return {name: 0 if is_background(name) else ids[name] for name in self.classes}

    def match(self, known: LabelSet) -> dict[int, str]:
        """Return class id of a model → label, for classes that have one by name or by alias."""
        found: dict[int, str] = {}
        for name, label in {**self.aliases, **{name: name for name in self.classes}}.items():
            try:
                index = known.index(name)
            except InputError:
                continue
            if index != known.background:
                found[index] = label
        return found


def read_config(text: str) -> LabelConfig:
    """Read a labelling configuration.

    Raises:
        InputError: it is no XML, or has no brush or polygon labels for a photo.
    """
    if len(text) > _MOST_LETTERS or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("label_config: is not a labelling configuration of Label Studio.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"label_config: is not XML ({error}).") from None
    photos = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    for control, kind in _CONTROLS.items():
        for tag in root.iter(control):
            if tag.get("toName") not in photos:
                continue
            value = photos[tag.get("toName")]
            classes = [name for one in tag.iter("Label") if (name := one.get("value", "").strip())]
            if not 1 <= len(classes) <= _MOST_CLASSES or len({*classes}) < len(classes):
                raise InputError(
                    f"label_config: <{control}> has the labels {classes[:9]}, expected 1 to "
                    f"{_MOST_CLASSES} different ones."
                )
            aliases = {
                alias.strip(): one.get("value", "").strip()
                for one in tag.iter("Label")
                for alias in one.get("predicted_values", "").split(",")
                if alias.strip()
            }
            return LabelConfig(
                kind=kind,
                from_name=tag.get("name", ""),
                to_name=tag.get("toName", ""),
                key=value[1:] if value.startswith("$") else None,
                classes=tuple(classes),
                aliases=aliases,
            )
    raise InputError(
        "label_config: has no <BrushLabels> or <PolygonLabels> for an <Image>, with which these "
        "predictions are drawn. Add one in the project's settings, Labeling Interface."
    )


def write_prediction(result: Segmentation, config: LabelConfig, *, version: str) -> dict[str, Any]:
    """Return a prediction: a brush mask for each class, or a polygon for each object.

    Each has the mean confidence of its pixels as its score, and the whole that of the photo; they
    are left out where the model does not say how sure it is.
    """
    matched = config.match(result.labels)
    height, width = result.mask.shape
    confidence = None if result.logits is None else result.confidence
    common = {
        "from_name": config.from_name,
        "to_name": config.to_name,
        "type": f"{config.kind}labels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }
    results: list[dict[str, Any]] = []

    def add(value: dict[str, Any], label: str, where: npt.NDArray[np.bool_]) -> None:
        digest = hashlib.sha256(f"{version} {result.name} {len(results)} {label}".encode())
        made = {"id": digest.hexdigest()[:10], **common}
        made["value"] = {**value, f"{config.kind}labels": [label]}
        if confidence is not None:
            made["score"] = _mean(confidence[where])
        results.append(made)

    if config.kind == "brush":
        for index, label in matched.items():
            where = result.mask == index
            if where.any():
                add({"format": "rle", "rle": encode_brush_mask(where)}, label, where)
    else:
        for one in find_objects(result.mask, labels=result.labels, outlines=True, pixels=True):
            if one.class_id not in matched:
                continue
            x, y, wide, high = one.box
            where = np.zeros(result.mask.shape, bool)
            where[y : y + high, x : x + wide] = one.where
            for polygon in make_polygons(one.rings, tolerance=TOLERANCE):
                points = [[100 * x / width, 100 * y / height] for x, y in polygon]
                add({"points": points, "closed": True}, matched[one.class_id], where)
    prediction: dict[str, Any] = {"result": results, "model_version": version}
    if confidence is not None:
        prediction["score"] = _mean(confidence)
    return prediction


def _mean(values: npt.NDArray[np.float32]) -> float:
    return float(np.mean(values, dtype=np.float64))
