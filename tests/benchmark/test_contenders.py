from __future__ import annotations

import os
from pathlib import Path

import pytest

from deeplab.benchmark.contenders import Choices, Contender, find_models, plan_contenders
from deeplab.errors import InputError, ModelNotFoundError
from tiny_tflite import tiny_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network())
    return path


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def test_every_combination_in_the_order_asked_for(model: Path) -> None:
    choices = Choices(runtimes=["openvino", "litert"], threads=[1, 4])
    found = plan_contenders([("tiny.tflite", model)], choices)
    assert [(one.runtime, one.threads) for one in found] == [
        ("openvino", 1), ("openvino", 4), ("litert", 1), ("litert", 4),
    ]  # fmt: skip
    assert {one.stored for one in found} == {"float32"}
    assert {one.file_bytes for one in found} == {model.stat().st_size}
    assert len({one.title for one in found}) == 4


def test_only_openvino_has_a_choice_of_precision(model: Path) -> None:
    choices = Choices(
        runtimes=["litert", "openvino"], threads=[1], precisions=["float32", "bfloat16"]
    )
    found = plan_contenders([("tiny", model)], choices)
    assert [(one.runtime, one.precision) for one in found] == [
        ("litert", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"),
    ]  # fmt: skip
    assert found[2].title == "tiny, openvino, bfloat16, 1 thread"


def test_a_model_given_twice_runs_once(model: Path) -> None:
    given = (str(model), model)
    assert len(plan_contenders([given, given], Choices(threads=[1]))) == 1


def test_names_are_short_where_they_can_be(tmp_path: Path, model: Path) -> None:
    other = tmp_path / "more" / "tiny.tflite"
    third = tmp_path / "more" / "third.tflite"
    other.parent.mkdir()
    for path in (other, third):
        path.write_bytes(tiny_network(seed=1))
    found = plan_contenders([(str(path), path) for path in (model, other, third)], Choices())
    assert [one.name for one in found] == [str(model), str(other), "third"]


def test_a_name_of_the_zoo_stays_that(model: Path) -> None:
    assert plan_contenders([("voc", model)], Choices())[0].name == "voc"


@pytest.mark.parametrize("threads", [0, -1, 5])
def test_threads_that_there_are_not(model: Path, threads: int) -> None:
    with pytest.raises(InputError, match=rf"--threads: got {threads}, expected 1 to 4: this"):
        plan_contenders([("tiny", model)], Choices(threads=[threads]))


def test_a_runtime_that_does_not_read_the_file(model: Path) -> None:
    with pytest.raises(InputError, match="torch cannot run tiny; litert or openvino can"):
        plan_contenders([("tiny", model)], Choices(runtimes=["torch"]))


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--size", {"sizes": [(9, 9)]}),
        ("--output-stride", {"output_strides": [8]}),
        ("--precision", {"precisions": ["float32", "bfloat16"]}),
    ],
)
def test_files_have_one_size_one_stride_one_precision(
    model: Path, option: str, wanted: dict
) -> None:
    with pytest.raises(InputError, match=f"{option}: these models have their own; only"):
        plan_contenders([("tiny", model)], Choices(**wanted))


def test_models_are_found_by_file_and_by_the_name_of_a_pair(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    model.with_name(f"{model.name}.json").write_text("{}")  # a certificate, not a pair
    found = find_models([str(model), str(tmp_path / "mine")])
    assert found == [model, tmp_path / "mine.json"]
    with pytest.raises(ModelNotFoundError, match=r"Did you mean 'tiny\.tflite'"):
        find_models([str(tmp_path / "tinny.tflite")])


def test_threads_do_not_change_what_a_network_says() -> None:
    one = Contender(name="a", path=Path("a"), runtime="litert", threads=1)
    two = Contender(name="a", path=Path("a"), runtime="litert", threads=2)
    assert one.without_threads == two.without_threads
    assert one.title == "a, litert, 1 thread"
    assert two.title == "a, litert, 2 threads"
