"""What the API answers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import http.client
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import NAMES, Answer, Server, form

from deeplab import Segmenter
from deeplab.photo.draw import keep_only
from deeplab.serve import browser_page
from deeplab.serve.site import Site

pytest.importorskip("fastapi")
brotli = pytest.importorskip("brotli")


def decode(answer: Answer, kind: str) -> Image.Image:
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == kind
    return Image.open(io.BytesIO(answer.body))


@pytest.fixture(scope="module")
def expected(segmenter: Segmenter, photo: bytes) -> np.ndarray:
    return segmenter(photo).mask


def test_the_mask_is_the_segmenters(server: Server, photo: bytes, expected: np.ndarray) -> None:
    answer = server.post("/v1/segment?output=mask", photo)
    picture = decode(answer, "image/png")
    assert picture.mode == "P"
    assert (np.asarray(picture) == expected).all()
    assert len({*expected.ravel()}) > 1
    stages = re.findall(r"(\w+);dur=[\d.]+", answer.headers["Server-Timing"])
    assert stages == ["decode", "network", "mask"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_json_tells_classes_and_run_lengths(
    server: Server, photo: bytes, expected: np.ndarray
) -> None:
    found = server.post("/v1/segment", photo).json()
    assert (found["model"], found["height"], found["width"]) == ("tiny", 90, 140)
    assert "photo" not in found
    mask = np.full(expected.size, 255, np.uint8)
    for one in found["classes"]:
        assert one["name"] == NAMES[one["id"]]
        counts = one["segmentation"]["counts"]
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        inside = np.pad(inside, (0, mask.size - inside.size))
        assert one["share"] == inside.mean()
        mask[inside] = one["id"]
    assert (expected == mask.reshape(140, 90).T).all()


def test_overlay_and_cutout(server: Server, segmenter: Segmenter, photo: bytes) -> None:
    result = segmenter(photo)
    jpeg = decode(server.post("/v1/segment?output=overlay", photo), "image/jpeg")
    assert jpeg.size == (140, 90)
    png = decode(server.post("/v1/segment?output=overlay", photo, Accept="image/png"), "image/png")
    assert (np.asarray(png) == np.asarray(result.overlay())).all()
    cut = decode(server.post("/v1/segment?output=cutout", photo), "image/png")
    assert (np.asarray(cut) == np.asarray(result.cutout())).all()


def test_only_makes_everything_else_background(
    server: Server, segmenter: Segmenter, photo: bytes, expected: np.ndarray
) -> None:
    answer = server.post("/v1/segment?output=mask&only=cat,%20tree", photo)
    mask, _ = keep_only(expected, ["cat", "tree"], labels=segmenter.labels)
    assert (np.asarray(decode(answer, "image/png")) == mask).all()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/png", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("image/jpeg;q=0.5, image/png;q=0.9", "image/png"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "image/png"),
    ],
)
def test_accept_chooses(server: Server, photo: bytes, accept: str, kind: str) -> None:
    answer = server.post("/v1/segment", photo, Accept=accept)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)


def test_a_form_with_one_file(server: Server, photo: bytes, expected: np.ndarray) -> None:
    body, kind = form(("photo", '; filename="../../a.png"', photo))
    answer = server.ask("POST", "/v1/segment?output=mask", body, {"Content-Type": kind})
    assert (np.asarray(decode(answer, "image/png")) == expected).all()


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_a_body_that_is_the_photo(server: Server, photo: bytes, kind: str) -> None:
    answer = server.ask("POST", "/v1/segment", photo, {"Content-Type": kind})
    assert answer.status == 200


def test_chunks_are_put_together(server: Server, photo: bytes, expected: np.ndarray) -> None:
    pieces = (photo[i : i + 1000] for i in range(0, len(photo), 1000))
    answer = server.ask(
        "POST", "/v1/segment?output=mask", pieces, {"Transfer-Encoding": "chunked"}, chunked=True
    )
    assert (np.asarray(decode(answer, "image/png")) == expected).all()


def test_the_models_are_listed(server: Server) -> None:
    (model,) = server.get("/v1/models").json()["models"]
    assert (model["name"], model["height"], model["width"]) == ("tiny", 33, 33)
    assert tuple(model["labels"]["names"]) == NAMES
    assert server.get("/healthz").json()["status"] == "ok"


def test_metrics_count(server: Server, photo: bytes) -> None:
    before = server.metric('deeplab_photos_total{model="tiny"}')
    server.post("/v1/segment", photo)
    server.post("/v1/segment", b"no photo")
    assert server.metric('deeplab_photos_total{model="tiny"}') == before + 1
    assert server.metric("deeplab_photos_pending") == 0
    assert server.metric("deeplab_uploads_held_bytes") == 0
    assert server.metric("process_resident_memory_bytes") > 1e7
    text = server.get("/metrics").body.decode()
    line = re.compile(r'# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [\d.e+-]+')
    assert [part for part in text.splitlines() if not line.fullmatch(part)] == []
    route = 'route="/v1/segment"'
    last, count = (
        server.metric(f"deeplab_request_seconds_{name}")
        for name in (f'bucket{{{route},le="+Inf"}}', f"count{{{route}}}")
    )
    assert last == count > 1


def test_the_log_tells_what_was_asked(server: Server, photo: bytes) -> None:
    server.post("/v1/segment?output=mask&only=cat%0Adog%1b", photo)
    server.get("/healthz")
    lines = server.wait_for_log("%0Adog")
    assert len(lines) == 1
    words = r"127\.0\.0\.1 POST /v1/segment\?output=mask&only=cat%0Adog%1b 422 [\d.]+ ms, \d+ B in"
    assert re.search(words, lines[0])


def test_the_description_is_complete_and_asks_nobody_else(server: Server) -> None:
    description = server.get("/openapi.json").json()
    assert [*description["paths"]] == [
        "/v1/segment", "/v1/models", "/healthz", "/livez", "/readyz", "/metrics"
    ]  # fmt: skip
    segment = description["paths"]["/v1/segment"]["post"]
    assert {p["name"] for p in segment["parameters"]} == {
        "model", "output", "only", "background", "radius", "min_area"
    }  # fmt: skip
    assert {*segment["responses"]} == {
        "200", "207", "403", "404", "406", "408", "413", "415", "421", "422", "429", "503"
    }  # fmt: skip
    answer = server.get("/docs")
    page = answer.body.decode()
    for status in segment["responses"]:
        assert f"<td>{status}</td>" in page
    assert not re.search(r"<script|https?://|src=|@import|url\(", page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    # Its buttons lead to the API.
    for output in ("json", "mask", "overlay", "cutout"):
        assert f'formaction="v1/segment?output={output}"' in page


def test_every_answer_carries_the_pages_headers(server: Server, photo: bytes) -> None:
    answers = [
        server.get("/"),
        server.get("/nothing"),
        server.post("/v1/segment", photo),
        server.post("/v1/segment", b""),
    ]
    for answer in answers:
        for name, value in browser_page.HEADERS.items():
            if name != "Content-Security-Policy":
                assert answer.headers[name] == value
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_models_travel_with_the_page(server: Server, model: Path) -> None:
    catalogue = server.get("/models.json").json()
    (entry,) = catalogue["models"]
    assert (entry["title"], entry["file"]) == ("tiny", "models/tiny.tflite")
    assert tuple(entry["labels"]["names"]) == NAMES
    answer = server.get(f"/{entry['file']}?{entry['sha256'][:16]}")
    assert answer.body == model.read_bytes()
    assert entry["sha256"] == hashlib.sha256(answer.body).hexdigest()
    again = server.ask(
        "GET", f"/{entry['file']}", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (again.status, again.body) == (304, b"")
    assert json.loads(server.get("/v1/models").body)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/models/..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/models/labels.txt",
        "/models/",
        "/index.html%00",
        "/file:///etc/passwd",
    ],
)
def test_a_path_is_only_looked_up(server: Server, path: str) -> None:
    answer = server.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("name", ["/etc/passwd", "tiny.tflite", "http://127.0.0.1/", "voc"])
def test_a_model_is_only_looked_up(server: Server, photo: bytes, name: str) -> None:
    answer = server.post(f"/v1/segment?model={name}", photo)
    assert answer.status == 404
    assert "There is: tiny." in answer.json()["detail"]


def unpack(answer: Answer) -> bytes:
    coding = answer.headers["Content-Encoding"]
    return {None: bytes, "gzip": gzip.decompress, "br": brotli.decompress}[coding](answer.body)


def test_the_pages_files_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "a.wasm").write_bytes(content)
    monkeypatch.setattr(browser_page, "BUILT", tmp_path)
    site = Site({}, {})

    async def ask(accepted: str, *, tag: str = "") -> Answer:
        headers = [(b"accept-encoding", accepted.encode()), (b"if-none-match", tag.encode())]
        scope = {"type": "http", "method": "GET", "path": "/a.wasm", "headers": headers,
                 "query_string": b"", "asgi": {"spec_version": "2.4"}}  # fmt: skip
        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        await site(scope, None, send)
        told = http.client.HTTPMessage()
        for name, value in sent[0]["headers"]:
            told[name.decode()] = value.decode()
        body = b"".join(one.get("body", b"") for one in sent)
        return Answer(sent[0]["status"], told, body)

    async def check() -> None:
        found = [await ask("gzip, br")]
        while found[-1].headers["Content-Encoding"] != "br":  # it takes its time
            assert found[-1].headers["Content-Encoding"] == "gzip"
            await asyncio.sleep(0.01)
            found.append(await ask("gzip, br"))
        found += [await ask("br"), await ask("gzip, br;q=0"), await ask("br;q=0.0"), await ask("")]
        codings = [one.headers["Content-Encoding"] for one in found[-4:]]
        assert codings == ["br", "gzip", None, None]
        for one in found:
            assert unpack(one) == content
        assert len({one.headers["ETag"] for one in found[-3:]}) == 2
        assert len(found[-4].body) < len(content) / 10
        again = await ask("gzip, br", tag=found[-4].headers["ETag"])
        assert (again.status, again.body) == (304, b"")

    asyncio.run(check())


def test_the_built_page_is_served(server: Server) -> None:
    try:
        page = browser_page.find_page()
    except browser_page.OutputError:
        answer = server.get("/")
        assert answer.status == 200
        assert b"not built" in answer.body
        return
    for path in page.rglob("*"):
        if path.is_file() and path.name != browser_page.CATALOGUE:
            name = path.relative_to(page).as_posix()
            answer = server.get(f"/{name}")
            assert answer.body == path.read_bytes()
            assert answer.headers["Content-Type"] == browser_page.MEDIA_TYPES[path.suffix]
            packed = server.ask("GET", f"/{name}", headers={"Accept-Encoding": "gzip, br"})
            assert packed.headers["Content-Type"] == answer.headers["Content-Type"]
            assert unpack(packed) == answer.body
            if path.name == "litert_wasm_internal.wasm":
                assert len(packed.body) < 4_000_000
    assert server.get("/").body == (page / "index.html").read_bytes()


def test_what_no_jpeg_can_hold_is_a_png_or_words(server: Server) -> None:
    wide = io.BytesIO()
    Image.new("RGB", (65_501, 5), (90, 60, 30)).save(wide, "PNG")
    answer = server.post("/v1/segment?output=overlay", wide.getvalue())
    assert decode(answer, "image/png").size == (65_501, 5)
    answer = server.post("/v1/segment?output=overlay", wide.getvalue(), Accept="image/jpeg")
    assert answer.status == 406
    assert "a side over 65,500 pixels" in answer.json()["detail"]
