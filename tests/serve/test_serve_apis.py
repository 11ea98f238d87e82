"""APIs of other programs, as their clients speak them."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Answer, Server, serving

from deeplab import Segmenter

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def speaking(model: Path, labels: Path) -> Iterator[Server]:
    options = ("--api", "kserve", "--api", "huggingface")
    with serving("-m", model, "--labels", labels, *options) as running:
        yield running


def detail(answer: Answer, status: int) -> str:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    return answer.json()["detail"]


# --- the Open Inference Protocol --------------------------------------------------------------


def infer(server: Server, asked: object, tail: bytes | None = None, model: str = "tiny") -> Answer:
    head = json.dumps(asked).encode()
    headers = {"Content-Type": "application/json"}
    if tail is not None:
        headers["Inference-Header-Content-Length"] = str(len(head))
    return server.ask("POST", f"/v2/models/{model}/infer", head + (tail or b""), headers)


def test_what_it_is_and_whether_it_is_ready(speaking: Server) -> None:
    assert speaking.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert speaking.get("/v2/health/live").json() == {"live": True}
    assert speaking.get("/v2/health/ready").json()["ready"] is True
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1"):
        found = speaking.get(path).json()
        assert (found["name"], found["versions"]) == ("tiny", ["1"])
        assert found["outputs"] == [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]
        assert speaking.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
    assert "Did you mean 'tiny'?" in detail(speaking.get("/v2/models/tyni"), 404)
    assert "version: there is no '2'" in detail(speaking.get("/v2/models/tiny/versions/2"), 404)


def test_pixels_and_files_as_json_and_as_bytes(
    speaking: Server, segmenter: Segmenter, photo: bytes
) -> None:
    image = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    mask = segmenter(photo).mask
    shape = [1, *image.shape]
    inputs = {"name": "image", "datatype": "UINT8", "shape": shape}
    answer = infer(speaking, {"id": "7", "inputs": [{**inputs, "data": image.tolist()}]}).json()
    assert (answer["id"], answer["model_name"]) == ("7", "tiny")
    (output,) = answer["outputs"]
    assert output["shape"] == [1, *mask.shape]
    assert (np.reshape(output["data"], mask.shape) == mask).all()

    size = {"parameters": {"binary_data_size": image.nbytes}}
    wanted = [{"name": "mask", "parameters": {"binary_data": True}}]
    asked = {"inputs": [{**inputs, **size}], "outputs": wanted}
    answer = infer(speaking, asked, image.tobytes())
    length = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == mask.size
    found = np.frombuffer(answer.body[length:], np.uint8)
    assert (found.reshape(mask.shape) == mask).all()

    elements = b"".join(struct.pack("<I", len(photo)) + photo for _ in range(2))
    file = {
        "name": "photo", "datatype": "BYTES", "shape": [2],
        "parameters": {"binary_data_size": len(elements)},
    }  # fmt: skip
    asked = {"inputs": [file], "parameters": {"only": "cat", "binary_data_output": True}}
    answer = infer(speaking, asked, elements)
    length = int(answer.headers["Inference-Header-Content-Length"])
    found = np.frombuffer(answer.body[length:], np.uint8).reshape(2, *mask.shape)
    assert (found == np.where(mask == 1, 1, 0)).all()
    text = {"name": "photo", "datatype": "BYTES", "shape": [1]}
    text["data"] = [base64.b64encode(photo).decode()]
    answer = infer(speaking, {"inputs": [text]}).json()
    assert (np.reshape(answer["outputs"][0]["data"], mask.shape) == mask).all()


FILE = {"name": "photo", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}
PIXEL = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ([], 400, "body: "),
        ({"inputs": []}, 400, "inputs: got 0 tensors"),
        ({"inputs": [FILE]}, 415, "photo 1: is not a picture"),
        ({"inputs": [{**FILE, "data": ["?"]}]}, 400, "no base64"),
        ({"inputs": [{**FILE, "shape": [2]}]}, 400, "got 1 files for shape [2]"),
        ({"inputs": [{**PIXEL, "datatype": "FP32"}]}, 400, "got 'image', FP32 of shape"),
        ({"inputs": [{**PIXEL, "data": [1, 2]}]}, 400, "got 2 values for shape [1, 1, 1, 3]"),
        ({"inputs": [{**PIXEL, "data": [1, 2, 256]}]}, 400, "no whole number to 255"),
        ({"inputs": [{**PIXEL, "data": [[1], [2, 3]]}]}, 400, "no whole number to 255"),
        ({"inputs": [PIXEL], "outputs": [{"name": "logits"}]}, 400, "there is only mask"),
        ({"inputs": [PIXEL], "parameters": {"priority": 1}}, 400, "'priority' is unknown"),
        ({"inputs": [PIXEL], "parameters": {"only": "cta"}}, 422, "Did you mean 'cat'?"),
        ({"inputs": [{**PIXEL, "data": None}]}, 400, "either data or binary_data_size"),
    ],
)
def test_inferences_that_are_refused(
    speaking: Server, asked: object, status: int, words: str
) -> None:
    answer = infer(speaking, asked)
    assert words in detail(answer, status)
    assert answer.json()["error"] == answer.json()["detail"]  # where the protocol has it


# --- Hugging Face -----------------------------------------------------------------------------


def test_base64_in_json(speaking: Server, segmenter: Segmenter, photo: bytes) -> None:
    result = segmenter(photo)
    kind = {"Content-Type": "application/json"}
    asked = json.dumps({"inputs": base64.b64encode(photo).decode()})
    for path in ("/", "/models/tiny"):
        found = speaking.ask("POST", path, asked, kind).json()
        assert [one["label"] for one in found] == [*result.shares]
        for one in found:
            mask = Image.open(io.BytesIO(base64.b64decode(one["mask"])))
            inside = result.mask == result.labels.names.index(one["label"])
            assert one["score"] == pytest.approx(result.confidence[inside].mean(), abs=1e-6)
            assert (np.asarray(mask) == inside * 255).all()
    assert speaking.ask("POST", "/", photo, {"Content-Type": "image/png"}).json() == found
    assert speaking.get("/").status == 200  # the page, still
    assert speaking.get("/models/tiny.tflite").status == 200
    assert speaking.ask("PUT", "/").status == 405
    for body, words in (
        ("{}", "inputs: Field required"),
        ('{"inputs": "?"}', "in base64"),
        ('{"inputs": "", "parameters": {"threshold": 0.5}}', "parameters.threshold"),
        ('{"inputs": "", "parameters": {"subtask": "panoptic"}}', "parameters.subtask"),
    ):
        assert words in detail(speaking.ask("POST", "/", body, kind), 400)
    none = json.dumps({"inputs": base64.b64encode(b"none").decode()})
    assert "is not a picture" in detail(speaking.ask("POST", "/", none, kind), 415)


def test_the_hubs_own_client_reads_it(
    speaking: Server, segmenter: Segmenter, photo: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    client = hub.InferenceClient(
        model=f"http://127.0.0.1:{speaking.port}/models/tiny", token="none-needed"
    )
    found = client.image_segmentation(photo)
    result = segmenter(photo)
    assert [one.label for one in found] == [*result.shares]
    for one in found:
        inside = result.mask == result.labels.names.index(one.label)
        assert (np.asarray(one.mask) == inside * 255).all()


def test_they_are_described_and_not_there_unasked(speaking: Server, server: Server) -> None:
    paths = speaking.get("/openapi.json").json()["paths"]
    for path in ("/v2/models/{model}/infer", "/", "/models/{model}"):
        assert "post" in paths[path]
    assert server.get("/v2/health/live").status == 404
    assert server.ask("POST", "/").status == 405
    assert "/v2" not in server.get("/openapi.json").json()["paths"]
