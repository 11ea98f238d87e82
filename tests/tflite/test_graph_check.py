"""Graphs that would end an interpreter's process are refused in words first."""

from __future__ import annotations

import io
import random as rng
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from deeplab import cli
from deeplab.errors import DeepLabError, ModelError
from deeplab.labels import LabelSet
from deeplab.runtimes import describe
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite.check import check_graph
from deeplab.tflite.file import parse
from deeplab.tflite.optimise import Optimisation
from tiny_tflite import pooled_network, tiny_network, with_files

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from graphs import mutate


def changed(change: Callable[[Any], None], data: bytes | None = None) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(data or pooled_network(), 0)
    change(model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def leave_out(graph: Any) -> None:
    graph.operators[0].inputs = [graph.operators[0].inputs[0], -1, graph.operators[0].inputs[2]]


def drop_step(graph: Any) -> None:
    del graph.operators[1]


def double_step(graph: Any) -> None:
    graph.operators.insert(1, graph.operators[0])


def turn_steps(graph: Any) -> None:
    graph.operators[0], graph.operators[1] = graph.operators[1], graph.operators[0]


def store_output(graph: Any) -> None:
    graph.operators[0].outputs = [graph.operators[0].inputs[1]]


def constant_end(graph: Any) -> None:
    graph.outputs = [graph.operators[0].inputs[1]]


def fewer_inputs(graph: Any) -> None:
    graph.operators[0].inputs = [graph.operators[0].inputs[0]]


def other_shape(graph: Any) -> None:
    graph.tensors[graph.operators[0].inputs[1]].shape = [1, 2, 3, 4]


def huge(graph: Any) -> None:
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 1 << 15, 1 << 15, 8]


def negative(graph: Any) -> None:
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, -5, 5, 8]


def scale(values: list[float], zero: int = 0) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        tensor = graph.tensors[graph.operators[0].inputs[2]]
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = values
        tensor.quantization.zeroPoint = [zero] * len(values)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (leave_out, r"step 0 \(CONV_2D\) lacks its inputs \[1\]"),
        (drop_step, r"reads tensors \[\d+\], which nothing before it computes"),
        (double_step, r"step 1 \(CONV_2D\) computes tensors \[\d+\], which are there already"),
        (turn_steps, "which nothing before it computes"),
        (store_output, "computes tensors .* which are there already"),
        (constant_end, r"its outputs \[\d+\] are computed by no step"),
        (fewer_inputs, r"step 0 \(CONV_2D\) has 1 inputs, expected 2 to 3"),
        (other_shape, r"stores \d+ bytes, but its shape needs 96"),
        (huge, r"would take 34,359,738,368 bytes"),
        (negative, r"has the shape \[1, -5, 5, 8\]"),
        (scale([0.0]), "scales that are no positive numbers"),
        (scale([float("nan")]), "scales that are no positive numbers"),
        (scale([0.5, 0.5, 0.5]), "3 scales, which fit none of its axes"),
    ],
)
def test_graphs_that_cannot_run_are_refused(change: Callable[[Any], None], words: str) -> None:
    with pytest.raises(ModelError, match=f"the graph is damaged: .*{words}"):
        understand(parse(changed(change)))


def test_zero_points_lie_within_their_type() -> None:
    def change(graph: Any) -> None:
        tensor = graph.tensors[graph.inputs[0]]
        tensor.type = schema.TensorType.UINT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1], [999]

    with pytest.raises(ModelError, match="zero point beyond UINT8"):
        understand(parse(changed(change, tiny_network())))


@pytest.mark.reference
def test_published_files_pass(reference: Path) -> None:
    for path in sorted((reference / "models").glob("*.tflite")):
        check_graph(parse(path.read_bytes()))


