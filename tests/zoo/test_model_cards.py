"""The cards of our own models: where they are, and that every number in them was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deeplab import cli, zoo
from deeplab.zoo import cards as model_cards
from deeplab.zoo.cards import find_card, read_card

ROOT = Path(__file__).parents[2]
CARDS = sorted((ROOT / "docs/models").glob("*.md"))
MEASURED = [card for card in CARDS if card.with_suffix(".json").exists()]


def by_name(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("card", ROOT / "benchmarks/card.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up() -> dict[str, Any]:
    """Return numbers of which no two are alike."""

    def score(model: str, fit: str, miou: float) -> dict[str, Any]:
        iou = {"background": miou + 0.01, "cat": miou + 0.02, "tv": None}
        return {
            "model": model, "fit": fit, "bytes": 1, "miou": miou,
            "miou_95": [miou - 0.03, miou + 0.04], "pixel_accuracy": miou + 0.05, "iou": iou,
            "subset_miou": miou + 0.06, "subset_miou_95": [miou + 0.001, miou + 0.07],
            "objects": {"count": 569, "two_coloured": round(100 * miou)},
            "protocol": {"input": f"{fit} to 641×641"},
        }  # fmt: skip

    return {
        "model": "voc", "file": "voc.tflite", "sha256": "ab" * 32, "bytes": 2345678,
        "peer": "public", "split": "val21", "pictures": 157,
        "subset": {"classes": ["background", "cat"], "split": "val", "pictures": 98},
        "shown_in": {"background": 156, "cat": 43, "tv": 0},
        "scores": [score("voc", "letterbox", 0.811), score("voc", "stretch", 0.722),
                   score("public", "letterbox", 0.633), score("public", "stretch", 0.644)],
        "difference": {"fit": "stretch", "miou": 0.167, "miou_95": [0.158, 0.179]},
        "worst": [["2007_000001", 0.017]], "machine": "a machine", "engine": "LiteRT 2",
        "rounds": 201, "times_of": "ab" * 32,
        "times": [{"threads": 1, "ms": 20.1, "peer_ms": 40.3, "as_published_ms": 60.5}],
    }  # fmt: skip


def test_the_tables_say_what_was_measured_and_hold_the_places_of_what_was_not(
    script: ModuleType,
) -> None:
    text = script.write_tables(made_up())
    for part in (
        "2,345,678 bytes", "ab" * 32, "157 photos (val21)",
        "2 classes (background, cat) over the 98 photos",
        "| 0.811 | 0.781 to 0.851 | 0.871 | 0.812 to 0.881 | 0.861 | 81 of 569 |",
        "| `public` | stretch to 641×641 | 0.644 |", "+16.7 points (95 %: +15.8 to +17.9",
        "| cat | 43 | 0.831 | 0.664 |", "| tv | 0 | n/a | n/a |",
        "| 1 | 20.1 | 40.3 | 2.00× | 60.5 | 3.01× |", "2007_000001 (0.017)",
    ):  # fmt: skip
        assert part in text, text
    assert "earlier file" not in text
    assert "earlier file of the same graph" in script.write_tables(made_up() | {"times_of": "cd"})
    page = f"# A\n\nprose\n\n{script.BEGIN}\nold\n{script.END}\n\nmore\n"
    once = script.fill(page, text)
    assert once.startswith("# A\n\nprose\n\n")
    assert once.endswith("\n\nmore\n")
    assert "old" not in once
    assert script.fill(once, text) == once


@pytest.mark.parametrize("card", CARDS, ids=by_name)
def test_a_card_has_a_place_for_everything(card: Path, script: ModuleType) -> None:
    text = card.read_text("utf-8")
    for part in ("## Architecture", "## What it was trained on", "## What was measured",
                 "## Known failures", "## Licence", script.BEGIN, script.END):  # fmt: skip
        assert text.count(part) == 1, part
    assert text.startswith(f"# {card.stem}\n")
    assert find_card(card.stem) == card


@pytest.mark.parametrize("card", MEASURED, ids=by_name)
def test_every_number_was_measured_and_stands_in_one_place(card: Path, script: ModuleType) -> None:
    text = card.read_text("utf-8")
    measured = json.loads(card.with_suffix(".json").read_text("utf-8"))
    assert script.fill(text, script.write_tables(measured)) == text, "benchmarks/card.py --tables"
    assert "XX" not in text, "something was left to be filled in"
    model = zoo.get(card.stem)
    assert (model.sha256, model.size) == (measured["sha256"], measured["bytes"])
    assert model.miou == pytest.approx(measured["scores"][0]["miou"], abs=0.0005)
    assert measured["scores"][0]["fit"] == "letterbox"
    assert (measured["pictures"], measured["subset"]["pictures"]) == (262, 150)
    assert all(photos >= 6 for photos in measured["shown_in"].values())


def test_show_prints_the_essentials_of_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = zoo.MODELS[0].name
    assert read_card("no-such-model") is None
    # as it lies in an installed package
    page = tmp_path / "deeplab" / "zoo" / "cards" / f"{name}.md"
    page.parent.mkdir(parents=True)
    page.write_text("# A model\n\nIt is for\nthis.\n\nAnd more.\n")
    monkeypatch.setattr(model_cards, "__file__", str(tmp_path / "deeplab" / "zoo" / "cards.py"))
    for numbers, words in ((None, "It is for this."), (made_up(), "background 0.821, cat 0.831")):
        if numbers is not None:
            page.with_suffix(".json").write_text(json.dumps(numbers))
        assert cli.run(["models", "show", name]) == 0
        told = capsys.readouterr().out
        assert words in told
        assert f"card:     {page}" in told
    assert "0.781 to 0.851 (95 %)" in told
