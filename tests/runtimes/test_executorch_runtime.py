"""ExecuTorch programs open alone; what is damaged or something else is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import (  # noqa: E402
    InputError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
)
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.runtimes import open_network  # noqa: E402
from deeplab.runtimes.network_card import KEY, NetworkCard  # noqa: E402

LABELS = LabelSet(("ground", "cat"))
SPEC = InputSpec(height=9, width=13, fit="stretch")
CARD = NetworkCard(spec=SPEC, labels=LABELS, output="logits", align_corners=True)


class Sums(torch.nn.Module):
    """Red plus green, and blue, of every fourth pixel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 9, 13, 3) uint8 to (1, 3, 4, 2) float32."""
        x = image[:, ::4, ::4].to(torch.float32)
        return torch.stack((x[..., 0] + x[..., 1], x[..., 2]), -1)


class Twice(torch.nn.Module):
    """No segmentation network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 4) to the same."""
        return 2 * x


def write(path: Path, module: torch.nn.Module, sample: torch.Tensor, card: str | None) -> Path:
    from deeplab.export.quiet import quiet

    with quiet():
        from executorch.exir import to_edge

        program = torch.export.export(module, (sample,))
        methods = {KEY: card} if card else {}
        path.write_bytes(to_edge(program, constant_methods=methods).to_executorch().buffer)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pte") / "m.pte"
    return write(path, Sums(), torch.zeros(1, 9, 13, 3, dtype=torch.uint8), CARD.to_json())


def test_the_file_alone_is_enough(model: Path) -> None:
    network = open_network(model, threads=1)
    assert (network.spec, network.labels, network.num_classes) == (SPEC, LABELS, 2)
    frame = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    picked = frame[::4, ::4].astype(np.float32)
    assert (network(frame) == np.stack((picked[..., :2].sum(-1), picked[..., 2]), -1)).all()
    first = network(frame)
    kept = first.copy()
    network(255 - frame)
    assert (first == kept).all()
    assert Segmenter(model)(np.zeros((20, 30, 3), np.uint8)).mask.shape == (20, 30)


def test_one_frame_only(model: Path) -> None:
    with pytest.raises(InputError, match=r"frame: got 13×9 pixels, but m\.pte takes 9×13 only"):
        open_network(model, threads=1)(np.zeros((13, 9, 3), np.uint8))


def test_without_a_card_the_labels_are_asked_for(tmp_path: Path) -> None:
    sample = torch.zeros(1, 9, 13, 3, dtype=torch.uint8)
    path = write(tmp_path / "m.pte", Sums(), sample, None)
    with pytest.raises(ModelError, match="does not say what its 2 classes are called"):
        Segmenter(path)
    known = Segmenter(path, labels=LABELS)
    assert (known.spec.height, known.spec.width) == (9, 13)
    frame = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    assert (known.network(frame)[..., 1] == frame[::4, ::4, 2]).all()


def test_it_is_silent(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_network(model, threads=1)(np.zeros((9, 13, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


def test_damage(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    for name, content in {"cut.pte": whole[:500], "no.pte": b"hello" * 99, "0.pte": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="ExecuTorch cannot run this file; it is damaged"):
            open_network(tmp_path / name, threads=1)
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        open_network(tmp_path / "missing.pte", threads=1)


def test_another_program_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.pte", Twice(), torch.zeros(1, 4), None)
    with pytest.raises(ModelError, match=r"is not a DeepLab: its input is float32 \[1, 4\]"):
        open_network(path, threads=1)


def test_executorch_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab\[executorch\]'"):
        open_network(model, threads=1)
