"""LiteRT and OpenVINO give what the file gives, only earlier; other files are refused in words."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from deeplab.errors import InputError, MissingExtraError, ModelError
from deeplab.labels import VOC
from deeplab.photo.images import InputSpec, read
from deeplab.photo.upsample import argmax_bilinear, interpolate
from deeplab.runtimes import Network, litert, open_network, openvino
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite import file as tflite_file
from tiny_tflite import Builder, tiny_network

ENGINES = ["litert", "openvino"] if importlib.util.find_spec("openvino") else ["litert"]
PUBLIC = {
    "deeplabv3_257_mv_gpu.tflite": 21,
    "deeplabv3_with_metadata.tflite": 21,
    "deeplabv3_mnv2_pascal_quant.tflite": 21,
    "deeplabv3_mnv2_dm05_pascal_quant.tflite": 21,
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite": 19,
}


def frame_of(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(argmax=True))
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cut_network_is_the_convolution(engine: str, model: Path) -> None:
    network = open_network(model, runtime=engine, threads=1)
    frame = frame_of(9)
    file = tflite_file.read(model)
    weights, bias = (file.tensors[i].values for i in file.operators[0].inputs[1:])
    wanted = (frame[::4, ::4] / 127.5 - 1) @ weights[:, 0, 0].T + bias
    assert network.output == "logits"
    assert network.num_classes == 4
    assert network.align_corners
    np.testing.assert_allclose(network(frame), wanted, rtol=0, atol=1e-5)


def test_whole_gives_what_the_file_gives(model: Path) -> None:
    whole = litert.open(model, threads=1, whole=True)
    cut = litert.open(model, threads=1)
    frame = frame_of(9)
    assert whole.output == "label map"
    assert whole.num_classes == 4
    assert (whole(frame) == argmax_bilinear(cut(frame), 9, 9, align_corners=True)).all()


@pytest.mark.parametrize(("align_corners", "half_pixel"), [(True, False), (False, True)])
def test_both_corner_conventions(tmp_path: Path, align_corners: bool, half_pixel: bool) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny_network(align_corners=align_corners, half_pixel=half_pixel))
    cut, whole = (litert.open(path, threads=1, whole=w) for w in (False, True))
    assert cut.align_corners is align_corners
    frame = frame_of(9, 3)
    up = interpolate(cut(frame), 9, 9, align_corners=align_corners)
    np.testing.assert_allclose(up, whole(frame), rtol=0, atol=1e-5)


def test_a_resize_of_neither_convention_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny_network(align_corners=False, half_pixel=False))
    assert litert.open(path, threads=1)(frame_of(9)).shape == (9, 9, 4)


@pytest.mark.parametrize(
    ("frame", "stride", "aligned"), [(9, 4, True), (8, 4, False), (16, 4, False)]
)
def test_logits_without_a_resize_are_placed_by_the_rule(
    frame: int, stride: int, aligned: bool
) -> None:
    network = understand(tflite_file.parse(tiny_network(frame=frame, stride=stride, resize=False)))
    assert network.align_corners is aligned


def test_a_network_keeps_nothing_from_the_last_frame(model: Path) -> None:
    network = litert.open(model, threads=1)
    first = network(frame_of(9, 1))
    kept = first.copy()
    network(frame_of(9, 2))
    assert (first == kept).all()
    assert (network(frame_of(9, 1)) == kept).all()


def test_normalisation_comes_from_the_argument_then_the_assumption(model: Path) -> None:
    mean, std = (123.0, 116.0, 104.0), (1.0, 1.0, 1.0)
    other = InputSpec(height=9, width=9, mean=(1, 2, 3), std=(4, 5, 6))
    asked = open_network(
        model, runtime="litert", threads=1, normalisation=(mean, std), assume=other
    )
    assumed = open_network(model, runtime="litert", threads=1, assume=other)
    assert (asked.spec.mean, asked.spec.std) == (mean, std)
    assert (assumed.spec.mean, assumed.spec.std) == ((1, 2, 3), (4, 5, 6))


def quantised_input(kind: int, scale: float, zero: int) -> tflite_file.TfliteFile:
    build = Builder()
    picture = build.tensor((1, 8, 8, 3), kind, scale=scale, zero=zero)
    output = build.tensor((1, 8, 8, 3))
    build.operator("DEQUANTIZE", [picture], [output])
    return tflite_file.parse(build.finish([picture], [output]))


def test_integer_inputs_get_the_bytes_that_stand_for_the_picture() -> None:
    frame = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    as_it_is = understand(quantised_input(schema.TensorType.UINT8, 1 / 128, 128))
    assert (as_it_is.feed(frame)[0] == frame).all()
    signed = understand(quantised_input(schema.TensorType.INT8, 1 / 128, 0))
    assert (signed.feed(frame)[0] == frame.astype(int) - 128).all()
    halves = ((127.5,) * 3, (127.5,) * 3)
    exact = understand(quantised_input(schema.TensorType.UINT8, 1 / 128, 128), normalisation=halves)
    wanted = np.clip(np.round((frame / 127.5 - 1) * 128 + 128), 0, 255)
    assert (exact.feed(frame)[0] == wanted).all()


def one_step(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> tflite_file.TfliteFile:
    build = Builder()
    picture, output = build.tensor(inputs), build.tensor(outputs)
    build.operator("RESHAPE", [picture], [output])
    return tflite_file.parse(build.finish([picture], [output]))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((1, 224, 224, 3), (1, 1001), r"is not a DeepLab: its output is \[1, 1001\]"),
        ((1, 3, 64, 64), (1, 64, 64, 21), "channels come first"),
        ((1, 10), (1, 64, 64, 21), r"its input is \[1, 10\], expected one RGB picture"),
        ((1, 64, 64, 3), (1, 64, 64, 300), "expected logits"),
    ],
)
def test_other_networks_are_refused(
    inputs: tuple[int, ...], outputs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        understand(one_step(inputs, outputs))


def test_what_litert_cannot_run_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    build = Builder()
    picture, output = build.tensor((1, 8, 8, 3)), build.tensor((1, 8, 8, 3))
    build.operator("SVDF", [picture], [output])
    path.write_bytes(build.finish([picture], [output]))
    with pytest.raises(ModelError, match="LiteRT cannot run this model"):
        litert.open(path, threads=1)


def test_unknown_runtime(model: Path) -> None:
    with pytest.raises(InputError, match="runtime: got 'tensorrt', expected one of litert, "):
        open_network(model, runtime="tensorrt", threads=1)


def test_each_engine_runs_its_own_files(model: Path) -> None:
    with pytest.raises(
        InputError, match=r"'torch' cannot run tiny\.tflite; what can: litert or openvino"
    ):
        open_network(model, runtime="torch", threads=1)
    with pytest.raises(InputError, match=r"'litert' cannot run pair\.json"):
        open_network(model.with_name("pair.json"), runtime="litert", threads=1)


@pytest.mark.skipif("openvino" not in ENGINES, reason="openvino is not installed")
def test_bfloat16_is_near_and_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino as engine

    frame = frame_of(9)
    exact = open_network(model, runtime="openvino", threads=1)
    if "BF16" in engine.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        near = open_network(model, runtime="openvino", threads=1, precision="bfloat16")
        difference = np.abs(exact(frame) - near(frame)).max()
        assert 0 < difference < 0.02 * np.abs(exact(frame)).max()
    with pytest.raises(InputError, match="'litert' computes in float32; for 'bfloat16' take"):
        open_network(model, threads=1, precision="bfloat16")
    with pytest.raises(InputError, match="precision: got 'int4', expected 'float32' or 'bfloat16'"):
        open_network(model, threads=1, precision="int4")
    monkeypatch.setattr(engine.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(InputError, match="this processor does not compute in 'bfloat16'"):
        open_network(model, runtime="openvino", threads=1, precision="bfloat16")


@pytest.mark.skipif("openvino" not in ENGINES, reason="openvino is not installed")
def test_signals_arrive_after_openvinos_networks_are_gone(model: Path) -> None:
    code = """if True:
        import signal, sys
        from deeplab.runtimes import openvino
        first, second = (openvino.open(sys.argv[1], threads=1) for _ in "12")
        del first  # the one that came first: not in the opposite order
        del second
        signal.signal(signal.SIGINT, lambda *_: print("handled"))
        signal.raise_signal(signal.SIGINT)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, model], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_openvino_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab\[openvino\]'"):
        openvino.open(model, threads=1)


