"""Several data sets as one, and some pairs more often than others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.data import FileDataset, open_dataset
from deeplab.data.repeats import RepeatedDataset
from deeplab.data.sample import join
from deeplab.errors import DataError
from deeplab.training.balance import repeat_factors


def make(folder: Path, masks: list[list[int]], names: str = "sky\nroad\ncar") -> FileDataset:
    """Write one photo per list of the class ids that it shows."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, shown in enumerate(masks):
        label = np.resize(np.array(shown, np.uint8), (8, 8))
        Image.fromarray(np.stack([label * 50] * 3, -1)).save(folder / "images" / f"{index}.png")
        Image.fromarray(label).save(folder / "masks" / f"{index}.png")
    (folder / "labels.txt").write_text(names)
    return open_dataset(folder, split="all")


def test_rare_classes_are_drawn_by_the_root_of_their_rarity(tmp_path: Path) -> None:
    # Of 16 pictures all show the sky, four a road and one of these, and one more, a car.
    masks = [[0]] * 11 + [[0, 1]] * 3 + [[0, 1, 2], [0, 2, 255]]
    dataset = make(tmp_path, masks)
    road, car = np.sqrt(1 / (4 / 16)), np.sqrt(1 / (2 / 16))
    wanted = np.array([1.0] * 11 + [road] * 3 + [car, car])
    order = [int(name) for name in dataset.ids]  # by name: 0, 1, 10, 11, …
    np.testing.assert_allclose(repeat_factors(dataset, 1.0), wanted[order])
    half = np.array([1.0] * 14 + [car / 2] * 2)
    np.testing.assert_allclose(repeat_factors(dataset, 0.25), half[order])
    np.testing.assert_array_equal(repeat_factors(dataset, 0.01), 1)


def test_repeats_follow_their_factors_and_the_seed(tmp_path: Path) -> None:
    dataset = make(tmp_path, [[0], [1], [2]] * 40)
    factors = np.tile([1.0, 2.5, 0.0], 40)
    repeated = RepeatedDataset(dataset, factors, seed=3)
    times = [list(repeated.ids).count(name) for name in dataset.ids]
    assert set(times[::3]) == {1}
    assert set(times[1::3]) == {2, 3}
    assert set(times[2::3]) == {0}
    assert 85 < sum(times[1::3]) < 115
    assert len(repeated) == len(repeated.images) == len(repeated.masks) == sum(times)
    for index in (0, 1, len(repeated) - 1):
        sample = repeated[index]
        assert sample.id == repeated.ids[index] == repeated.images[index].stem
        np.testing.assert_array_equal(sample.label, dataset[dataset.ids.index(sample.id)].label)
    assert RepeatedDataset(dataset, factors, seed=3).ids == repeated.ids
    assert RepeatedDataset(dataset, factors, seed=4).ids != repeated.ids


def test_data_sets_of_the_same_classes_are_joined(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", [[0], [1]]), make(tmp_path / "two", [[2]])
    both = join([one, two])
    assert len(both) == 3
    assert both.images == (*one.images, *two.images)
    assert both[2].label.max() == 2
    assert (both.root, both.split) == (one.root, "all")
    assert join([one]) == one


def test_other_classes_are_not_joined(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", [[0]]), make(tmp_path / "two", [[0]], "sky\ncar\nroad")
    with pytest.raises(DataError, match=r"two: its classes or mask values are not those of .*one"):
        join([one, two])
