"""The doctor finds every planted fault, names the file, and passes what is clean."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.data import open_dataset
from deeplab.data.check import Report, check
from deeplab.data.check_page import write_page
from deeplab.data.counts import ClassCounts
from deeplab.data.duplicates import find_near, nearest, perceptual_hash
from deeplab.data.faults import KINDS
from deeplab.data.masks import write_mask
from deeplab.errors import DataError, InputError
from deeplab.labels import VOC, voc_colours
from tiny_folder import HEIGHT, WIDTH, label, make_folder, photo

PALETTE = np.array(voc_colours(256), np.uint8)
COLOURS = 'classes = ["background", "cat", "dog"]\ncolours = [[0,0,0],[128,0,0],[0,128,0]]\n'


@pytest.fixture(autouse=True)
def _two_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders here are tiny."""
    monkeypatch.setattr("deeplab.data.check.SMALL_SPLIT", 2)


def look(root: Path) -> Report:
    return check([open_dataset(root, split=split) for split in ("train", "val")], threads=2)


def codes(report: Report) -> set[str]:
    return {fault.code for fault in report.faults}


def mask(root: Path, index: int) -> Path:
    return root / "masks" / f"p{index:02}.png"


def image(root: Path, index: int) -> Path:
    return root / "images" / f"p{index:02}.jpg"


def describe(root: Path, text: str) -> None:
    (root / "dataset.toml").write_text(text)


# -- one fault each ------------------------------------------------------------------------------


def missing_photo(root: Path) -> None:
    image(root, 3).unlink()


def missing_mask(root: Path) -> None:
    mask(root, 3).unlink()


def orphan_mask(root: Path) -> None:
    write_mask(root / "masks" / "p99.png", label(3), PALETTE)


def unreadable_photo(root: Path) -> None:
    image(root, 3).write_bytes(image(root, 3).read_bytes()[:900])


def unreadable_mask(root: Path) -> None:
    mask(root, 3).write_bytes(mask(root, 3).read_bytes()[:60])


def swapped(root: Path) -> None:
    first, second = image(root, 3).read_bytes(), mask(root, 3).read_bytes()
    image(root, 3).write_bytes(second)
    mask(root, 3).write_bytes(first)


