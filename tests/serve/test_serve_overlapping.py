"""Networks whose classes overlap are served: the same masks as in Python, in every form."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Server, serving

from deeplab import Segmenter
from deeplab.errors import InputError
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.serve.app import build_app
from overlapping_tiny import NAMES, THRESHOLDS, write_overlapping

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overlapping(tmp_path_factory.mktemp("overlapping") / "several.tflite")


@pytest.fixture(scope="module")
def server(overlapping: Path) -> Iterator[Server]:
    with serving("-m", overlapping, "--api", "kserve", "--api", "huggingface") as running:
        yield running


def pages(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as file:
        planes = []
        for page in range(file.n_frames):
            file.seek(page)
            planes.append(np.array(file))
    return np.stack(planes).astype(bool)


def test_every_form_of_an_answer_has_the_masks_of_python(
    server: Server, overlapping: Path, photo: bytes
) -> None:
    result = Segmenter(overlapping)(photo)
    assert isinstance(result, OverlappingSegmentation)
    assert (result.masks.sum(0) > 1).any()
    (model,) = server.get("/v1/models").json()["models"]
    assert model["labels"]["overlap"]
    assert model["thresholds"] == list(THRESHOLDS)

    answer = server.post("/v1/segment?output=mask", photo)
    assert answer.headers["Content-Type"] == "image/tiff"
    assert (pages(answer.body) == result.masks).all()

    found = server.post("/v1/segment", photo).json()
    expected = result.to_dict()
    assert found["overlap"]
    assert found["classes"] == json.loads(json.dumps(expected["classes"]))

    boxes = server.post("/v1/segment?output=boxes", photo).json()["objects"]
    for name, share in result.shares.items():
        pixels = sum(one["area"] for one in boxes if one["name"] == name)
        assert pixels == round(share * result.mask.size)

    tensor = {"name": "photo", "datatype": "BYTES", "shape": [1]}
    asked = {"inputs": [{**tensor, "data": [base64.b64encode(photo).decode()]}]}
    (output,) = server.post("/v2/models/several/infer", json.dumps(asked)).json()["outputs"]
    assert output["name"] == "masks"
    assert (np.reshape(output["data"], output["shape"])[0] == result.masks).all()
    (described,) = server.get("/v2/models/several").json()["outputs"]
    assert described == {"name": "masks", "datatype": "UINT8", "shape": [-1, 4, -1, -1]}

    hub = server.ask("POST", "/", photo, {"Content-Type": "image/png"}).json()
    assert [one["label"] for one in hub] == list(result.shares)
    for one in hub:
        with Image.open(io.BytesIO(base64.b64decode(one["mask"]))) as mask:
            assert ((np.array(mask) > 0) == result.mask_of(one["label"])).all()


def test_pictures_and_what_is_kept(server: Server, overlapping: Path, photo: bytes) -> None:
    result = Segmenter(overlapping)(photo)
    for output in ("overlay", "contour", "cutout", "blur", "replace"):
        answer = server.post(f"/v1/segment?output={output}", photo)
        assert answer.status == 200, answer.body
        assert Image.open(io.BytesIO(answer.body)).size == (140, 90)
    kept = pages(server.post("/v1/segment?output=mask&only=cat,tree", photo).body)
    assert (kept[[1, 3]] == result.masks[[1, 3]]).all()
    assert not kept[[0, 2]].any()
    found = server.post("/v1/segment?only=dog", photo).json()
    assert [one["name"] for one in found["classes"]] == ["dog"]


def test_what_has_one_class_per_pixel_is_refused(
    server: Server, overlapping: Path, photo: bytes
) -> None:
    answer = server.post("/v1/segment?output=confidence", photo)
    assert answer.status == 422
    assert "the classes of this model overlap" in answer.json()["detail"]
    answer = server.post("/v1/segment?output=mask", photo, Accept="image/png")
    assert answer.status == 406
    assert "only image/tiff" in answer.json()["detail"]
    with pytest.raises(InputError, match="label-studio takes models with one class per pixel"):
        build_app({"several": Segmenter(overlapping)}, apis=["label-studio"])


def test_keeping_is_looking_for_fewer(overlapping: Path, photo: bytes) -> None:
    result = Segmenter(overlapping)(photo)
    assert isinstance(result, OverlappingSegmentation)
    kept = result.keep(["cat", "dog"])
    assert list(kept.shares) == [name for name in result.shares if name in ("cat", "dog")]
    assert ((kept.mask != 255) == kept.masks.any(0)).all()
    top = np.isin(result.mask, [NAMES.index("cat"), NAMES.index("dog")])
    assert (kept.mask == result.mask)[top].all()
