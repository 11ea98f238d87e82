"""Networks for other pictures than photos are served: the same masks as in Python."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import Server, serving

from deeplab import Segmenter, cli
from deeplab.labels import LabelSet
from deeplab.photo.bands import Bands
from deeplab.photo.images import InputSpec

rasterio = pytest.importorskip("rasterio")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.integration

CHANNELS, SIZE = 5, (40, 61)
MEAN, STD = (1.0, 2.0, 3.0, 4.0, 5.0), (2.0,) * CHANNELS


@pytest.fixture(scope="module")
def pair(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release pair of a network for five channels of real numbers, as initialised."""
    from deeplab.models import DeepLabConfig, build
    from deeplab.weights import release

    path = tmp_path_factory.mktemp("fields") / "fields"
    torch.manual_seed(0)
    config = DeepLabConfig(
        depth_multiplier=0.1, head_channels=8, num_classes=2, pixel_mean=MEAN, pixel_std=STD
    )
    bands = Bands(kind="float32", shown=(5, 3, 1), low=(0.0,) * 3, high=(9.0,) * 3)
    spec = InputSpec(height=33, width=49, mean=MEAN, std=STD, bands=bands)
    state = build(config).state_dict()
    labels = LabelSet(("ground", "field"))
    release.save(path, config, state, labels=labels, input_spec=spec)
    logits = Segmenter(path.with_suffix(".json"))(values).logits
    assert logits is not None
    # As initialised, one class has all pixels; so it has half of them.
    state["classifier.bias"][0] += float(np.median(logits[..., 1] - logits[..., 0]))
    release.save(path, config, state, labels=labels, input_spec=spec)
    return path.with_suffix(".json")


@pytest.fixture(scope="module")
def server(pair: Path) -> Iterator[Server]:
    with serving("-m", pair, "--api", "kserve", "--api", "huggingface") as running:
        yield running


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    blocks = np.random.default_rng(0).uniform(0, 9, (5, 7, CHANNELS)).astype(np.float32)
    return np.ascontiguousarray(blocks.repeat(9, 0).repeat(9, 1)[: SIZE[0], : SIZE[1]])


@pytest.fixture(scope="module")
def files(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    array, path = io.BytesIO(), tmp_path_factory.mktemp("files") / "fields.tif"
    np.save(array, values)
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=CHANNELS,
            dtype="float32", compress="deflate",
        ) as file,
    ):  # fmt: skip
        file.write(np.moveaxis(values, 2, 0))
    return {"npy": array.getvalue(), "tif": path.read_bytes()}


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_files_give_the_masks_of_python(
    server: Server, pair: Path, files: dict[str, bytes], values: np.ndarray, kind: str
) -> None:
    result = Segmenter(pair)(values)
    assert set(np.unique(result.mask)) == {0, 1}
    (model,) = server.get("/v1/models").json()["models"]
    assert (model["channels"], model["numbers"]) == (CHANNELS, "float32")

    answer = server.post("/v1/segment?output=mask", files[kind])
    assert answer.status == 200, answer.body
    with Image.open(io.BytesIO(answer.body)) as mask:
        assert (np.asarray(mask) == result.mask).all()
    shown = server.post("/v1/segment?output=overlay", files[kind], Accept="image/png")
    with Image.open(io.BytesIO(shown.body)) as overlay:
        assert (np.asarray(overlay) == np.asarray(result.overlay())).all()
    assert server.post("/v1/segment", files[kind]).json()["classes"] == result.to_dict()["classes"]

    found = server.ask("POST", "/", files[kind], {"Content-Type": "image/tiff"}).json()
    assert [one["label"] for one in found] == [*result.shares]


def test_tensors_give_the_masks_of_python(
    server: Server, pair: Path, files: dict[str, bytes], values: np.ndarray
) -> None:
    mask = Segmenter(pair)(values).mask
    shape = [1, *SIZE, CHANNELS]
    found = server.get("/v2/models/fields").json()
    assert found["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, -1, -1, 5]}
    image = {"name": "image", "datatype": "FP32", "shape": shape}
    photo = {"name": "photo", "datatype": "BYTES", "shape": [1]}
    for tensor in (
        {**image, "data": values.ravel().tolist()},
        {**photo, "data": [base64.b64encode(files["tif"]).decode()]},
    ):
        answer = server.post("/v2/models/fields/infer", json.dumps({"inputs": [tensor]}).encode())
        assert answer.status == 200, answer.body
        (output,) = answer.json()["outputs"]
        assert (np.array(output["data"]).reshape(SIZE) == mask).all()
    tail = values.astype("<f4").tobytes()
    head = json.dumps(
        {"inputs": [{**image, "parameters": {"binary_data_size": len(tail)}}]}
    ).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = server.ask("POST", "/v2/models/fields/infer", head + tail, length)
    assert (np.array(answer.json()["outputs"][0]["data"]).reshape(SIZE) == mask).all()


def test_what_it_does_not_take_is_refused_in_words(
    server: Server, files: dict[str, bytes], photo: bytes
) -> None:
    def refusal(path: str, body: bytes, status: int) -> str:
        answer = server.post(path, body)
        assert answer.status == status, answer.body
        words: str = answer.json()["detail"]
        return words

    assert "5 channels of float32" in refusal("/v1/segment", photo, 422)
    assert "damaged" in refusal("/v1/segment", files["npy"][:70], 422)
    assert "damaged" in refusal("/v1/segment", files["npy"][:-9], 422)
    refusal("/v1/segment", b"II*\0 no picture", 422)
    large = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        large, {"shape": (90_000, 90_000, 5), "fortran_order": False, "descr": "<f4"}
    )
    assert "megapixels" in refusal("/v1/segment", large.getvalue(), 413)
    pixels: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3]}
    body = json.dumps({"inputs": [{**pixels, "data": [1, 2, 3]}]}).encode()
    assert "expected image, FP32 of shape [n, height, width, 5]" in refusal(
        "/v2/models/fields/infer", body, 400
    )


def test_the_page_offers_none_and_says_so(server: Server) -> None:
    assert any("the browser page does not offer fields" in note for note in server.notes)
    assert server.get("/models.json").json()["models"] == []


def test_label_studio_refuses_it(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "-m", str(pair), "--port", "0", "--api", "label-studio"]) == 2
    assert "takes networks for photos" in capsys.readouterr().err
