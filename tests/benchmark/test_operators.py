"""The table of operators is the file's, and its parts compute what the whole computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from deeplab.benchmark import operators
from deeplab.benchmark.operators import OperatorTime, Profile, profile
from deeplab.benchmark.tool_lines import operator_lines
from deeplab.errors import ModelError
from deeplab.runtimes import litert
from deeplab.tflite import file as tflite_file
from tiny_tflite import Builder, tiny_network


def run(path: Path, *, runs: int = 2) -> tuple[litert.LiteRTNetwork, Profile, list[int]]:
    network = litert.open(path, threads=1)
    shape = (network.spec.height, network.spec.width, 3)
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    told: list[int] = []

    def tell(done: int, total: int) -> None:
        assert total == runs
        told.append(done)

    return network, profile(network, path, frame, runs=runs, threads=1, tell=tell), told


def half_weights() -> bytes:
    """A network whose float16 weights are widened by an operator of their own."""
    build = Builder()
    rng = np.random.default_rng(0)
    picture = build.tensor((1, 9, 9, 3))
    half = rng.normal(size=(4, 1, 1, 3)).astype(np.float16)
    stored = build.tensor(half.shape, schema.TensorType.FLOAT16, half)
    weights = build.tensor(half.shape)
    bias = build.tensor((4,), values=np.zeros(4, np.float32))
    first, last = build.tensor((1, 9, 9, 4)), build.tensor((1, 9, 9, 4))
    build.operator("DEQUANTIZE", [stored], [weights])
    options = schema.Conv2DOptionsT()
    options.strideW = options.strideH = 1
    build.operator("CONV_2D", [picture, weights, bias], [first], options)
    build.operator("ADD", [first, first], [last], schema.AddOptionsT())
    return build.finish([picture], [last])


@pytest.mark.parametrize(
    "content", [tiny_network(), tiny_network(argmax=True, resize=False), half_weights()]
)
def test_operators_are_those_of_what_is_run(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    network, found, told = run(path)
    file = tflite_file.parse(network.network.content)
    assert [one.type for one in found.operators] == [one.name for one in file.operators]
    names = [file.tensors[one.outputs[0]].name for one in file.operators]
    assert [one.name for one in found.operators] == names
    assert all(len(one.ms) == 2 and min(one.ms) >= 0 for one in found.operators)
    assert len(found.whole_ms) == 2
    assert told[-1] == 2


def test_widened_weights_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "half.tflite"
    path.write_bytes(half_weights())
    _, found, _ = run(path)
    assert {one.type: any(one.ms) for one in found.operators} == {
        "DEQUANTIZE": False, "CONV_2D": True, "ADD": True,
    }  # fmt: skip
    assert found.operators[-1].kilobytes == pytest.approx(9 * 9 * 4 * 4 / 1e3)


def test_parts_that_compute_something_else_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(half_weights())
    whole = operators._whole
    other = tflite_file.parse(tiny_network(frame=9, stride=1, resize=False, seed=5))
    monkeypatch.setattr(operators, "_whole", lambda file: whole(other))
    monkeypatch.setattr(operators, "_same", lambda found, wanted: False)
    with pytest.raises(ModelError, match="one by one do not give the network's answer"):
        run(path)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["deeplabv3_257_mv_gpu", "deeplabv3_mnv2_dm05_pascal_quant"])
def test_published_files_come_apart(reference: Path, name: str) -> None:
    network, found, _ = run(reference / "models" / f"{name}.tflite", runs=1)
    file = tflite_file.parse(network.network.content)
    kinds = Counter(one.name for one in file.operators)
    assert Counter(one.type for one in found.operators) == kinds
    assert kinds["DEPTHWISE_CONV_2D"] == 17


@pytest.mark.reference
def test_openvino_tells_itself(reference: Path) -> None:
    pytest.importorskip("openvino")
    from deeplab.runtimes import openvino

    path = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    network = openvino.open(path, threads=1)
    frame = np.zeros((257, 257, 3), np.uint8)
    found = profile(network, path, frame, runs=2, threads=1, tell=lambda done, total: None)
    assert found.method == "OpenVINO's own counters"
    assert sum(one.type == "Convolution" for one in found.operators) >= 30


def test_the_tables_add_up() -> None:
    found = Profile(
        method="by hand",
        operators=(
            OperatorTime(type="CONV_2D", name="one", kilobytes=2.0, ms=(1.0, 3.0)),
            OperatorTime(type="ADD", name="two", kilobytes=None, ms=(1.0, 1.0)),
            OperatorTime(type="CONV_2D", name="three", kilobytes=4.0, ms=(5.0, 5.0)),
        ),
        whole_ms=(),
    )
    lines = operator_lines(found)
    start = lines.index(next(line for line in lines if "Run Order" in line))
    rows = [line.split("\t")[1:] for line in lines[start + 2 : start + 5]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["CONV_2D", "1.000", "2.000", "25.000%", "25.000%", "2.000", "1", "one"],
        ["ADD", "1.000", "1.000", "12.500%", "37.500%", "-", "1", "two"],
        ["CONV_2D", "5.000", "5.000", "62.500%", "100.000%", "4.000", "1", "three"],
    ]
    top = [line.split("\t")[-1] for line in lines if "\t" in line][5:8]
    assert top == ["three", "one", "two"]
    start = lines.index(next(line for line in lines if "Summary by node type" in line))
    rows = [line.split("\t")[1:] for line in lines[start + 2 : start + 4]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["CONV_2D", "2", "7.000", "87.500%", "87.500%", "6.000", "2"],
        ["ADD", "1", "1.000", "12.500%", "100.000%", "-", "1"],
    ]
    assert "Timings (microseconds): count=2 first=7000 curr=9000" in "\n".join(lines)
    assert lines[-1] == "3 nodes observed"
