from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes import describe, litert
from deeplab.runtimes.cut import open_cut
from deeplab.tflite import file as tflite_file
from deeplab.tflite.pooling import find_poolings, split
from deeplab.tiles import Tiles
from deeplab.tiles.context import Halves, find_unit
from deeplab.tiles.pictures import ArrayPicture
from deeplab.zoo import locate
from tiny_tflite import pooled_network, tiny_network

ROOT = Path(__file__).parents[2]
LABELS = LabelSet(tuple("abcde"))
POINTS, STEP = 5, 8
FRAME = (POINTS - 1) * STEP + 1


def features(frame: np.ndarray) -> tuple[np.ndarray]:
    return (frame[:: 2 * STEP, :: 2 * STEP].astype(np.float32) / 255,)


def judge(frame: np.ndarray, averages: tuple[np.ndarray, ...]) -> np.ndarray:
    red, green, blue = np.moveaxis(frame[::STEP, ::STEP].astype(np.float32) / 255, 2, 0)
    mean = averages[0]
    return np.stack([red, green, blue, mean[0] + 0 * red, mean[1] * green], axis=2)


def whole_and_tiles(size: tuple[int, int], overlap: float, **options) -> tuple[np.ndarray, Tiles]:
    picture = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    halves = Halves(features, judge, ((3, 3),))
    tiles = Tiles(
        ArrayPicture(picture), labels=LABELS, spec=InputSpec(height=FRAME, width=FRAME),
        grid=(POINTS, POINTS), align_corners=True, workers=2, overlap=overlap, halves=halves,
        run=lambda frame: judge(frame, (features(frame)[0].mean((0, 1)),)), **options,
    )  # fmt: skip
    down, across = (-(-(side - 1) // (2 * STEP)) * 2 * STEP + 1 for side in size)
    frame = np.empty((down, across, 3), np.uint8)
    frame[:] = tiles._spec.padding
    frame[: size[0], : size[1]] = picture
    return judge(frame, (features(frame)[0].mean((0, 1)),)), tiles


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("size", [(97, 65), (90, 150), (20, 200)])
def test_every_window_knows_the_mean_of_the_whole_picture(size, overlap):
    whole, tiles = whole_and_tiles(size, overlap)
    assert tiles.context == "picture"
    told = []
    result = tiles.segmentation(progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == 2 * len(tiles._rows.starts) * len(tiles._columns.starts)
    height, width = whole.shape[:2]
    np.testing.assert_allclose(result.logits[:height, :width], whole, atol=1e-5)


def test_strips_and_whole_agree_and_the_mean_is_taken_once(monkeypatch):
    monkeypatch.setattr("deeplab.tiles._STRIP", 512)
    monkeypatch.setattr("deeplab.tiles._LEAST_STRIP", 512)
    _, tiles = whole_and_tiles((70, 1500), 0.25)
    windows = tiles.windows
    told = []
    mask = np.empty((70, 1500), np.uint8)
    for top, left, part in tiles.parts(progress=lambda *now: told.append(now)):
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    assert told[-1] == (windows, windows)
    assert tiles.windows < windows, "known by now"
    np.testing.assert_array_equal(tiles.segmentation().mask, mask)


def test_one_window_is_run_as_any_photo_is():
    _, tiles = whole_and_tiles((FRAME, FRAME), 0.25)
    assert tiles.context == "window"
    assert tiles.windows == 1


def test_windows_begin_where_all_features_of_a_network_meet():
    assert find_unit(73, [37], align_corners=True, most=55) == 2
    assert find_unit(77, [39, 25], align_corners=True, most=58) == 38
    assert find_unit(77, [39, 25], align_corners=True, most=30) == 2, "the finest alone"
    assert find_unit(64, [32], align_corners=False, most=48) == 2
    assert find_unit(65, [65], align_corners=True, most=48) == 1


@pytest.mark.parametrize("name", ["voc-fast", "voc"])
def test_both_halves_together_are_the_network(name):
    with Image.open(ROOT / "examples" / "photos" / "dog.jpg") as photo:
        file = describe(locate(name))
        side = file.card.spec.height
        frame = np.asarray(photo.convert("RGB").resize((side, side)))
    halves = open_cut(file, threads=2)
    maps = halves.features(frame)
    assert len(maps) == {"voc": 2, "voc-fast": 1}[name], "one for each look inside"
    found = halves.judge(frame, [one.mean((0, 1)) for one in maps])
    whole = litert.open(file.path, threads=2, card=file.card)(frame)
    # The mean is rounded to eight bits on the way.
    assert (found.argmax(2) == whole.argmax(2)).mean() > 0.998
    other = halves.judge(frame, [0 * one.mean((0, 1)) for one in maps])
    assert not np.array_equal(other, found)


def test_the_pooling_of_a_graph_is_found_and_what_comes_before_is_left():
    file = tflite_file.parse(pooled_network())
    (pooling,) = find_poolings(file)
    before, after = (tflite_file.parse(part) for part in split(file, (pooling,)))
    assert len(before.outputs) == 1
    assert len(after.inputs) == 2
    assert not find_poolings(before)
    assert not find_poolings(after)
    assert not find_poolings(tflite_file.parse(tiny_network()))


def test_windows_of_a_release_pair_see_what_one_frame_sees():
    pair = ROOT / "docs" / "results" / "voc-fast" / "voc-fast.json"
    with Image.open(ROOT / "examples" / "photos" / "dog.jpg") as photo:
        picture = np.asarray(photo.convert("RGB").resize((817, 577), Image.Resampling.BICUBIC))
    whole = Segmenter(pair, size=picture.shape[:2]).tiles(picture).segmentation().mask
    windows, segmenter = {}, Segmenter(pair)
    for context in ("picture", "window"):
        result = segmenter.tiles(picture, context=context, overlap=0.6).segmentation()
        windows[context] = float((result.mask == whole).mean())
    assert windows["picture"] > 0.998, windows
    assert windows["window"] < windows["picture"]


def test_what_cannot_be_had_is_refused_in_words(tmp_path):
    picture = np.zeros((200, 200, 3), np.uint8)
    (tmp_path / "tiny.tflite").write_bytes(tiny_network(frame=65))
    tiny = Segmenter(tmp_path / "tiny.tflite", labels=LabelSet(tuple("abcd")))
    with pytest.raises(ModelError, match="no image pooling"):
        tiny.tiles(picture, context="picture")
    with pytest.raises(InputError, match=r"context: got 'photo', expected picture or window"):
        tiny.tiles(picture, context="photo")
    file = dataclasses.replace(describe(locate("voc-fast")), runtime="openvino")
    with pytest.raises(ModelError, match=r"openvino on cpu runs files whole"):
        open_cut(file, threads=1)
