"""The backend of Label Studio: predictions as it draws them, better ones after a correction."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from serving import Answer, Server, serving

from deeplab import Segmenter, cli, weights, zoo
from deeplab.data.encoded_masks import decode_brush
from deeplab.data.label_studio import paint_results
from deeplab.data.label_studio_writer import read_config
from deeplab.data.run_lengths import encode_brush_mask
from deeplab.errors import InputError
from deeplab.photo.images import InputSpec
from deeplab.weights.release import default_labels, save

pytest.importorskip("fastapi")

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
ORACLES = ROOT / "tests" / "oracles"
TOKEN = "0123456789abcdef"
BRUSH = """<View><Image name="photo" value="$img"/><BrushLabels name="tag" toName="photo">
<Label value="Moggy" predicted_values="cat"/><Label value="dog"/><Label value="cup"/>
</BrushLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")


class _Studio(http.server.BaseHTTPRequestHandler):
    """Has the example photos for those who show the token, and one labelled task."""

    labelled: list[dict[str, Any]] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = PHOTOS / self.path.rpartition("/")[2]
        if self.headers.get("Authorization") != f"Token {TOKEN}":
            self.send_error(401)
        elif self.path.startswith("/api/projects/7/export"):
            self.answer(json.dumps(self.labelled).encode())
        elif self.path.startswith("/data/upload/") and path.is_file():
            self.answer(path.read_bytes())
        else:
            self.send_error(404)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def studio() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Studio)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small network that comes with the package, for a smaller frame yet."""
    config, state = weights.load(zoo.locate("voc-fast"))
    assert config.pixel_mean is not None
    assert config.pixel_std is not None
    frame = InputSpec(height=161, width=161, mean=config.pixel_mean, std=config.pixel_std)
    path = tmp_path_factory.mktemp("pair") / "small"
    save(path, config, state, labels=default_labels(21), input_spec=frame)
    return path.with_suffix(".json")


@pytest.fixture(scope="module")
def backend(pair: Path, studio: str) -> Iterator[Server]:
    environment = {"LABEL_STUDIO_URL": studio, "LABEL_STUDIO_API_KEY": TOKEN}
    with serving("-m", pair, "--api", "label-studio", environment=environment) as running:
        yield running


def ask(server: Server, path: str, asked: object) -> Answer:
    body = json.dumps(asked).encode()
    return server.post(path, body, **{"Content-Type": "application/json"})


def task(name: str, key: str = "img") -> dict[str, Any]:
    return {"id": len(name), "data": {key: f"/data/upload/1/{name}.jpg"}}


def predict(server: Server, *names: str, config: str = BRUSH, project: int = 7) -> dict[str, Any]:
    asked = {"tasks": [task(name) for name in names], "label_config": config}
    answer = ask(server, "/predict", {**asked, "project": f"{project}.1700000000", "params": {}})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    assert len(found["results"]) == len(names)
    return found


def brush_of(prediction: dict[str, Any], label: str) -> np.ndarray:
    (result,) = [r for r in prediction["result"] if r["value"]["brushlabels"] == [label]]
    size = result["original_height"], result["original_width"]
    return decode_brush(result["value"]["rle"], size) > 0


def test_it_says_that_it_lives_and_takes_on_a_project(backend: Server) -> None:
    up = backend.get("/health").json()
    assert up["status"] == "UP"
    asked = {"project": "3.1", "schema": BRUSH, "hostname": "http://x", "access_token": "no"}
    assert ask(backend, "/setup", asked).json() == {"model_version": "small"}


def test_predictions_are_the_masks(backend: Server, pair: Path, tmp_path: Path) -> None:
    found = predict(backend, "cat", "dog", project=1)
    segmenter = Segmenter(pair)
    for name, label, prediction in zip(
        ("cat", "dog"), ("Moggy", "dog"), found["results"], strict=True
    ):
        result = segmenter(PHOTOS / f"{name}.jpg")
        where = result.mask == result.labels.index(name)
        assert np.array_equal(brush_of(prediction, label), where)
        assert prediction["score"] == pytest.approx(float(result.confidence.mean()), abs=1e-5)
        assert prediction["model_version"] == found["model_version"] == "small"
        for drawn in prediction["result"]:
            assert (drawn["from_name"], drawn["to_name"]) == ("tag", "photo")
            assert 0 < drawn["score"] <= 1
    (polygons,) = predict(backend, "cat", config=POLYGON, project=2)["results"]
    mask = segmenter(PHOTOS / "cat.jpg").mask
    ids = {"Moggy": 8, "dog": 12, "cup": 99}
    painted = paint_results(polygons["result"], mask.shape, ids, 0)
    assert not painted.faults
    assert ((painted.label == 8) == (mask == 8)).mean() > 0.99


@pytest.mark.oracles
@pytest.mark.parametrize("config", [BRUSH, POLYGON])
def test_label_studios_own_package_takes_them(
    backend: Server, oracles: Path, tmp_path: Path, config: str
) -> None:
    found = predict(backend, "cat", config=config, project=4)["results"]
    files = [tmp_path / name for name in ("config.xml", "predictions.json", "out.npz")]
    files[0].write_text(config)
    files[1].write_text(json.dumps(found))
    done = subprocess.run(
        [oracles, ORACLES / "check_predictions.py", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if config == BRUSH:
        with np.load(files[2]) as arrays:
            assert np.array_equal(arrays["0|Moggy"], brush_of(found[0], "Moggy"))


def wait_until_learnt(backend: Server, project: str, before: str = "") -> str:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        said = backend.get("/health").json()["learnt"].get(project, "")
        if said.startswith(("Fit", "not learnt")) and said != before:
            return str(said)
        time.sleep(0.3)
    raise AssertionError(backend.log[-5:])


def annotation(label: str, where: np.ndarray) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush_mask(where), "brushlabels": [label]}
    height, width = where.shape
    result = {"id": "a", "from_name": "tag", "to_name": "photo", "type": "brushlabels"}
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"id": 5, "result": [{**result, **size, "value": value}]}


def test_a_correction_makes_better_predictions(backend: Server, pair: Path) -> None:
    with Image.open(PHOTOS / "coffee.jpg") as photo:
        picture = Image.new("1", photo.size)
    ImageDraw.Draw(picture).ellipse([140, 60, 450, 330], fill=1)
    cup = np.array(picture)
    seen = Segmenter(pair)(PHOTOS / "cat.jpg")
    about = {"project": {"id": 7, "label_config": BRUSH}}
    said = ""
    first = predict(backend, "coffee")
    assert not [r for r in first["results"][0]["result"] if r["value"]["brushlabels"] == ["cup"]]
    for name, drawn in (
        ("coffee", annotation("cup", cup)), ("cat", annotation("Moggy", seen.mask == 8))
    ):  # fmt: skip
        asked = {"action": "ANNOTATION_CREATED", "annotation": drawn, "task": task(name), **about}
        assert ask(backend, "/webhook", asked).status == 201
        said = wait_until_learnt(backend, "7", said)
        assert said.startswith("Fit: "), said
    after = predict(backend, "coffee", "cat")
    assert after["model_version"].startswith("small+2-")
    for name, label, truth in (("coffee", "cup", cup), ("cat", "Moggy", seen.mask == 8)):
        found = brush_of(after["results"][name == "cat"], label)
        assert (found & truth).sum() / (found | truth).sum() > 0.7, name
    # Nobody has labelled a dog yet; those that the network knew are still seen.
    (dog,) = predict(backend, "dog")["results"]
    truth = Segmenter("voc-fast")(PHOTOS / "dog.jpg").mask == 12
    found = brush_of(dog, "dog")
    assert found[truth].mean() > 0.5
    # The button "Start training" asks Label Studio for all that is labelled there.
    _Studio.labelled = [{**task("coffee"), "annotations": [annotation("cup", cup)]}]
    assert ask(backend, "/webhook", {"action": "START_TRAINING", **about}).status == 201
    wait_until_learnt(backend, "7", said)
    assert predict(backend, "coffee")["model_version"].startswith("small+1-")


def words(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    return str(answer.json()["detail"])


def test_what_it_does_not_take(backend: Server, studio: str) -> None:
    asked: dict[str, Any] = {"tasks": [task("cat")], "project": "9.1"}
    assert "label_config: is missing" in words(ask(backend, "/predict", asked), 422)
    asked["label_config"] = BRUSH
    for address in ("http://169.254.169.254/latest", "file:///etc/passwd", "//example.org/a.jpg"):
        elsewhere = {"id": 1, "data": {"img": address}}
        told = words(ask(backend, "/predict", {**asked, "tasks": [elsewhere]}), 422)
        assert "from Label Studio alone" in told
    told = words(ask(backend, "/predict", {**asked, "tasks": [task("gone")]}), 422)
    assert "it answers 404" in told
    assert "not JSON" in words(backend.post("/predict", b"{"), 400)
    assert "tasks" in words(ask(backend, "/predict", {"tasks": 3}), 400)
    for config in ("<View/>", "no XML", "<!DOCTYPE a []><View/>", '<View><Image name="a"/></View>'):
        told = words(ask(backend, "/setup", {"project": "8", "schema": config}), 422)
        assert told.startswith("label_config: ")


def test_processes_cannot_share_what_is_learnt(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--api", "label-studio", "--workers", "2"]) == 2
    assert "learns in one process" in capsys.readouterr().err


def test_configurations() -> None:
    config = read_config(BRUSH)
    assert (config.kind, config.from_name, config.to_name, config.key) == (
        "brush", "tag", "photo", "img"
    )  # fmt: skip
    assert config.labels.names == ("background", "Moggy", "dog", "cup")
    assert config.match(default_labels(21)) == {8: "Moggy", 12: "dog"}
    own = read_config(BRUSH.replace("cup", "Background"))
    assert own.labels.names == ("background", "Moggy", "dog")
    assert own.ids == {"Moggy": 1, "dog": 2, "Background": 0}
    with pytest.raises(InputError, match="different ones"):
        read_config(BRUSH.replace("cup", "dog"))