# --- the public files -------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLIC)
def test_public_files(name: str, reference: Path) -> None:
    path = reference / "models" / name
    cut, whole = (litert.open(path, threads=2, whole=w) for w in (False, True))
    assert cut.output == "logits"
    assert cut.num_classes == PUBLIC[name]
    side = cut.spec.height
    frame = np.asarray(_stretched(reference / "photos" / "image3.jpg", side))
    mine = argmax_bilinear(cut(frame), side, side, align_corners=cut.align_corners)
    answer = whole(frame)
    theirs = answer if answer.ndim == 2 else answer.argmax(axis=2)
    # The integer files round their logits on the way up; the cut ones do not.
    assert (mine == theirs).mean() >= (0.985 if "quant" in name else 0.99999)


@pytest.mark.reference
def test_the_answer_is_that_of_the_plain_interpreter(reference: Path) -> None:
    path = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    frame = np.asarray(_stretched(reference / "photos" / "image1.jpg", 257))
    plain = Interpreter(str(path), num_threads=1)
    plain.allocate_tensors()
    plain.set_tensor(plain.get_input_details()[0]["index"], (frame[None] / np.float32(127.5)) - 1)
    plain.invoke()
    wanted = plain.get_tensor(plain.get_output_details()[0]["index"])[0, ::8, ::8]
    np.testing.assert_allclose(litert.open(path, threads=1)(frame), wanted, rtol=0, atol=1e-4)


@pytest.mark.reference
def test_labels_of_the_public_file(reference: Path) -> None:
    network = litert.open(reference / "models" / "deeplabv3_with_metadata.tflite", threads=1)
    assert network.labels == VOC


@pytest.mark.reference
@pytest.mark.skipif("openvino" not in ENGINES, reason="openvino is not installed")
def test_openvino_equals_litert(reference: Path) -> None:
    path = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    frame = np.asarray(_stretched(reference / "photos" / "image3.jpg", 257))
    engines: list[Network] = [open_network(path, runtime=e, threads=2) for e in ENGINES]
    first, second = (engine(frame) for engine in engines)
    assert np.abs(first - second).max() < 1e-3


@pytest.mark.reference
def test_the_backbone_is_refused(reference: Path) -> None:
    with pytest.raises(ModelError, match="is not a DeepLab"):
        litert.open(reference / "models" / "mobilenet_v2_1.0_224_quant.tflite", threads=1)


def _stretched(path: Path, side: int) -> object:
    from PIL import Image

    return Image.fromarray(read(path)).resize((side, side), Image.Resampling.BILINEAR)
