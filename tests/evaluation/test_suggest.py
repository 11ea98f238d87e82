"""What to label next: unlike photos first, none twice, and the page shows them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import LabelSet, Segmenter, cli
from deeplab.errors import InputError
from deeplab.evaluation.suggest import choose, describe_logits, suggest
from tiny_tflite import tiny_network

NAMES = ("ground", "cat", "dog", "tree")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Return nine photos: three kinds of colour, each three times, nearly the same."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(1)
    made = []
    for kind, colour in enumerate(([250, 20, 20], [20, 250, 20], [20, 20, 250])):
        for number in range(3):
            noise = draw.normal(0, 6, (40, 50, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            made.append(folder / f"{kind}-{number}.png")
            Image.fromarray(picture).save(made[-1])
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33))
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    return path


def test_one_of_each_kind_before_a_second_of_any(photos: list[Path], model: Path) -> None:
    segmenter = Segmenter(model, labels=LabelSet(NAMES))
    seen: list[tuple[int, int]] = []
    found = suggest(photos, segmenter, count=9, progress=lambda *part: seen.append(part))
    assert seen == [(number, 9) for number in range(1, 10)]
    kinds = [one.photo.name[0] for one in found.chosen]
    assert {*kinds[:3]} == {"0", "1", "2"}
    assert len({one.photo for one in found.chosen}) == 9
    novelty = [one.novelty for one in found.chosen]
    assert novelty[1:] == sorted(novelty[1:], reverse=True)
    assert found.chosen[0].uncertainty == max(one.uncertainty for one in found.chosen)
    again = suggest(photos, segmenter, count=1, labelled=[photos[0], photos[3]])
    assert again.chosen[0].photo.name[0] == "2"


def test_uncertainty_counts_where_it_is_asked_for() -> None:
    features = np.array([[0.0, 0.0], [1.0, 0.1], [0.9, 1.0], [3.0, 3.0]])
    unsure = np.array([0.9, 0.8, 0.01, 0.01])
    assert [index for index, _ in choose(unsure, features, count=2)] == [0, 3]
    assert [index for index, _ in choose(unsure, features, count=2, power=5)] == [0, 1]
    assert choose(unsure, features, count=9)[0][0] == 0
    alike, _ = describe_logits(np.zeros((5, 4)))
    sure, _ = describe_logits(np.array([[50.0, 0, 0, 0]] * 5))
    assert (alike, round(sure, 6)) == (pytest.approx(1), 0)


def test_the_command_writes_list_and_page(
    photos: list[Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos[0].parent
    told = ["-m", model, "--labels", tmp_path / "labels.txt", "--normalisation", "-1..1"]
    files = ["-o", tmp_path / "next.txt", "--page", tmp_path / "next.html"]
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    line = ["data", "suggest", folder, "--count", 3, *told, *files]
    assert cli.run([str(part) for part in line]) == 1
    said = capsys.readouterr()
    assert "broken.png" in said.err
    listed = (tmp_path / "next.txt").read_text().splitlines()
    assert len(listed) == 3
    assert all(path in said.out for path in listed)
    page = (tmp_path / "next.html").read_text()
    assert len(re.findall("<img ", page)) == 6
    assert all(path in page for path in listed)
    line = ["data", "suggest", folder, "--labelled", folder, *told]
    assert cli.run([str(part) for part in line]) == 2
    assert "among the labelled ones" in capsys.readouterr().err


def test_a_model_that_is_never_unsure(photos: list[Path], model: Path) -> None:
    segmenter = Segmenter(model, labels=LabelSet(NAMES))
    segmenter.card = dataclasses.replace(segmenter.card, output="label map")
    with pytest.raises(InputError, match="does not say how sure it is"):
        suggest(photos, segmenter)
