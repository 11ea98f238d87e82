"""The Python of docs/runtimes.md opens what the page's commands write."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from documents import ROOT, blocks

NEEDS = ("torch", "onnxscript", "onnxruntime", "openvino", "executorch")


@pytest.mark.reference
@pytest.mark.integration
def test_the_python_opens_every_file(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in NEEDS:
        pytest.importorskip(package)
    from deeplab.export import export
    from deeplab.weights import import_file

    photo = ROOT / "examples/photos/astronaut.jpg"
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    import_file(reference / "models/deeplabv3_mnv2_pascal_quant.tflite", "mine")
    for to in ("onnx", "openvino", "executorch"):
        export("mine", to, size=(257, 257), photos=[photo])
    codes = [text for language, text in blocks(ROOT / "docs/runtimes.md") if language == "python"]
    assert len(codes) == 4
    answers = []
    for code in codes:
        known: dict[str, object] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ExecuTorch's imports warn
            exec(compile(code, "docs/runtimes.md", "exec"), known)
        answers.append(known)
    onnx, openvino, executorch, ours = answers
    assert onnx["names"][15] == "person"
    assert 15 in onnx["logits"].argmax(-1)
    assert abs(openvino["logits"] - onnx["logits"]).max() < 1e-3
    assert abs(executorch["logits"].numpy() - onnx["logits"]).max() < 1e-3
    assert executorch["card"] == openvino["card"]
    assert "person" in ours["result"].shares