def test_mutants_are_read_or_refused_in_words() -> None:
    random = rng.Random(5)
    originals = [tiny_network(argmax=True), pooled_network()]
    lines: set[int] = set()
    told = {"read": 0, "refused": 0}
    for _ in range(1500):
        data = mutate(random, random.choice(originals))
        try:
            understand(parse(data))
            told["read"] += 1
        except DeepLabError as error:
            told["refused"] += 1
            lines.add(str(error).count("\n"))
    assert lines == {0}
    assert min(told.values()) > 100, told


def test_steps_without_their_options_and_odd_shapes_are_taken_for_what_they_are() -> None:
    def no_options(graph: Any) -> None:
        for step in graph.operators:
            step.builtinOptions, step.builtinOptionsType = None, schema.BuiltinOptions.NONE

    def flat(name: int) -> Callable[[Any], None]:
        def change(graph: Any) -> None:
            for tensor in (graph.tensors[step.outputs[0]] for step in graph.operators):
                if tensor.shape[3] == name:
                    tensor.shape = tensor.shape[1:]

        return change

    for change in (no_options, flat(17), flat(7)):  # what is joined, and what is made of it
        file = parse(changed(change))
        network = understand(file)
        parse(Optimisation(file, network.output_tensor.index).apply())


# --- what lies behind the model -----------------------------------------------------------------


def test_labels_that_unpack_to_gigabytes_are_refused() -> None:
    model = with_files(tiny_network(), {"labels.txt": b""})
    with zipfile.ZipFile(path := io.BytesIO(model), "a") as archive:
        archive.writestr("more.txt", b"\0" * (64 << 20), zipfile.ZIP_DEFLATED)
    assert len(path.getvalue()) < 1 << 18
    with pytest.raises(ModelError, match="unpack to more than 16 MiB"):
        _ = parse(path.getvalue()).associated_files


def test_damaged_packed_files_are_refused() -> None:
    data = bytearray(with_files(tiny_network(), {"labels.txt": b"cat\ndog\n" * 40}))
    place = data.rindex(b"cat\ndog\n")
    data[place] ^= 255
    with pytest.raises(ModelError, match="packed behind the model are damaged"):
        _ = parse(bytes(data)).associated_files


def test_millions_of_names_are_refused_at_once() -> None:
    with pytest.raises(DeepLabError, match="5000000 names, expected 1 to 256"):
        LabelSet(("x",) * 5_000_000)


# --- what only the engine knows -----------------------------------------------------------------


@pytest.mark.probe
def test_an_engine_that_dies_dies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "home"))
    (tmp_path / "deadly.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    path = tmp_path / "net.tflite"
    path.write_bytes(tiny_network(classes=3))
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    photo = np.zeros((9, 9, 3), np.uint8)
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    command = ["segment", str(tmp_path / "photo.png"), "-m", str(path), "-o", str(tmp_path / "out")]
    command += ["--labels", str(tmp_path / "labels.txt"), "--overwrite"]
    with monkeypatch.context() as patched:
        patched.setattr("deeplab.runtimes.probe._TRIAL", "deadly")
        assert cli.run(command) == 2
        assert "litert dies of this file (SIGABRT); it is damaged" in capsys.readouterr().err
        assert not (tmp_path / "home" / "checked").exists()
    assert cli.run(command) == 0
    assert [file.name[64:] for file in (tmp_path / "home" / "checked").iterdir()] == [".litert"]
    monkeypatch.setattr("deeplab.runtimes.probe._TRIAL", "deadly")  # it is remembered
    monkeypatch.setattr("deeplab.runtimes.probe._known", set())
    assert cli.run(command) == 0


@pytest.mark.probe
def test_random_bytes_called_pte_end_nothing(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    path = tmp_path / "garbage.pte"
    path.write_bytes(rng.Random(0).randbytes(2000))
    with pytest.raises(ModelError, match=r"garbage\.pte: .*(dies of this file|cannot run)"):
        describe(path)


@pytest.mark.probe
def test_known_files_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from deeplab import Segmenter

    monkeypatch.setattr("deeplab.runtimes.probe._TRIAL", "deadly")
    Segmenter("voc-fast")
