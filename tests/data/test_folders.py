"""Folders as people and tools leave them: names, places, lists and shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab.data import FileDataset, list_splits, open_dataset
from deeplab.data.pairing import Affixes, find_affixes
from deeplab.errors import DataError
from tiny_folder import label, make_folder, photo

NAMES = ("background", "cat", "dog")


def save_pair(photo_path: Path, mask_path: Path, seed: int) -> None:
    for path, array in ((photo_path, photo(seed)), (mask_path, label(seed))):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def write_names(folder: Path, name: str = "labels.txt") -> None:
    (folder / name).write_text("\n".join(NAMES) + "\n")


def check_pairs(dataset: FileDataset, seeds: dict[str, int]) -> None:
    """Every photo has the mask that was drawn for it."""
    assert {*dataset.ids} == {*seeds}
    for sample in dataset:
        assert np.array_equal(sample.label, label(seeds[sample.id]))
    assert dataset.orphans == ()


# -- names ---------------------------------------------------------------------------------------

FIELDS = [
    ("", "", "", "_mask"), ("", "", "", "_L"), ("", "", "", "-seg"), ("", "", "", "_labelIds"),
    ("", "", "mask_", ""), ("img_", "", "mask_", ""), ("", "_leftImg8bit", "", "_gtFine_labelIds"),
    ("", "_rgb", "", "_label"), ("photo-", "", "", "_gt"), ("", ".photo", "", ".mask"),
]  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS)
def test_what_stands_around_names_is_found_and_said(tmp_path: Path, fields: tuple[str]) -> None:
    affixes = Affixes(*fields)
    seeds = {}
    for index, key in enumerate(("day/7", "day/12", "night/7", "night/120")):
        folder, last = key.split("/")
        name = f"{folder}/{affixes.image_prefix}{last}{affixes.image_suffix}.jpg"
        save_pair(
            tmp_path / "images" / name, tmp_path / f"masks/{affixes.mask_name(key)}.png", index
        )
        seeds[key] = index
    write_names(tmp_path)
    dataset = open_dataset(tmp_path, split="all")
    check_pairs(dataset, seeds)
    assert dataset.assumed == (f"the mask of {affixes.photo_pattern} is {affixes.mask_pattern}",)
    (tmp_path / "dataset.toml").write_text(affixes.lines.replace(", ", "\n"))
    described = open_dataset(tmp_path, split="all")
    check_pairs(described, seeds)
    assert described.assumed == ()


@settings(max_examples=300, deadline=None)
@given(
    st.sets(st.integers(0, 5000), min_size=2, max_size=40),
    st.sampled_from(FIELDS),
    st.floats(0.6, 1),
    st.booleans(),
)
def test_affixes_are_found_whatever_the_numbers(
    numbers: set[int], fields: tuple[str, ...], kept: float, padded: bool
) -> None:
    affixes = Affixes(*fields)
    keys = [f"{n:04}" if padded else str(n) for n in sorted(numbers)]
    photos = [f"{affixes.image_prefix}{k}{affixes.image_suffix}" for k in keys]
    some = keys[: max(2, int(kept * len(keys)))]
    masks = [affixes.mask_name(key) for key in some]
    found = find_affixes(photos, masks, Path("masks"))
    pairs = {
        found.key_of_photo(photo): photo
        for photo in photos
        if found.key_of_photo(photo) is not None
    }
    for key, mask in zip(some, masks, strict=True):
        photo = f"{affixes.image_prefix}{key}{affixes.image_suffix}"
        assert pairs.get(found.key_of_mask(mask)) == photo


@given(st.sets(st.text("ab1_", min_size=1, max_size=5), max_size=12))
def test_equal_names_need_nothing(names: set[str]) -> None:
    assume(names)
    assert find_affixes(names, names, Path()) == Affixes()


def test_several_masks_for_a_photo_are_refused_with_the_lines(tmp_path: Path) -> None:
    for index in range(4):
        save_pair(tmp_path / f"images/p{index}.jpg", tmp_path / f"masks/p{index}_labelIds.png", 1)
        save_pair(tmp_path / f"images/p{index}.jpg", tmp_path / f"masks/p{index}_color.png", 1)
    write_names(tmp_path)
    with pytest.raises(DataError, match=r'mask_suffix = "_color" or mask_suffix = "_labelIds"'):
        open_dataset(tmp_path)
    (tmp_path / "dataset.toml").write_text('mask_suffix = "_labelIds"\n')
    dataset = open_dataset(tmp_path, split="all")
    assert len(dataset) == 4
    assert dataset.orphans == ()
    assert dataset.passed_over == {"masks that are not called NAME_labelIds": 4}


def test_equal_names_in_folders_stay_apart(tmp_path: Path) -> None:
    seeds = {f"{folder}/a": index for index, folder in enumerate(("day", "night", "rain"))}
    for key, seed in seeds.items():
        save_pair(tmp_path / f"images/{key}.jpg", tmp_path / f"masks/{key}.png", seed)
    write_names(tmp_path)
    check_pairs(open_dataset(tmp_path, split="all"), seeds)


# -- places --------------------------------------------------------------------------------------

PLACES = {
    "other words": ("imgs/{name}.jpg", "annotations/{name}.png"),
    "voc without lists": ("JPEGImages/{name}.jpg", "SegmentationClassPNG/{name}.png"),
    "split first": ("{split}/images/{name}.jpg", "{split}/masks/{name}.png"),
    "split last": ("images/{split}/{name}.jpg", "masks/{split}/{name}.png"),
    "long words": ("images/{long}/{name}.jpg", "annotations/{long}/{name}.png"),
    "two trees": ("{split}/{name}.jpg", "{split}_labels/{name}_L.png"),
    "side by side": ("{split}/{name}.jpg", "{split}/{name}_mask.png"),
    "flat": ("{name}.jpg", "{name}_seg.png"),
    "flat by ending": ("{name}.jpg", "{name}.png"),
}


@pytest.mark.parametrize("place", PLACES)
def test_photos_and_masks_are_found_where_they_are(tmp_path: Path, place: str) -> None:
    seeds = {}
    for index in range(8):
        split, long = ("train", "training") if index < 6 else ("val", "validation")
        words = {"split": split, "long": long, "name": f"p{index}"}
        image, mask = (pattern.format(**words) for pattern in PLACES[place])
        save_pair(tmp_path / image, tmp_path / mask, index)
        seeds[f"p{index}"] = index
    write_names(tmp_path)
    found = {}
    for split in ("train", "val"):
        dataset = open_dataset(tmp_path, split=split)
        if "{split}" in PLACES[place][0] or "{long}" in PLACES[place][0]:
            assert len(dataset) == (6 if split == "train" else 2)
        for sample in dataset:
            seed = seeds[sample.id.split("/")[-1]]
            assert np.array_equal(sample.label, label(seed))
            found[sample.id] = seed
    assert len(found) == 8
    assert bool(dataset.assumed) == (place not in ("split last",))


def test_photos_alone_are_no_data_set(tmp_path: Path) -> None:
    for index in range(4):
        save_pair(tmp_path / f"p{index}.jpg", tmp_path / "elsewhere.png", index)
    (tmp_path / "elsewhere.png").unlink()
    for name in ("", "classes.txt"):  # with names of classes it may be an export for YOLO
        if name:
            write_names(tmp_path, name)
        with pytest.raises(DataError, match="no known layout"):
            open_dataset(tmp_path)
    (tmp_path / "dataset.toml").write_text("")
    with pytest.raises(DataError, match=r'nothing tells its photos .* mask_suffix = "_mask"'):
        open_dataset(tmp_path)


def test_masks_beside_photos_do_not_count_as_photos(tmp_path: Path) -> None:
    for index in range(4):
        save_pair(tmp_path / f"t/p{index}.jpg", tmp_path / f"t/p{index}_mask.png", index)
    save_pair(tmp_path / "elsewhere.jpg", tmp_path / "t/p9_mask.png", 9)
    (tmp_path / "dataset.toml").write_text(
        'classes = ["background", "cat", "dog"]\nimages = "t"\nmasks = "t"\nmask_suffix = "_mask"'
    )
    dataset = open_dataset(tmp_path, split="all")
    assert dataset.ids == ("p0", "p1", "p2", "p3")
    assert [path.name for path in dataset.orphans] == ["p9_mask.png"]


def test_what_is_no_photo_is_counted(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    for name in ("a.nef", "b.nef", "Thumbs.db"):
        (root / "images" / name).write_text("")
    assert open_dataset(root).passed_over == {".nef": 2, ".db": 1}


# -- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "line",
    ["p03", "p03.jpg", "images/p03.jpg", "./images/p03.jpg", "images\\p03.jpg",
     "/home/somebody/set/images/p03.jpg", "images/p03.jpg masks/p03.png",
     "images/p03.jpg,masks/p03.png", "/images/p03.jpg\t/masks/p03.png", "  p03  "],
)  # fmt: skip
def test_lists_call_photos_in_many_ways(tmp_path: Path, encoding: str, line: str) -> None:
    root = make_folder(tmp_path / "set")
    (root / "train.txt").write_text(f"{line}\r\n\r\n", encoding=encoding)
    write_names(root)
    assert open_dataset(root).ids == ("p03",)
    assert np.array_equal(open_dataset(root)[0].label, label(3))


def test_names_of_other_scripts_and_with_spaces(tmp_path: Path) -> None:
    seeds = {"猫 1": 1, "Kätzchen im Schnee": 2, "a.b.c": 3}
    for key, seed in seeds.items():
        save_pair(tmp_path / f"images/{key}.jpg", tmp_path / f"masks/{key}.png", seed)
    write_names(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(seeds), encoding="utf-16")
    check_pairs(open_dataset(tmp_path), seeds)
    (tmp_path / "train.txt").write_bytes("猫狗鱼\n".encode("gbk"))
    with pytest.raises(DataError, match=r"train\.txt: is not text in UTF-8 .*GBK"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("rule", ["../list.txt", "/etc/hostname", "link.txt", "up/list.txt"])
def test_lists_outside_the_data_set_are_never_read(tmp_path: Path, rule: str) -> None:
    root = make_folder(tmp_path / "set")
    (tmp_path / "list.txt").write_text("secret\n")
    (root / "link.txt").symlink_to(tmp_path / "list.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "dataset.toml").write_text(f'[splits]\ntrain = "{rule}"\n')
    with pytest.raises(DataError, match="expected a list or folder inside") as caught:
        open_dataset(root)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("line", ["../../etc/passwd", "a\x1b[31m", "x" * 2000])
def test_lists_hold_only_names(tmp_path: Path, line: str) -> None:
    root = make_folder(tmp_path / "set")
    (root / "train.txt").write_text(f"p00\n{line}\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: ") as caught:
        open_dataset(root)
    assert line not in str(caught.value)


# -- shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [2, 5, 8])
def test_a_share_takes_from_what_lists_leave(tmp_path: Path, listed: int) -> None:
    root = make_folder(tmp_path / "set")
    names = [f"p{index:02}" for index in range(listed)]
    (root / "train.txt").write_text("\n".join(names))
    (root / "dataset.toml").write_text('[splits]\ntrain = "train.txt"\nval = 0.5\n')
    val = open_dataset(root, split="val")
    assert not {*val.ids} & {*names}
    assert len(val) == round(0.5 * (10 - listed))


def test_a_share_of_nothing_names_the_lines_to_write(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (root / "train.txt").write_text("\n".join(f"p{index:02}" for index in range(10)))
    (root / "dataset.toml").write_text('[splits]\ntrain = "train.txt"\nval = 0.2\n')
    with pytest.raises(DataError, match=r"0\.2 of the 0 photos .* train = 0\.8 and val = 0\.2"):
        open_dataset(root, split="val")
    (root / "dataset.toml").write_text("[splits]\ntrain = 0.8\nval = 0.2\n")
    assert len(open_dataset(root)) == 8
    assert len(open_dataset(root, split="val")) == 2


def test_an_empty_or_missing_val_names_the_lines_to_write(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (root / "val.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"splits\.val: 'val\.txt' holds no names.* val = 0\.2"):
        open_dataset(root, split="val")
    (root / "val.txt").unlink()
    with pytest.raises(DataError, match=r"no split 'val'\. .* train, all\. .* val = 0\.2"):
        open_dataset(root, split="val")


def test_val_has_three_spellings(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (root / "val.txt").rename(root / "valid.txt")
    assert list_splits(root) == ("train", "val", "all")
    for spelling in ("val", "valid", "validation"):
        assert open_dataset(root, split=spelling).ids == ("p08", "p09")


# -- classes -------------------------------------------------------------------------------------


def test_values_and_colours_by_name(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (root / "dataset.toml").write_text("values = { dog = 2, background = 0, cat = [1, 7] }\n")
    dataset = open_dataset(root)
    assert dataset.labels.names == ("background", "cat", "dog")  # labels.txt has the order
    assert dataset.encoding.values == (0, 1, 2)
    assert dataset.encoding.also == ((7, 1),)
    (root / "labels.txt").unlink()
    assert open_dataset(root).labels.names == ("dog", "background", "cat")
    text = "colours = { background = [0, 0, 0], cat = [9, 8, 7] }\n"
    (root / "dataset.toml").write_text(text)
    assert open_dataset(root).labels.colours == ((0, 0, 0), (9, 8, 7))


@pytest.mark.parametrize(
    ("said", "seen"), [("", 0), ("ignore", 255), ("background", 0), ("cat", 1)]
)
def test_transparent_is_what_the_description_says(tmp_path: Path, said: str, seen: int) -> None:
    root = make_folder(tmp_path / "set")
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:] = (0, 128, 0, 0)
    rgba[:9] = (128, 0, 0, 200)
    Image.fromarray(rgba).save(root / "masks" / "p00.png")
    (root / "dataset.toml").write_text(
        'classes = ["background", "cat", "dog"]\ncolours = [[0,0,0],[128,0,0],[0,128,0]]\n'
        + (f'transparent = "{said}"\n' if said else "")
    )
    sample = open_dataset(root)[0]
    assert (sample.label[:9] == 1).all()
    assert (sample.label[9:] == seen).all()


COLOURS = np.array([[0, 0, 0], [250, 50, 83], [61, 61, 245], [255, 255, 255]], np.uint8)
MAPS = {
    "class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncat,250,50,83\n"
    "dog,61,61,245\nVoid,255,255,255\n",
    "labelmap.txt": "# a map\nbackground:0,0,0::\ncat:250,50,83::\n"
    "dog:61,61,245::\nvoid:255,255,255::\n",
    "label_colors.txt": "0 0 0\tbackground\n250 50 83\tcat\n61 61 245\tdog\n255 255 255\tVoid\n",
}


@pytest.mark.parametrize("name", MAPS)
def test_colours_stand_in_files_beside_the_masks(tmp_path: Path, name: str) -> None:
    for index in range(6):
        split = "train" if index < 4 else "val"
        save_pair(tmp_path / f"{split}/p{index}.png", tmp_path / "unused.png", index)
        (tmp_path / f"{split}_labels").mkdir(exist_ok=True)
        ids = np.where(label(index) == 255, 3, label(index))
        Image.fromarray(COLOURS[ids]).save(tmp_path / f"{split}_labels/p{index}_L.png")
    (tmp_path / name).write_text(MAPS[name])
    for split, seeds in (("train", range(4)), ("val", (4, 5))):
        dataset = open_dataset(tmp_path, split=split)
        assert dataset.labels.names == NAMES
        check_pairs(dataset, {f"{split}/p{seed}": seed for seed in seeds})


@pytest.mark.parametrize("layout", ["voc", "camvid", "roboflow"])
def test_two_lines_deal_out_what_a_tool_left_in_one_split(tmp_path: Path, layout: str) -> None:
    photos, masks, names = {
        "voc": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "labelmap.txt"),
        "camvid": ("default/{}.png", "defaultannot/{}.png", "label_colors.txt"),
        "roboflow": ("train/{}.jpg", "train/{}_mask.png", "train/_classes.csv"),
    }[layout]
    for index in range(10):
        image, mask = (tmp_path / pattern.format(f"p{index}") for pattern in (photos, masks))
        save_pair(image, mask, index)
        if layout != "roboflow":
            Image.fromarray(COLOURS[np.where(label(index) == 255, 3, label(index))]).save(mask)
    text = MAPS.get(names, "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    (tmp_path / names).write_text(text)
    if layout == "voc":
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
        listed = "".join(f"p{index}\n" for index in range(10))
        (tmp_path / "ImageSets/Segmentation/default.txt").write_text(listed)
    assert open_dataset(tmp_path, split=list_splits(tmp_path)[0]).layout == layout
    with pytest.raises(DataError, match=r"no split 'val'.* train = 0\.8 and val = 0\.2"):
        open_dataset(tmp_path, split="val")
    (tmp_path / "dataset.toml").write_text("[splits]\ntrain = 0.8\nval = 0.2\n")
    train, val = open_dataset(tmp_path), open_dataset(tmp_path, split="val")
    assert (len(train), len(val)) == (8, 2)
    for sample in (*train, *val):
        assert np.array_equal(sample.label, label(int(sample.id[-1])))
