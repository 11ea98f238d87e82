"""What a Core ML package says, and what its program computes where Core ML itself cannot run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from pairs import PHOTOS, SIZE  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import (  # noqa: E402
    ExportError,
    InputError,
    MissingExtraError,
    OutputError,
)
from deeplab.export import Exported, export  # noqa: E402
from deeplab.export import coreml as module  # noqa: E402
from deeplab.export.quiet import quiet  # noqa: E402
from deeplab.photo.images import read  # noqa: E402
from deeplab.photo.upsample import argmax_bilinear  # noqa: E402
from deeplab.runtimes.network_card import KEY, NetworkCard  # noqa: E402

COMPUTES = {"conv", "clip", "relu", "add", "reduce_mean", "upsample_bilinear", "concat"}
PREPARES = {"const", "sub", "mul", "transpose"}


def run(pair: Path, folder: Path, **given: object) -> Exported:
    return export(pair, "coreml", file=folder / "net.mlpackage", **given)


def specification(found: Exported) -> Any:
    with quiet():
        import coremltools

        return coremltools.models.MLModel(str(found.file), skip_model_load=True).get_spec()


def operations(found: Exported) -> dict[str, int]:
    return dict(module._count_operations(specification(found)))


@pytest.fixture
def frame() -> np.ndarray:
    from PIL import Image

    return np.array(Image.fromarray(read(PHOTOS[0])).resize(SIZE[::-1]))


def compute(found: Exported, frame: np.ndarray) -> np.ndarray:
    with quiet():  # coremltools warns as it is imported
        import mil
    return mil.run(found.file, frame)


def test_what_it_says(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net.mlpackage",
        "net.mlpackage.json",
    ]
    assert found.certificate.rounds == ()  # nothing here can run it
    description = specification(found).description
    (picture,), (logits,) = description.input, description.output
    assert picture.name == "image"
    kind = picture.type.imageType
    assert (kind.height, kind.width) == SIZE
    assert kind.colorSpace == kind.ColorSpace.Value("RGB")
    assert kind.WhichOneof("SizeFlexibility") is None
    assert logits.name == "logits"
    assert list(logits.type.multiArrayType.shape) == [1, 33, 25, 5]
    card = NetworkCard.from_json(description.metadata.userDefined[KEY], name="net")
    reference = Segmenter(pair)
    assert (card.labels, card.spec, card.any_size) == (reference.labels, reference.spec, False)
    assert description.metadata.license == "CC0-1.0"
    assert found.certificate.bytes == sum(
        part.stat().st_size for part in found.file.rglob("*") if part.is_file()
    )


def test_what_it_computes(pair: Path, tmp_path: Path, frame: np.ndarray) -> None:
    found = run(pair, tmp_path)
    assert {*operations(found)} == COMPUTES | PREPARES
    expected = Segmenter(pair).network(frame)
    answer = compute(found, frame)
    np.testing.assert_allclose(answer[0], expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_a_mask_with_a_preview(pair: Path, tmp_path: Path, frame: np.ndarray) -> None:
    found = run(pair, tmp_path, output="mask")
    description = specification(found).description
    (mask,) = description.output
    assert mask.name == "mask"
    assert list(mask.type.multiArrayType.shape) == [*SIZE]
    assert mask.type.multiArrayType.dataType == mask.type.multiArrayType.ArrayDataType.Value(
        "INT32"
    )
    told = description.metadata.userDefined
    assert told["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    preview = json.loads(told["com.apple.coreml.model.preview.params"])
    assert preview["labels"] == ["ground", "water", "wood", "road", "roof"]
    assert preview["colors"][1] == "#0000c8"
    expected = argmax_bilinear(Segmenter(pair).network(frame), *SIZE, align_corners=True)
    assert (compute(found, frame) == expected).mean() >= 0.9999


def test_float16(pair: Path, tmp_path: Path, frame: np.ndarray) -> None:
    whole = run(pair, tmp_path).certificate.bytes
    found = run(pair, tmp_path, precision="float16", overwrite=True)
    assert found.certificate.bytes < 0.7 * whole
    network, size = Segmenter(pair), SIZE
    expected = argmax_bilinear(network.network(frame), *size, align_corners=True)
    answer = compute(found, frame)[0]  # in float32: the weights are what is compared
    assert (argmax_bilinear(answer, *size, align_corners=True) == expected).mean() >= 0.999


def test_int8_is_for_the_weights(pair: Path, tmp_path: Path, frame: np.ndarray) -> None:
    found = run(pair, tmp_path, precision="int8")
    used = operations(found)
    assert found.certificate.int8_tensors == used["constexpr_affine_dequantize"] > 10
    expected = Segmenter(pair).network(frame)
    assert np.corrcoef(compute(found, frame).ravel(), expected.ravel())[0, 1] > 0.99
    with pytest.raises(InputError, match="calibrate: int8 in coreml files is for the weights"):
        run(pair, tmp_path, precision="int8", calibrate=PHOTOS, overwrite=True)


def test_what_was_written_is_read_again(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = module._describe

    def forget(model: Any, plan: Any) -> None:
        describe(model, plan)
        model.user_defined_metadata[KEY] = "{}"

    monkeypatch.setattr(module, "_describe", forget)
    with pytest.raises(ExportError, match=r"net\.mlpackage was written with card \{\}, expected"):
        run(pair, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_full_disk(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import coremltools

    def fail(model: object, target: str) -> None:
        Path(target).mkdir()
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")])

    monkeypatch.setattr(coremltools.models.MLModel, "save", fail)
    with pytest.raises(OutputError, match=r"net\.mlpackage: \[Errno 28\] No space left"):
        run(pair, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"deeplab\[coreml\]"):
        module.count_int8(tmp_path / "net.mlpackage")