def size(root: Path) -> None:
    write_mask(mask(root, 3), label(3, HEIGHT // 2, WIDTH // 2), PALETTE)


def save_with_orientation(root: Path, index: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo(index)).save(image(root, index), exif=exif)


def turned(root: Path) -> None:
    save_with_orientation(root, 3, 6)


def maybe_turned(root: Path) -> None:
    save_with_orientation(root, 3, 3)


def lossy(root: Path) -> None:
    Image.fromarray(label(3)).save(mask(root, 3), format="JPEG")


def smeared_in_range(root: Path) -> None:
    """Classes 0 and 15 smoothly resized: every value in between looks allowed."""
    describe(root, f"classes = {json.dumps([f'c{i}' for i in range(21)])}\n")
    small = Image.fromarray((label(3, 24, 32) == 1).astype(np.uint8) * 15)
    small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).save(mask(root, 3))


def smeared_by_jpeg(root: Path) -> None:
    """A JPEG mask that somebody renamed by converting it."""
    path = root / "lossy.jpg"
    Image.fromarray(label(3) * 100).save(path, quality=75)
    Image.open(path).save(mask(root, 3))


def smeared_colours(root: Path) -> None:
    describe(root, COLOURS + "ignore_colours = [[224, 224, 192]]\n")
    rgb = Image.fromarray(PALETTE[label(3)])
    rgb.resize((40, 30)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(mask(root, 3))


def rgb(root: Path) -> None:
    Image.fromarray(PALETTE[label(3)]).save(mask(root, 3))


def colours(root: Path) -> None:
    describe(root, COLOURS)
    Image.fromarray(PALETTE[label(3)]).save(mask(root, 3))  # the rim's colour is not named


def ids(root: Path) -> None:
    write_mask(mask(root, 3), np.where(label(3) == 2, 7, label(3)).astype(np.uint8), PALETTE)


def grey_palette(root: Path) -> None:
    describe(root, COLOURS + "ignore_colours = [[224, 224, 192]]\n")
    Image.open(mask(root, 3)).convert("RGB").convert("L").save(mask(root, 3))


def reordered(root: Path, index: int) -> None:
    order = np.array([2, 0, 1, *range(3, 256)], np.uint8)
    write_mask(mask(root, index), order[label(index)], PALETTE[np.argsort(order)])


def palette_order(root: Path) -> None:
    describe(root, COLOURS)
    reordered(root, 3)


def palettes_differ(root: Path) -> None:
    reordered(root, 3)


def ignored_foreground(root: Path) -> None:
    (root / "labels.txt").write_text("background\ncat\n")
    for index in range(10):
        write_mask(mask(root, index), (label(index) == 1).astype(np.uint8) * 255, PALETTE)


def only_one_class(root: Path) -> None:
    for index in range(10):
        write_mask(mask(root, index), np.zeros((HEIGHT, WIDTH), np.uint8), PALETTE)


def nothing_labelled(root: Path) -> None:
    for index in range(10):
        write_mask(mask(root, index), np.full((HEIGHT, WIDTH), 255, np.uint8), PALETTE)


def one_class(root: Path) -> None:
    write_mask(mask(root, 3), np.zeros((HEIGHT, WIDTH), np.uint8), PALETTE)


def all_ignored(root: Path) -> None:
    write_mask(mask(root, 3), np.full((HEIGHT, WIDTH), 255, np.uint8), PALETTE)


def much_ignored(root: Path) -> None:
    for index in range(10):
        values = label(index)
        values[:, : WIDTH * 2 // 3] = 255
        values[0, -1] = 1
        write_mask(mask(root, index), values, PALETTE)


def absent_class(root: Path) -> None:
    (root / "labels.txt").write_text("background\ncat\ndog\nunicorn\n")


def rare_class(root: Path) -> None:
    for index in range(10):
        values = np.where(label(index) == 2, 0, label(index)).astype(np.uint8)
        values[0, 0] = 2
        write_mask(mask(root, index), values, PALETTE)


def same_photo(root: Path) -> None:
    image(root, 3).write_bytes(image(root, 1).read_bytes())


def same_photo_across(root: Path) -> None:
    image(root, 9).write_bytes(image(root, 3).read_bytes())


def near_photo(root: Path) -> None:
    Image.open(image(root, 1)).resize((WIDTH, HEIGHT)).save(image(root, 3), quality=60)


def near_photo_across(root: Path) -> None:
    brighter = np.clip(photo(3).astype(np.int16) + 6, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(image(root, 9), quality=80)


def passed_over(root: Path) -> None:
    (root / "images" / "clip.mp4").write_bytes(b"")


def split_overlap(root: Path) -> None:
    (root / "val.txt").write_text("p03\np08\np09\n")


def small_split(root: Path) -> None:
    (root / "val.txt").write_text("p08\n")


def transparent(root: Path) -> None:
    rgba = np.dstack([PALETTE[label(3)], np.where(label(3) == 255, 0, 255)]).astype(np.uint8)
    describe(root, COLOURS)
    Image.fromarray(rgba).save(mask(root, 3))


def white_among_ones(root: Path) -> None:
    (root / "labels.txt").write_text("background\ncat\n")
    for index in range(10):
        values = (label(index) == 1).astype(np.uint8) * (255 if index == 3 else 1)
        Image.fromarray(values).save(mask(root, index))


PLANTED: dict[str, list[Callable[[Path], None]]] = {
    "missing-photo": [missing_photo],
    "missing-mask": [missing_mask],
    "orphan-mask": [orphan_mask],
    "unreadable-photo": [unreadable_photo],
    "unreadable-mask": [unreadable_mask],
    "swapped": [swapped],
    "passed-over": [passed_over],
    "split-overlap": [split_overlap],
    "small-split": [small_split],
    "transparent": [transparent],
    "size": [size],
    "turned": [turned],
    "maybe-turned": [maybe_turned],
    "lossy": [lossy],
    "smeared": [smeared_in_range, smeared_by_jpeg, smeared_colours],
    "rgb": [rgb],
    "colours": [colours],
    "ids": [ids],
    "grey-palette": [grey_palette],
    "palette-order": [palette_order],
    "palettes-differ": [palettes_differ],
    "ignored-foreground": [ignored_foreground, white_among_ones],
    "only-one-class": [only_one_class],
    "nothing-labelled": [nothing_labelled],
    "one-class": [one_class],
    "all-ignored": [all_ignored],
    "much-ignored": [much_ignored],
    "absent-class": [absent_class],
    "rare-class": [rare_class],
    "same-photo": [same_photo],
    "same-photo-across": [same_photo_across],
    "near-photo": [near_photo],
    "near-photo-across": [near_photo_across],
}
# A break that cannot come alone: which other faults it brings along.
COMPANIONS = {
    "only-one-class": {"one-class"},
    "nothing-labelled": {"all-ignored"},
    "smeared_in_range": {"absent-class", "rare-class"},
    "much_ignored": {"rare-class"},
    "missing_photo": {"orphan-mask"},
}


def test_a_fault_of_every_kind_is_planted() -> None:
    assert set(PLANTED) == set(KINDS)


@pytest.mark.parametrize(
    ("code", "plant"), [(code, plant) for code, plants in PLANTED.items() for plant in plants]
)
def test_the_planted_fault_is_found_and_no_other(
    tmp_path: Path, code: str, plant: Callable[[Path], None]
) -> None:
    root = make_folder(tmp_path / "set")
    plant(root)
    report = look(root)
    companions = COMPANIONS.get(code, set()) | COMPANIONS.get(plant.__name__, set())
    assert codes(report) - companions == {code}
    fault = next(fault for fault in report.faults if fault.code == code)
    if code == "orphan-mask":
        assert len(report.faults) == len(fault.suspects) == 1
    assert bool(report.stops) == KINDS[code].stops
    if fault.suspects[0].pair >= 0 and code not in COMPANIONS:
        expected = "p09" if code.endswith("across") else "p03"
        assert [Path(suspect.what).stem for suspect in fault.suspects] == [expected]
    assert fault.line in fault.cure
    write_page(report, tmp_path / "page.html")
    assert fault.cure.split("`")[0][:20] in (tmp_path / "page.html").read_text("utf-8")
    if KINDS[code].stops:
        with pytest.raises(DataError, match="the data set is broken"):
            report.raise_if_broken()
    else:
        report.raise_if_broken()


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (rgb, r"into the order of background, cat, dog: colours = \[\[0, 0, 0\], "),
        (colours, r"Unknown are: \[224, 224, 192\]\."),
        (ids, r"Seen in these masks: 0, 1, 7, 255\."),
        (ignored_foreground, r"Write values = \[0, 255\] and ignore = \[\]"),
        (white_among_ones, r"Write values = \[0, \[1, 255\]\] and ignore = \[\]"),
        (split_overlap, r"train = 0\.8 and val = 0\.2"),
    ],
)
def test_the_line_to_write_is_told(
    tmp_path: Path, plant: Callable[[Path], None], words: str
) -> None:
    root = make_folder(tmp_path / "set")
    plant(root)
    with pytest.raises(DataError, match=words):
        look(root).raise_if_broken()


def test_the_line_that_is_told_helps(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    white_among_ones(root)
    describe(root, "values = [0, [1, 255]]\nignore = []\n")
    assert look(root).faults == ()
    assert open_dataset(root)[3].label.max() == 1


def test_a_clean_set_passes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = make_folder(tmp_path / "set")
    report = check(
        [open_dataset(root, split=split) for split in ("train", "val")],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert report.faults == ()
    assert seen == [(done, 10) for done in range(1, 11)]
    report.raise_if_broken()
    assert report.crop_size == (49, 65)
    assert report.splits[0].median_size == (HEIGHT, WIDTH)
    labels = [label(index) for index in range(8)]
    assert report.splits[0].counts.pixels.tolist() == [
        sum(int((one == index).sum()) for one in labels) for index in range(3)
    ]


def test_rgb_and_by_colour_sets_pass(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    describe(root, COLOURS + "ignore_colours = [[224, 224, 192]]\n" + 'encoding = "colour"\n')
    for index in range(10):
        reordered(root, index) if index % 2 else Image.fromarray(PALETTE[label(index)]).save(
            mask(root, index)
        )
    assert look(root).faults == ()


def test_masks_that_were_turned_with_their_photos_pass(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    save_with_orientation(root, 3, 6)
    write_mask(mask(root, 3), np.rot90(label(3), -1).copy(), PALETTE)
    assert look(root).faults == ()
    assert open_dataset(root)[3].image.shape == (WIDTH, HEIGHT, 3)


def test_the_report_as_json_and_page(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "se<t&")
    ids(root)
    same_photo_across(root)
    report = look(root)
    report.save_json(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert saved["stops_training"] is True
    assert saved["classes"] == ["background", "cat", "dog"]
    assert [fault["code"] for fault in saved["faults"]] == ["ids", "same-photo-across"]
    assert saved["faults"][0]["suspects"][0]["what"].endswith("p03.png")
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Do not train on this yet: 1 fault stops it." in page
    faults, pairs = page.split("<section id='pairs'>")
    assert faults.count("data:image/webp;base64,") == 4
    assert pairs.count("<figure") == 10
    assert pairs.count("data:image/webp;base64,") >= 20
    assert "se&lt;t&amp;" in page
    assert "<t&" not in page
    assert "http" not in page


def test_the_page_of_a_sound_set_shows_its_pairs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    root = make_folder(tmp_path / "set", pairs=40)
    for index in range(32):  # the third class is in one photo alone
        if index != 17:
            values = np.where(label(index) == 2, 0, label(index)).astype(np.uint8)
            write_mask(mask(root, index), values, PALETTE)
    report = look(root)
    assert 17 in report.splits[0].examples
    assert [len(split.examples) for split in report.splits] == [12, 8]
    write_page(report, tmp_path / "page.html")
    pairs = (tmp_path / "page.html").read_text("utf-8").split("<section id='pairs'>")[1]
    assert pairs.count("data:image/webp;base64,") == 12 * 4 + 8 * 2
    assert "crops of 49 × 65" in pairs
    for name in ("background", "cat", "dog", "(ignored)"):
        assert f"</span>{name}</span>" in pairs


def test_the_error_names_fault_file_and_cure(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    ids(root)
    with pytest.raises(DataError, match=r"train: masks with values .* \(p03\.png: .*7.* `values`"):
        look(root).raise_if_broken()


def test_splits_must_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split"):
        check([])
    root, other = make_folder(tmp_path / "set"), make_folder(tmp_path / "other")
    absent_class(other)
    with pytest.raises(InputError, match="different classes"):
        check([open_dataset(root), open_dataset(other)])


# -- its parts -----------------------------------------------------------------------------------


def test_median_frequency_weights_equal_their_definition() -> None:
    draw = np.random.default_rng(0)
    labels = [draw.choice([0, 1, 2, 255], (9, 9), p=p).astype(np.uint8) for p in (
        [0.5, 0.5, 0, 0], [0.2, 0.1, 0.6, 0.1], [0.9, 0, 0.1, 0],
    )]  # fmt: skip
    counts = ClassCounts.none(4)
    for one in labels:
        counts += ClassCounts.of(np.bincount(one.ravel(), minlength=256), 4)
    frequency = []
    for index in range(3):
        showing = [one for one in labels if (one == index).any()]
        frequency.append(
            sum((one == index).sum() for one in showing)
            / sum((one != 255).sum() for one in showing)
        )
    expected = np.median(frequency) / np.array(frequency)
    assert np.allclose(counts.median_frequency_weights(), [*expected, 1.0])
    assert counts.ignored_share == sum((one == 255).sum() for one in labels) / 243


def test_near_pairs_equal_brute_force() -> None:
    draw = np.random.default_rng(0)
    base = draw.integers(0, 65536, (30, 16)).astype(np.uint16)
    for index in range(15, 30):  # copies with a growing number of flipped bits
        bits = np.unpackbits(base[index - 15].view(np.uint8))
        bits[draw.choice(256, index - 14, replace=False)] ^= 1
        base[index] = np.packbits(bits).view(np.uint16)
    hashes = [None, *base]
    bits = np.unpackbits(base.view(np.uint8), axis=1)
    for near in (1, 7, 12, 15):
        distance = (bits[:, None] != bits[None]).sum(-1)
        expected = [(i + 1, j + 1) for i, j in np.argwhere(distance <= near) if i < j]
        assert list(map(tuple, find_near(hashes, near=near).tolist())) == expected


def test_each_picture_gets_its_nearest_of_each_split() -> None:
    draw = np.random.default_rng(0)
    base = np.zeros((30, 16), np.uint16)
    for row in base:
        row[draw.integers(0, 16, 4)] = 1 << draw.integers(0, 16, 4)
    splits = draw.integers(0, 3, 30).tolist()
    bits = np.unpackbits(base.view(np.uint8), axis=1)
    distance = (bits[:, None] != bits[None]).sum(-1)
    chosen = nearest(find_near(list(base), near=5), list(base), splits)
    for j in range(30):
        for split in range(3):
            close = [i for i in range(j) if splits[i] == split and distance[i, j] <= 5]
            mine = [i for i, other in chosen if other == j and splits[i] == split]
            assert mine == ([min(close, key=lambda i: (distance[i, j], i))] if close else [])


def test_a_camera_that_stands_still_costs_no_square() -> None:
    draw = np.random.default_rng(0)
    scene = draw.integers(0, 65536, 16).astype(np.uint16)
    flips = np.uint16(1) << draw.integers(0, 16, (5_000, 16)).astype(np.uint16)
    frames = scene ^ np.where(draw.random((5_000, 16)) < 0.2, flips, 0).astype(np.uint16)
    start = time.process_time()
    pairs = find_near(list(frames))
    found = nearest(pairs, list(frames), [0] * 4_000 + [1] * 1_000)
    assert time.process_time() - start < 20  # 2 seconds
    assert len(pairs) < 130 * len(frames)
    across = {j for i, j in found if i < 4_000 <= j}
    assert len(across) > 0.95 * 1_000  # a frame of val is found to be like one of train


def test_pictures_without_a_hash_are_like_none() -> None:
    assert len(find_near([None, None])) == 0
    assert nearest(find_near([None]), [None], [0]) == []


def test_pictures_of_one_colour_have_no_hash() -> None:
    assert perceptual_hash(Image.new("RGB", (50, 50), (9, 9, 9))) is None


# -- the real sets -------------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["camvid", "voc"])
def test_the_real_sets_pass(reference: Path, name: str) -> None:
    root = reference / "data" / name
    splits = ("train", "val") if name == "camvid" else ("val",)
    report = check([open_dataset(root, split=split) for split in splits])
    assert report.stops == ()
    if name == "camvid":
        assert report.crop_size == (369, 481)
        assert codes(report) == {"near-photo"}  # the car waits at a light
    else:
        assert report.splits[0].dataset.labels == VOC
        assert codes(report) == {"absent-class", "rare-class"}
