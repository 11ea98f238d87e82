"""Trained weights in every format that runs here, on photos they know to segment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from builds import build_once  # noqa: E402
from pairs import PHOTOS  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.evaluation.protocol import open_predictor  # noqa: E402
from deeplab.export import FORMATS, export  # noqa: E402
from deeplab.labels import VOC  # noqa: E402
from deeplab.weights import import_file, open_release, release  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.integration]


@pytest.fixture(autouse=True)
def _build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    build_once(monkeypatch)


@pytest.fixture(scope="module")
def photos(reference: Path) -> list[Path]:
    return [*PHOTOS, *sorted((reference / "photos").glob("*.jpg"))]


@pytest.fixture(scope="module")
def voc(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the public network: its pooling window fixes the size."""
    pair = tmp_path_factory.mktemp("voc") / "voc"
    import_file(reference / "models/deeplabv3_mnv2_pascal_quant.tflite", pair, labels=VOC)
    return pair


@pytest.fixture(scope="module")
def free(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same weights, pooling over the whole map at every size."""
    known = open_release(voc)
    config = dataclasses.replace(known.config, image_pooling_crop_size=None)
    spec = dataclasses.replace(known.input_spec, height=257, width=257)
    pair = tmp_path_factory.mktemp("free") / "free"
    release.save(pair, config, known.state_dict(), labels=known.labels, input_spec=spec)
    return pair


@pytest.mark.parametrize(
    ("to", "precision", "least"),
    [
        ("onnx", "float32", 0.9999),
        ("onnx", "float16", 0.999),
        ("openvino", "float32", 0.9999),
        ("openvino", "float16", 0.999),
        ("executorch", "float32", 0.9999),
    ],
)
def test_masks_are_torchs(
    to: str, precision: str, least: float, voc: Path, photos: list[Path], tmp_path: Path
) -> None:
    for package in FORMATS[to].needs:
        pytest.importorskip(package)
    file = tmp_path / f"voc{FORMATS[to].suffix}"
    found = export(voc, to, file=file, precision=precision, size=(257, 257), photos=photos)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= least
    predictor = open_predictor(file)  # as ``deeplab evaluate`` opens it
    assert predictor.describe()["input"] == "letterbox to 257×257"


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_masks_are_torchs_at_other_sizes(
    to: str, free: Path, photos: list[Path], tmp_path: Path
) -> None:
    for package in FORMATS[to].needs:
        pytest.importorskip(package)
    found = export(free, to, file=tmp_path / f"free{FORMATS[to].suffix}", photos=photos)
    assert [one.name for one in found.certificate.rounds] == ["257×257", "129×129"]
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    size = (321, 449)
    ours, torchs = (Segmenter(path, size=size, threads=1) for path in (found.file, f"{free}.json"))
    for photo in photos[:3]:
        assert (ours(photo).mask == torchs(photo).mask).mean() >= 0.9999
