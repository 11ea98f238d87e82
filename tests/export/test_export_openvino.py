"""What is in OpenVINO's pair of files, and that it answers as torch does at every size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

from builds import build_once  # noqa: E402
from pairs import PHOTOS  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import MissingExtraError, OutputError  # noqa: E402
from deeplab.export import Exported, export  # noqa: E402
from deeplab.export import openvino as module  # noqa: E402


@pytest.fixture(autouse=True)
def _build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    build_once(monkeypatch)


def run(pair: Path, folder: Path, **given: object) -> Exported:
    return export(pair, "openvino", file=folder / "net.xml", photos=PHOTOS, **given)


def constants(file: Path) -> list[tuple[str, int]]:
    """Return (type, rank) of every constant."""
    operators = openvino.Core().read_model(file).get_ordered_ops()
    found = [op.output(0) for op in operators if op.get_type_name() == "Constant"]
    return [(c.get_element_type().get_type_name(), len(c.get_shape())) for c in found]


def test_float32_answers_as_torch_does(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path)
    assert [one.name for one in found.certificate.rounds] == ["129×97", "65×49"]
    for one in found.certificate.rounds:
        assert one.worst_equal_pixels >= 0.9999
        assert one.max_logit_difference < 1e-4
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["net.bin", "net.xml", "net.xml.json"]
    parts = [tmp_path / "net.bin", tmp_path / "net.xml"]
    assert found.certificate.bytes == sum(part.stat().st_size for part in parts)
    assert found.certificate.int8_tensors == 0


def test_what_is_in_the_files(pair: Path, tmp_path: Path) -> None:
    file = run(pair, tmp_path).file
    model = openvino.Core().read_model(file)
    ends = [(end.get_any_name(), str(end.get_partial_shape())) for end in model.inputs]
    assert ends == [("image", "[?,?,?,3]")]
    assert model.outputs[0].get_any_name() == "logits"
    assert model.outputs[0].get_partial_shape()[3].get_length() == 5
    assert ("f32", 4) in constants(file)
    text = file.read_text("utf-8")
    assert "site-packages" not in text  # nothing of the machine that wrote it
    assert str(tmp_path) not in text


def test_the_files_say_all_that_the_pair_said(pair: Path, tmp_path: Path) -> None:
    file = run(pair, tmp_path).file
    reference, alone = Segmenter(pair), Segmenter(file)
    assert alone.labels == reference.labels
    assert alone.spec == reference.spec
    photo = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    assert (alone(photo).mask == reference(photo).mask).mean() >= 0.9999
    other = Segmenter(file, size=(65, 113)), Segmenter(pair, size=(65, 113))
    assert (other[0](photo).mask == other[1](photo).mask).mean() >= 0.9999


def test_a_mask(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path, output="mask")
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    answer = Segmenter(found.file).network(np.full((129, 97, 3), 90, np.uint8))
    assert (answer.dtype, answer.shape) == (np.uint8, (129, 97))


def test_float16(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path, precision="float16")
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.999
    kinds = {"Convolution": "f16", "GroupConvolution": "f32"}  # the second are depthwise
    for operator in openvino.Core().read_model(found.file).get_ordered_ops():
        if kind := kinds.get(operator.get_type_name()):
            weights = operator.input_value(1)
            while weights.get_node().get_type_name() != "Constant":
                weights = weights.get_node().input_value(0)
            assert weights.get_element_type().get_type_name() == kind
    whole = run(pair, tmp_path, overwrite=True).certificate.bytes
    assert found.certificate.bytes < 0.7 * whole


def test_int8(pair: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    found = run(
        pair, tmp_path, precision="int8", calibrate=PHOTOS * 2, allow=True,
        keep_float=["backbone.stem"],
    )  # fmt: skip
    assert found.certificate.kept_float == ("backbone.stem",)
    assert found.certificate.int8_tensors > 50
    in_float = []
    for operator in openvino.Core().read_model(found.file).get_ordered_ops():
        if operator.get_type_name() in ("Convolution", "GroupConvolution"):
            weights = operator.input_value(1)
            while weights.get_node().get_type_name() != "Constant":
                weights = weights.get_node().input_value(0)
            if weights.get_element_type().get_type_name() != "i8":
                in_float.append(operator.get_friendly_name().split("/")[0])
    assert in_float == ["backbone.stem", "classifier"]
    photo = np.random.default_rng(0).integers(0, 256, (129, 97, 3), dtype=np.uint8)
    small, whole = Segmenter(found.file)(photo).logits, Segmenter(pair)(photo).logits
    assert np.corrcoef(small.ravel(), whole.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_two_scales_share_their_weights(two_scales: Path, tmp_path: Path, precision: str) -> None:
    if precision == "int8":
        pytest.importorskip("nncf")
    calibrate = PHOTOS * 2 if precision == "int8" else ()
    found = run(two_scales, tmp_path, precision=precision, calibrate=calibrate, allow=True)
    share = 0.5 if precision == "int8" else 0.7
    binary = found.file.with_suffix(".bin").stat().st_size
    assert binary < share * found.certificate.weights_bytes
    photo = np.random.default_rng(0).integers(0, 256, (129, 97, 3), dtype=np.uint8)
    small, whole = Segmenter(found.file)(photo).logits, Segmenter(two_scales)(photo).logits
    assert np.corrcoef(small.ravel(), whole.ravel())[0, 1] > 0.95


def test_a_full_disk(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object, target: Path, **_: object) -> None:
        target.with_suffix(".bin").write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", fail)
    with pytest.raises(OutputError, match=r"cannot write net\.xml; the disk may be full"):
        run(pair, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"deeplab\[openvino\]"):
        module.count_int8(tmp_path / "net.xml")


def test_int8_without_its_package(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"needs 'nncf'.*deeplab\[openvino-int8\]"):
        run(pair, tmp_path, precision="int8", calibrate=PHOTOS * 2)
    assert not [*tmp_path.iterdir()]
