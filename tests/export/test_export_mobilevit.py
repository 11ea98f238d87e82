"""Files of MobileViTs answer as torch does, also where features are no whole patches."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pairs import PHOTOS, write_pair  # noqa: E402

from deeplab.export import FORMATS, export  # noqa: E402
from deeplab.models import DeepLabConfig  # noqa: E402

CONFIGS = {
    "v1": {"backbone": "mobilevit_xxs", "padding": "symmetric", "align_corners": False},
    "v2": {"backbone": "mobilevit_v2", "depth_multiplier": 0.25, "odd_patches": "zero"},
}


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "to"), [("v1", "tflite"), ("v2", "onnx")])
def test_answers_are_torchs(kind: str, to: str, tmp_path: Path) -> None:
    for package in FORMATS[to].needs:
        pytest.importorskip(package.replace("-", "_"))
    config = DeepLabConfig(**CONFIGS[kind], num_classes=5, head_channels=32, output_stride=16)
    pair = write_pair(tmp_path, config)  # 129×97: odd at stride 8 and 16
    found = export(pair, to, file=tmp_path / f"net{FORMATS[to].suffix}", photos=PHOTOS[:2])
    assert found.certificate.faults == ()
    for one in found.certificate.rounds:
        assert one.worst_equal_pixels >= 0.9999
        assert one.max_logit_difference < 1e-3
