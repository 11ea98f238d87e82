"""What is in a .pte file, and that ExecuTorch answers as torch does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")

from pairs import PHOTOS, SIZE  # noqa: E402

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import InputError, MissingExtraError  # noqa: E402
from deeplab.export import Exported, export  # noqa: E402
from deeplab.export import executorch as module  # noqa: E402
from deeplab.export.quiet import quiet  # noqa: E402
from deeplab.weights import open_release  # noqa: E402

TO_FLOAT = "dim_order_ops::_to_dim_order_copy"
"""From bytes to numbers; XNNPACK has no such operator."""


def run(pair: Path, folder: Path, **given: object) -> Exported:
    return export(pair, "executorch", file=folder / "net.pte", photos=PHOTOS, **given)


def graph(file: Path) -> bytes:
    """Return all that XNNPACK computes, as text."""
    with quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(file.read_bytes()).program
        parts = program.backend_delegate_data
        return b"".join(module._xnnpack_graph(bytes(part.data)) for part in parts)


def operators(file: Path) -> list[str]:
    """Return what is computed outside of XNNPACK, by the program."""
    with quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(file.read_bytes()).program
    (plan,) = (plan for plan in program.execution_plan if plan.name == "forward")
    assert [delegate.id for delegate in plan.delegates] == ["XnnpackBackend"]
    return [operator.name for operator in plan.operators]


def test_float32_answers_as_torch_does(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path)
    assert len(found.certificate.rounds) == 2
    for one in found.certificate.rounds:
        assert one.worst_equal_pixels >= 0.9999
        assert one.max_logit_difference < 1e-4
    assert found.certificate.int8_tensors == 0
    assert operators(found.file) == [TO_FLOAT]
    reference, alone = Segmenter(pair), Segmenter(found.file)
    assert alone.labels == reference.labels
    assert alone.spec == reference.spec


def test_a_mask_at_another_size_and_stride(pair: Path, tmp_path: Path) -> None:
    found = run(pair, tmp_path, output="mask", size=(65, 97), output_stride=8)
    assert min(one.worst_equal_pixels for one in found.certificate.rounds) >= 0.9999
    answer = Segmenter(found.file).network(np.full((65, 97, 3), 90, np.uint8))
    assert (answer.dtype, answer.shape) == (np.uint8, (65, 97))
    assert operators(found.file) == [TO_FLOAT, "aten::argmax"]


def test_int8(pair: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    kept = ["backbone.stem", "decoder.0.convs.0.pointwise"]
    found = run(pair, tmp_path, precision="int8", calibrate=PHOTOS * 2, keep_float=kept, allow=True)
    assert found.certificate.kept_float == tuple(kept)
    assert found.certificate.int8_tensors > 50
    assert operators(found.file) == [TO_FLOAT]
    convolutions = sum(weight.ndim == 4 for weight in open_release(pair).state_dict().values())
    convolutions += 1  # the pooled image is projected on its own
    in_float = len(kept) + 1  # and the last, which gives the logits
    assert graph(found.file).count(b'"xnn_datatype_qcint8"') == convolutions - in_float
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    small, whole = Segmenter(found.file)(photo).logits, Segmenter(pair)(photo).logits
    assert np.corrcoef(small.ravel(), whole.ravel())[0, 1] > 0.95


def test_float16_is_not_offered(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 'float16', but executorch files know float32, int8"):
        run(pair, tmp_path, precision="float16")


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(MissingExtraError, match=r"deeplab\[executorch\]"):
        module.count_int8(tmp_path / "net.pte")
