"""What is asked for: in the address or in fields of a form, each once."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Answer, Server, draw_photo, encode, form, serving

from deeplab import Segmenter
from deeplab.photo.draw import keep_only
from tiny_tflite import tiny_network

pytest.importorskip("fastapi")

FILE = '; filename="a.png"'


def send(server: Server, *parts: tuple[str, str, bytes], query: str = "", **headers: str) -> Answer:
    body, kind = form(*parts)
    return server.ask("POST", f"/v1/segment{query}", body, {"Content-Type": kind, **headers})


def pixels(answer: Answer) -> np.ndarray:
    assert answer.status == 200, answer.body
    return np.asarray(Image.open(io.BytesIO(answer.body)))


def detail(answer: Answer, status: int) -> str:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    return answer.json()["detail"]


def test_fields_of_a_form_are_honoured(server: Server, segmenter: Segmenter, photo: bytes) -> None:
    answer = send(
        server,
        ("model", "", b"tiny"),
        ("output", "", b"mask"),
        ("photo", FILE, photo),
        ("only", "", b"cat, tree"),
    )
    mask, _ = keep_only(segmenter(photo).mask, ["cat", "tree"], labels=segmenter.labels)
    assert answer.headers["Content-Type"] == "image/png"
    assert (pixels(answer) == mask).all()


@pytest.mark.parametrize("name", ["photo", "anything"])
def test_a_part_without_a_file_name(
    server: Server, segmenter: Segmenter, photo: bytes, name: str
) -> None:
    answer = send(server, (name, "", photo), ("output", "", b"mask"))
    assert (pixels(answer) == segmenter(photo).mask).all()


@pytest.mark.parametrize(
    ("parts", "query", "status", "words"),
    [
        ([("output", "", b"maks")], "", 422, "output: got 'maks'"),
        ([("otput", "", b"mask")], "", 422, "no parameter 'otput'. Did you mean 'output'?"),
        ([("model", "", b"tyni")], "", 404, "Did you mean 'tiny'?"),
        ([("only", "", b"cta")], "", 422, "Did you mean 'cat'?"),
        ([("output", "", b"mask")], "?output=mask", 422, "output: got it twice"),
        ([("output", "", b"mask"), ("output", "", b"json")], "", 422, "output: got it twice"),
        ([("photo", "", b"text")], "", 415, "photo: is not a picture"),
        ([("radius", "", b"5")], "", 422, "only output=blur reads it"),
        ([("background", FILE, b"x")], "", 422, "only output=replace reads it"),
    ],
)  # fmt: skip
def test_wrong_fields(
    server: Server, photo: bytes, parts: list[tuple[str, str, bytes]], query: str, status: int,
    words: str,
) -> None:  # fmt: skip
    file = [] if parts[0][0] == "photo" else [("photo", FILE, photo)]
    assert words in detail(send(server, *parts, *file, query=query), status)


@pytest.mark.parametrize(
    "query", ["model=tiny&model=tiny", "output=mask&output=json", "only=cat&only=dog"]
)
def test_repeated_parameters_are_refused(server: Server, photo: bytes, query: str) -> None:
    answer = server.post(f"/v1/segment?{query}", photo)
    name = query.partition("=")[0]
    assert f"{name}: got it twice, expected it once" in detail(answer, 422)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("output=replace&background=red", "background: got 'red', expected a colour"),
        ("output=blur&radius=-1", "radius: got '-1', expected more than 0"),
        ("output=blur&radius=nan", "radius: got 'nan'"),
        ("output=boxes&min_area=1e3", "min_area: got '1e3', expected a whole number"),
        ("output=mask&min_area=3", "only output=boxes and output=polygons reads it"),
        ("only=", "only: got no class"),
    ],
)
def test_values_that_cannot_be(server: Server, photo: bytes, query: str, words: str) -> None:
    assert words in detail(server.post(f"/v1/segment?{query}", photo), 422)


def test_what_is_wrong_is_told_before_anything_is_uploaded(server: Server) -> None:
    for query in ("only=cta", "output=maks", "model=tyni", "output=mask&output=mask"):
        with server.connect() as connection:
            head = f"POST /v1/segment?{query} HTTP/1.1\r\nHost: localhost\r\n"
            connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode())
            assert connection.recv(2000).startswith((b"HTTP/1.1 422 ", b"HTTP/1.1 404 "))


def test_several_photos_come_back_in_their_order(server: Server, segmenter: Segmenter) -> None:
    photos = [encode(draw_photo(40 + 9 * n, 60, seed=n)) for n in range(3)]
    names = ("a.png", "folder/b.png", "a.png")
    parts = [
        ("photo", f'; filename="{name}"', data) for name, data in zip(names, photos, strict=True)
    ]
    found = send(server, *parts).json()
    assert [one["photo"] for one in found["photos"]] == ["a.png", "b.png", "a.png"]
    assert [one["height"] for one in found["photos"]] == [40, 49, 58]
    answer = send(server, ("output", "", b"mask"), *parts)
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        assert packed.namelist() == ["a.png", "b.png", "a-3.png"]
        for name, data in zip(packed.namelist(), photos, strict=True):
            mask = np.asarray(Image.open(io.BytesIO(packed.read(name))))
            assert (mask == segmenter(data).mask).all()
    answer = send(server, ("output", "", b"overlay"), *parts, Accept="image/png")
    assert "overlay of several photos is application/zip" in detail(answer, 406)
    answer = send(server, *parts * 6)
    assert "more than 16 photos" in detail(answer, 422)


def test_each_photo_of_several_has_its_own_answer(server: Server, segmenter: Segmenter) -> None:
    good, whole = encode(draw_photo(40, 60)), encode(draw_photo(50, 60, seed=2), "JPEG")
    cut = encode(draw_photo(400, 600, seed=3))[:-3000]  # its header is right
    no_picture = ("photo", '; filename="c.txt"', b"text")
    parts = [
        ("photo", '; filename="a.png"', good),
        no_picture,
        ("photo", '; filename="cut.png"', cut),
        ("photo", '; filename="b.jpg"', whole),
    ]
    answer = send(server, *parts)
    assert answer.status == 207
    first, second, third, fourth = answer.json()["photos"]
    assert (first["photo"], first["height"], fourth["height"]) == ("a.png", 40, 50)
    assert second["photo"] == "c.txt"
    assert second["error"]["status"] == 415
    assert "photo 2 (c.txt): is not a picture" in second["error"]["detail"]
    assert (third["photo"], third["error"]["status"]) == ("cut.png", 422)
    alone = send(server, ("photo", '; filename="cut.png"', cut))
    assert alone.status == 422
    answer = send(server, ("output", "", b"mask"), *parts)
    assert (answer.status, answer.headers["Content-Type"]) == (207, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        assert packed.namelist() == ["a.png", "b.png", "refused.json"]
        mask = np.asarray(Image.open(io.BytesIO(packed.read("b.png"))))
        told = json.loads(packed.read("refused.json"))["photos"]
    assert (mask == segmenter(whole).mask).all()
    assert [(one["number"], one["photo"]) for one in told] == [(2, "c.txt"), (3, "cut.png")]
    # Where none can be read, it is refused as a whole, and no photo is worked on.
    before = server.metric('deeplab_photos_total{model="tiny"}')
    assert "photo 1 (c.txt): is not a picture" in detail(send(server, no_picture, no_picture), 415)
    damaged = ("photo", '; filename="cut.png"', cut)
    assert "photo 1 (cut.png)" in detail(send(server, damaged, damaged), 422)
    assert server.metric('deeplab_photos_total{model="tiny"}') == before


def test_blur_replace_and_contour_are_the_segmentations(
    server: Server, segmenter: Segmenter, photo: bytes
) -> None:
    result = segmenter(photo)
    behind = draw_photo(30, 30, seed=8)

    def ask(query: str) -> np.ndarray:
        return pixels(server.post(f"/v1/segment?{query}", photo, Accept="image/png"))

    assert (ask("output=contour") == np.asarray(result.contour())).all()
    assert (ask("output=blur") == np.asarray(result.blur_background())).all()
    assert (ask("output=blur&radius=9") == np.asarray(result.blur_background(radius=9))).all()
    orange = np.asarray(result.replace_background((255, 136, 0)))
    assert (ask("output=replace&background=%23ff8800") == orange).all()
    white = np.asarray(result.replace_background((255, 255, 255)))
    assert (ask("output=replace") == white).all()
    answer = send(
        server,
        ("photo", FILE, photo),
        ("background", FILE, encode(behind)),
        query="?output=replace",
        Accept="image/png",
    )
    assert (pixels(answer) == np.asarray(result.replace_background(behind))).all()
    answer = send(
        server, ("photo", FILE, photo), ("background", FILE, b"none"), query="?output=replace"
    )
    assert "background: is not a picture" in detail(answer, 415)


def test_only_is_kept_by_its_own_edge(server: Server, segmenter: Segmenter, photo: bytes) -> None:
    result = segmenter(photo)
    answer = server.post("/v1/segment?output=cutout&only=cat", photo)
    assert (pixels(answer) == np.asarray(result.cutout(["cat"]))).all()
    answer = server.post("/v1/segment?output=blur&only=cat", photo, Accept="image/png")
    assert (pixels(answer) == np.asarray(result.blur_background(["cat"]))).all()


def test_confidence_is_the_winners_probability(
    server: Server, segmenter: Segmenter, photo: bytes
) -> None:
    found = pixels(server.post("/v1/segment?output=confidence", photo))
    assert np.abs(found / 255 - segmenter(photo).confidence).max() <= 0.5 / 255 + 1e-6
    answer = server.post("/v1/segment?output=confidence&only=cat", photo)
    assert "output=confidence does not read it" in detail(answer, 422)


def test_boxes_and_polygons_give_back_the_mask(
    server: Server, segmenter: Segmenter, photo: bytes
) -> None:
    mask = segmenter(photo).mask
    boxes = server.post("/v1/segment?output=boxes", photo).json()
    outlines = server.post("/v1/segment?output=polygons", photo).json()
    again = np.zeros(mask.shape, np.uint8)
    for box, one in zip(boxes["objects"], outlines["objects"], strict=True):
        assert {k: v for k, v in one.items() if k != "polygons"} == box
        assert one["area"] >= 1
        inside = np.zeros(mask.shape, int)
        for ring in one["polygons"]:
            for (x, y), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
                if x == x2:
                    inside[min(y, y2) : max(y, y2), x:] += 1
        again[inside % 2 == 1] = one["id"]
    assert (again == mask).all()
    large = server.post("/v1/segment?output=boxes&min_area=500", photo).json()["objects"]
    assert large == [one for one in boxes["objects"] if one["area"] >= 500]
    assert json.loads(server.post("/v1/segment?output=boxes&only=cat", photo).body)["objects"] == [
        one for one in boxes["objects"] if one["name"] == "cat"
    ]


def test_a_very_wide_overlay_is_a_png(server: Server) -> None:
    wide = encode(Image.new("RGB", (70_000, 7), (90, 60, 30)))
    answer = server.post("/v1/segment?output=overlay", wide)
    assert answer.headers["Content-Type"] == "image/png"
    assert pixels(answer).shape[:2] == (7, 70_000)


def test_models_with_one_channel_have_background_and_object(tmp_path: Path, photo: bytes) -> None:
    path = tmp_path / "one.tflite"
    path.write_bytes(tiny_network(classes=1, frame=33, argmax=False))
    with serving("-m", path) as server:
        (model,) = server.get("/v1/models").json()["models"]
        assert model["labels"]["names"] == ["background", "object"]
        (entry,) = server.get("/models.json").json()["models"]
        assert entry["labels"]["names"] == ["background", "object"]
        mask = pixels(server.post("/v1/segment?output=mask", photo))
        assert (mask == Segmenter(path)(photo).mask).all()
        assert server.post("/v1/segment?output=cutout&only=object", photo).status == 200
