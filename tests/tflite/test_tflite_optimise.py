"""Files are made faster without changing what they compute, and left alone where that fails."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from deeplab.errors import ModelError
from deeplab.runtimes import litert, open_network
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import GraphEdit, cut
from deeplab.tflite.file import TfliteFile
from deeplab.tflite.metadata import read_metadata
from deeplab.tflite.optimise import RECORD, Optimisation, Record, read_record
from tiny_tflite import pooled_network, tiny_network, with_files


def run(model: bytes, pictures: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    answers = []
    for picture in pictures:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(answers)


def noise(side: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def names(model: bytes) -> list[str]:
    return [step.name for step in tflite_file.parse(model).operators]


def optimisation_of(model: bytes) -> tuple[TfliteFile, Optimisation, int]:
    file = tflite_file.parse(model)
    output = understand(file).output_tensor.index
    return file, Optimisation(file, output), output


@pytest.mark.parametrize(
    "spread", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TILE", "BROADCAST_TO"]
)
@pytest.mark.parametrize("pooled_first", [True, False])
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_the_pooled_image_is_folded_exactly(
    spread: str, pooled_first: bool, maps: int, precision: type
) -> None:
    model = pooled_network(spread=spread, pooled_first=pooled_first, maps=maps, precision=precision)
    file, found, output = optimisation_of(model)
    optimised = found.apply()
    assert found.left == ()
    assert [line.split(":")[0].split(" into ")[0] for line in found.changes] == [
        "dropped what lies behind the logits",
        "dropped a resize that does nothing",
        "folded the pooled image",
    ]
    assert found.macs == (25 - 1) * 6 * 7
    left = names(optimised)
    assert spread not in left
    assert left.count("CONCATENATION") == (1 if maps > 1 else 0)
    assert left.count("ADD") == 1
    wanted, got = run(cut(file, output), noise(33)), run(optimised, noise(33))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)
    again = tflite_file.parse(optimised)
    assert sum(len(tensor.buffer) for tensor in again.tensors) <= len(model)
    stored = {tensor.type for tensor in again.tensors if len(tensor.buffer) > 100}
    assert stored == {"FLOAT16" if precision is np.float16 else "FLOAT32"}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"pool": 3}, "its map is 3×3, so the window does not cover the whole"),
        ({"kernel": 3}, r"the convolution behind it looks at \(3, 3\) cells"),
        ({"read_twice": True}, "the joined features are read at several places"),
    ],
)
def test_what_cannot_be_folded_stays_and_the_reason_is_told(
    asked: dict[str, Any], reason: str
) -> None:
    model = pooled_network(**asked)
    file, found, output = optimisation_of(model)
    assert len(found.left) == 1
    assert found.macs == 0
    assert re.search(reason, found.left[0])
    wanted, got = run(cut(file, output), noise(33)), run(found.apply(), noise(33))
    assert (got == wanted).all(), "dropping resizes that do nothing changes no bit"
    assert names(found.apply()).count("CONCATENATION") == 1


def test_without_a_pooled_image_there_is_nothing_to_say() -> None:
    _, found, _ = optimisation_of(tiny_network(resize=False))
    assert found.changes == found.left == ()
    assert found.apply() == tiny_network(resize=False)


def test_a_resize_of_neither_convention_is_told() -> None:
    _, found, _ = optimisation_of(tiny_network(align_corners=False))
    assert found.changes == ()
    assert found.left == (
        "RESIZE_BILINEAR 3×3 to 9×9 stays: it follows neither convention of corners",
    )


def test_what_lies_behind_the_logits_is_named() -> None:
    _, found, _ = optimisation_of(tiny_network(argmax=True))
    assert found.changes == (
        "dropped what lies behind the logits: RESIZE_BILINEAR 3×3 to 9×9, ARG_MAX 9×9",
    )


def test_optimising_twice_changes_nothing_more() -> None:
    first = optimisation_of(pooled_network())[1].apply()
    _, found, _ = optimisation_of(first)
    assert found.changes == found.left == ()
    assert found.apply() == first


def test_packed_files_and_metadata_stay() -> None:
    files = {"labels.txt": b"a\nb\nc\nd\n", "more/notes.txt": b"x" * 1000}
    model = with_files(pooled_network(), files)
    _, found, _ = optimisation_of(model)
    written = tflite_file.parse(found.apply(entries={"note": b"kept"}))
    assert written.associated_files == files
    assert written.entries == {"note": b"kept"}
    entries, more = {"note": b"new", "other": b"2"}, {"labels.txt": b"new", "more.txt": b""}
    again = tflite_file.parse(Optimisation(written).apply(entries=entries, files=more))
    assert again.entries == entries
    assert again.associated_files == files | more


def test_the_record_is_read_back() -> None:
    record = Record(changes=("dropped ü",), align_corners=None, source="0" * 64)
    written = Optimisation(tflite_file.parse(pooled_network())).apply(
        entries={RECORD: record.to_json().encode()}
    )
    assert read_record(tflite_file.parse(written)) == record
    assert read_record(tflite_file.parse(pooled_network())) is None
    for damage in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"changes": [], "align_corners": 2, "source": ""}',
    ):
        damaged = Optimisation(tflite_file.parse(written)).apply(entries={RECORD: damage})
        with pytest.raises(ModelError, match="the record in its metadata is damaged"):
            read_record(tflite_file.parse(damaged))


def test_stored_values_are_aligned() -> None:
    data = optimisation_of(pooled_network())[1].apply()
    whole = np.frombuffer(data, np.uint8).ctypes.data
    for tensor in tflite_file.parse(data).tensors:
        if tensor.is_constant:
            start = np.frombuffer(tensor.buffer, np.uint8).ctypes.data
            assert (start - whole) % 16 == 0


def test_signatures_follow_their_tensors() -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(pooled_network()))
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
    signature.inputs[0].name, signature.inputs[0].tensorIndex = b"picture", graph.inputs[0]
    signature.outputs[0].name, signature.outputs[0].tensorIndex = b"logits", graph.outputs[0]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file, found, output = optimisation_of(bytes(builder.Output()))
    runner = Interpreter(model_content=found.apply()).get_signature_runner("serving_default")
    (picture,) = noise(33, 1)
    answer = runner(picture=picture[None])["logits"][0]
    np.testing.assert_allclose(answer, run(cut(file, output), picture[None])[0], atol=5e-6)


@pytest.mark.parametrize("engine", ["litert", "openvino"])
def test_engines_run_the_folded_file(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino" if engine == "openvino" else "ai_edge_litert")
    path = tmp_path / "m.tflite"
    path.write_bytes(pooled_network())
    frame = np.random.default_rng(0).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    network = open_network(path, runtime=engine, threads=1)
    whole = litert.open(path, threads=1, whole=True)
    assert len(network.network.content) < path.stat().st_size
    assert whole.network.content == path.read_bytes()
    np.testing.assert_allclose(network(frame), whole(frame)[::8, ::8], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(100))
def test_damage_is_told_in_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(pooled_network(frame=17))
    for place in rng.integers(8, len(data), 4):
        data[place] = rng.integers(256)
    with contextlib.suppress(ModelError):
        optimisation_of(bytes(data))[1].apply()


def test_a_damaged_flatbuffer_is_a_model_error() -> None:
    file = tflite_file.parse(pooled_network())
    broken = TfliteFile(**{**vars(file), "data": file.data[:200]})
    with pytest.raises(ModelError, match="is damaged"):
        GraphEdit(broken)


# --- the public files -------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["deeplabv3_257_mv_gpu", "deeplabv3_with_metadata"])
def test_the_starter_model(name: str, reference: Path) -> None:
    file = tflite_file.read(reference / "models" / f"{name}.tflite")
    output = understand(file).output_tensor.index
    found = Optimisation(file, output)
    assert found.macs == (33 * 33 - 1) * 256 * 256
    assert found.left == ()
    optimised = found.apply()
    wanted, got = run(cut(file, output), noise(257, 1)), run(optimised, noise(257, 1))
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert len(optimised) < len(file.data) + 5000
    again = tflite_file.parse(optimised)
    assert again.associated_files == file.associated_files
    metadata, own = read_metadata(again), read_metadata(file)
    assert (metadata and metadata.labels) == (own and own.labels)


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["deeplabv3_mnv2_dm05_pascal_quant", "deeplab_mobilenet_edgetpu_slim_cityscapes_quant"]
)
def test_integer_files_are_only_cut(name: str, reference: Path) -> None:
    file = tflite_file.read(reference / "models" / f"{name}.tflite")
    output = understand(file).output_tensor.index
    found = Optimisation(file, output)
    assert len(found.changes) == 1
    assert "integer arithmetic rounds after every step" in found.left[0]
    assert found.apply() == cut(file, output)
