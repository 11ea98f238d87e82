"""Every layout is recognised and read; what is not says what was looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.data import IGNORE, FileDataset, list_splits, open_dataset
from deeplab.data.description import Description, read_description, write_description
from deeplab.data.masks import MaskEncoding, open_mask, read_mask, write_mask
from deeplab.errors import DataError, DeepLabError, InputError
from deeplab.labels import CAMVID, CITYSCAPES, VOC


def save_photo(path: Path, height: int = 4, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 20, 30)).save(path)


def save_mask(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def six(*values: int) -> list[list[int]]:
    return [list(values) for _ in range(4)]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000001", "2007_000002"):
        save_photo(root / "JPEGImages" / f"{name}.jpg")
        save_mask(root / "SegmentationClass" / f"{name}.png", six(0, 0, 15, 15, 255, 20))
        save_mask(root / "SegmentationClassAug" / f"{name}.png", six(0, 0, 1, 1, 1, 1))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n")
    (lists / "trainaug.txt").write_text("2007_000002\n")
    (lists / "pairs.txt").write_text(
        "/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png\n"
    )
    (lists / "none.txt").write_text("\n")
    return tmp_path / "VOCdevkit"


def test_voc(voc: Path) -> None:
    dataset = open_dataset(voc)
    assert (dataset.layout, dataset.split, len(dataset)) == ("voc", "train", 2)
    assert dataset.labels == VOC
    sample = dataset[1]
    assert sample.id == "2007_000002"
    assert sample.image.shape == (4, 6, 3)
    assert sample.label[0].tolist() == [0, 0, 15, 15, 255, 20]
    assert list_splits(voc) == ("none", "pairs", "train", "trainaug")


def test_voc_takes_the_larger_masks_for_the_larger_list(voc: Path) -> None:
    for spelling in ("trainaug", "train_aug"):
        assert open_dataset(voc, split=spelling)[0].label[0].tolist() == [0, 0, 1, 1, 1, 1]
    assert open_dataset(voc, split="pairs")[0].label[0, 2] == 1


def test_voc_with_an_empty_or_unknown_list(voc: Path) -> None:
    with pytest.raises(DataError, match="the list is empty"):
        open_dataset(voc, split="none")
    with pytest.raises(DataError, match="Did you mean 'train'"):
        open_dataset(voc, split="tain")


def test_cityscapes_maps_label_ids(tmp_path: Path) -> None:
    city = "train/aachen/aachen_000000_000019"
    save_photo(tmp_path / "leftImg8bit" / f"{city}_leftImg8bit.png")
    save_mask(tmp_path / f"gtFine/{city}_gtFine_labelIds.png", six(7, 8, 33, 0, 29, 255))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "cityscapes"
    assert dataset.labels.names == CITYSCAPES.names
    assert dataset.ids == ("aachen/aachen_000000_000019",)
    assert dataset[0].label[0].tolist() == [0, 1, 18, 255, 255, 255]
    save_mask(tmp_path / f"gtFine/{city}_gtFine_labelTrainIds.png", six(0, 1, 18, 255, 2, 3))
    assert open_dataset(tmp_path)[0].label[0].tolist() == [0, 1, 18, 255, 2, 3]


def test_ade20k_ignores_zero(tmp_path: Path) -> None:
    for folder in ("training", "validation"):
        save_photo(tmp_path / "images" / folder / "ADE_1.jpg")
        save_mask(tmp_path / "annotations" / folder / "ADE_1.png", six(0, 1, 2, 3, 3, 3))
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t1\t1\t1\twall\n"
        "2\t0.1\t1\t1\t1\tbuilding, edifice\n3\t0.1\t1\t1\t1\twall\n"
    )
    dataset = open_dataset(tmp_path, split="val")
    assert dataset.layout == "ade20k"
    assert dataset.labels.names == ("wall", "building", "wall 2")
    assert dataset[0].label[0].tolist() == [255, 0, 1, 2, 2, 2]


def test_camvid_ignores_eleven(tmp_path: Path) -> None:
    save_photo(tmp_path / "train" / "a.png")
    save_mask(tmp_path / "trainannot" / "a.png", six(0, 1, 10, 11, 11, 11))
    save_mask(tmp_path / "trainannot" / "b.png", six(0, 1, 10, 11, 11, 11))
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "camvid"
    assert dataset.labels.names == CAMVID.names
    assert dataset.labels.ignore_index == IGNORE
    assert dataset[0].label[0].tolist() == [0, 1, 10, 255, 255, 255]
    assert [path.name for path in dataset.orphans] == ["b.png"]


# -- any folder ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(10):
        save_photo(tmp_path / "images" / f"{index}.jpg")
        save_mask(tmp_path / "masks" / f"{index}.png", six(0, 0, 1, 1, 2, 255))
    (tmp_path / "labels.txt").write_text("background\ncat\ndog\n")
    return tmp_path


def test_a_folder_needs_no_more_than_names(folder: Path) -> None:
    train, val = open_dataset(folder), open_dataset(folder, split="val")
    assert list_splits(folder) == ("train", "val", "all")
    assert (len(train), len(val)) == (8, 2)
    assert sorted(train.ids + val.ids) == [str(index) for index in range(10)]
    assert train.labels.background == 0
    assert train[0].label[0].tolist() == [0, 0, 1, 1, 2, 255]
    assert open_dataset(folder).ids == train.ids


def test_lists_and_folders_make_splits(folder: Path) -> None:
    (folder / "train.txt").write_text("3\n1.jpg\n\n")
    (folder / "val.txt").write_text("2\n")
    assert open_dataset(folder).ids == ("3", "1")
    assert list_splits(folder) == ("train", "val", "all")
    save_photo(folder / "images" / "night" / "a.jpg")
    save_mask(folder / "masks" / "night" / "a.png", six(0, 0, 1, 1, 2, 255))
    (folder / "dataset.toml").write_text(
        'classes = ["background", "cat", "dog"]\n[splits]\n'
        'dark = "night"\nthree = ["1", "2", "3"]\nrest = 0.5\n'
    )
    assert open_dataset(folder, split="dark").ids == ("night/a",)
    assert open_dataset(folder, split="dark")[0].label[0, 4] == 2
    assert open_dataset(folder, split="three").ids == ("1", "2", "3")
    rest = open_dataset(folder, split="rest").ids  # half of the seven that are left
    assert len(rest) == 4
    assert not {*rest} & {"night/a", "1", "2", "3"}


def test_without_names_the_values_are_shown(folder: Path) -> None:
    (folder / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"holds the values 0, 1, 2, 255"):
        open_dataset(folder)


def described(folder: Path, text: str) -> FileDataset:
    (folder / "dataset.toml").write_text(text)
    return open_dataset(folder, split="all")


def test_values_of_binary_masks(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        save_mask(path, six(0, 0, 0, 255, 255, 255))
    dataset = described(folder, 'classes = ["no", "yes"]\nvalues = [0, 255]\nignore = []\n')
    assert dataset[0].label[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_rgb_masks_by_colour(folder: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [1, 2, 3]], np.uint8)
    for path in (folder / "masks").iterdir():
        Image.fromarray(colours[np.array(six(0, 0, 1, 1, 2, 2))]).save(path)
    text = 'classes = ["red", "green"]\ncolours = [[255, 0, 0], [0, 255, 0]]\n'
    dataset = described(folder, text + "ignore_colours = [[1, 2, 3]]\n")
    assert dataset[0].label[0].tolist() == [0, 0, 1, 1, 255, 255]
    with pytest.raises(DataError, match=r"33\.3 % of the pixels have a colour .*\(1, 2, 3\)"):
        described(folder, text)[0]
    with pytest.raises(DataError, match="names no colours"):
        described(folder, 'classes = ["red", "green"]')[0]


def test_palette_masks_by_index_or_by_colour(folder: Path) -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[:2] = [[0, 255, 0], [255, 0, 0]]  # the other way round
    for path in (folder / "masks").iterdir():
        write_mask(path, np.array(six(0, 0, 0, 1, 1, 1), np.uint8), palette)
    text = 'classes = ["red", "green"]\ncolours = [[255, 0, 0], [0, 255, 0]]\n'
    assert described(folder, text)[0].label[0].tolist() == [0, 0, 0, 1, 1, 1]
    by_colour = described(folder, text + 'encoding = "colour"\n')
    assert by_colour[0].label[0].tolist() == [1, 1, 1, 0, 0, 0]


def test_mask_suffix(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.rename(path.with_name(path.stem + "_mask.png"))
    dataset = described(folder, 'classes = ["a", "b", "c"]\nmask_suffix = "_mask"\n')
    assert dataset[0].label[0, 4] == 2
    assert dataset.orphans == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = [", "is not TOML"),
        ('clases = ["a"]', r"unknown key 'clases'\. Did you mean 'classes'"),
        ('classes = ["a"]\nvalues = { a = "x" }', "expected whole numbers"),
        ('classes = ["a", "b"]\nvalues = { a = 1 }', "nothing is said of b"),
        ('classes = ["a", "b"]\nvalues = { a = 1, B = 2, b = 3 }', "Did you mean 'b'"),
        ('classes = ["a"]\nvalues = [[]]', "at least one value"),
        ('classes = ["a"]\ntransparent = "b"', "no class 'b'"),
        ("classes = [1]", "expected a list of texts"),
        ('classes = ["a", "a"]', "occur twice"),
        ('classes = ["a"]\nvalues = [1, 2]', "2 values for 1 classes"),
        ('classes = ["a", "b"]\nvalues = [1, 255]', "255 has two meanings"),
        ('classes = ["a"]\ncolours = [[0, 0, 256]]', "each 0 to 255"),
        ('classes = ["a"]\nencoding = "rgb"', "'value' or 'colour'"),
        ('classes = ["a"]\nencoding = "colour"', "needs one colour per class"),
        ('classes = ["a"]\nbackground = "b"', "no class 'b'"),
        ('classes = ["a"]\n[splits]\ntrain = 2.0', r"splits\.train: got 2\.0"),
        ('classes = ["a"]\n[splits]\nx = 0.6\ny = 0.7', "more than 1"),
        ('classes = ["a"]\n[splits]\nx = "nowhere"', "neither a list"),
        ('classes = ["a"]\nimages = "pics"', "no folder pics/"),
    ],
)
def test_wrong_descriptions_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "dataset.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(folder, split="x" if "x =" in text else "train")


def test_a_description_survives_writing(tmp_path: Path) -> None:
    description = Description(
        classes=("weiß", 'quo"ted', "c\\d"),
        values=(0, 3, 7),
        colours=((0, 0, 0), (1, 2, 3), (4, 5, 6)),
        ignore=(255, 9),
        mask_suffix="_m",
        splits={"train": "train.txt", "val": ("a", "b"), "my split": 0.5},
    )
    write_description(tmp_path / "dataset.toml", description)
    assert read_description(tmp_path / "dataset.toml") == description


# -- reading -------------------------------------------------------------------------------------


def test_unknown_folders_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"voc: JPEGImages/[\s\S]*folder: images/ and masks/"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_broken_pairs_are_refused_by_name(folder: Path) -> None:
    dataset = open_dataset(folder, split="all")
    save_mask(folder / "masks" / "0.png", six(0, 0, 1, 1, 2, 9))
    save_mask(folder / "masks" / "1.png", [[0, 1]])
    (folder / "masks" / "2.png").write_bytes(b"\x89PNG no")
    (folder / "masks" / "3.png").unlink()
    Image.new("L", (6, 4)).save(folder / "masks" / "4.png", format="JPEG")
    (folder / "images" / "5.jpg").unlink()
    messages = [
        r"0\.png: 16\.7 % .* \(9\); expected 0 to 2 or 255",
        "1×2 pixels, its photo 4×6",
        r"2\.png: the mask cannot be read",
        "no such mask",
        "JPEG file, which smears",
        "no such file",
    ]
    for index, message in enumerate(messages):
        with pytest.raises(DeepLabError, match=message):
            dataset[index]
    assert dataset[6].id == "6"


def test_masks_of_every_mode(tmp_path: Path) -> None:
    values = np.array(six(0, 1, 2, 2, 1, 0), np.uint8)
    encoding = MaskEncoding(values=(0, 1, 2))
    path = tmp_path / "mask.png"
    Image.fromarray(values).save(path)
    assert np.array_equal(read_mask(path, encoding), values)
    Image.fromarray(values.astype(np.uint16)).save(path)
    assert np.array_equal(read_mask(path, encoding), values)
    Image.fromarray(values).convert("LA").save(path)
    assert np.array_equal(read_mask(path, encoding), values)
    write_mask(path, values, VOC.palette)
    assert np.array_equal(read_mask(path, encoding), values)
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "mask.tif")
    assert np.array_equal(read_mask(tmp_path / "mask.tif", encoding), values)
    Image.fromarray(values > 0).save(path)
    assert np.array_equal(read_mask(path, encoding), values > 0)
    Image.fromarray(values.astype(np.uint16) * 300).save(path)
    with pytest.raises(DataError, match="300, 600"):
        read_mask(path, encoding)
    assert open_mask(path).pixels.max() == 600


def test_encodings_with_two_meanings_are_refused() -> None:
    with pytest.raises(InputError, match="1 has two meanings"):
        MaskEncoding(values=(0, 1, 1))
    with pytest.raises(InputError, match="expected 1 to 254"):
        MaskEncoding(values=())
    with pytest.raises(InputError, match="0 to 65535"):
        MaskEncoding(values=(0, 65536))
    with pytest.raises(InputError, match="1 colours for 2"):
        MaskEncoding(values=(0, 1), colours=((0, 0, 0),))


# -- the real sets -------------------------------------------------------------------------------


@pytest.mark.reference
def test_the_real_sets_open(reference: Path) -> None:
    for name, split, count in (("voc", "train", 3131), ("voc", "val", 150), ("camvid", "val", 101)):
        dataset = open_dataset(reference / "data" / name, split=split)
        assert (dataset.layout, len(dataset)) == (name, count)
        for index in (0, count // 2, count - 1):
            sample = dataset[index]
            assert sample.image.shape[:2] == sample.label.shape
            assert set(np.unique(sample.label)) <= {*range(len(dataset.labels)), IGNORE}
