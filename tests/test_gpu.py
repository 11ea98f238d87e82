"""What only a GPU can show; `make gpu` runs these first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import InputError, ModelError  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.weights import release  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
LABELS = LabelSet(("ground", "cat", "dog"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = DeepLabConfig(backbone="mobilenet_v2", num_classes=3)
    path = tmp_path_factory.mktemp("pair") / "net.safetensors"
    spec = InputSpec(height=257, width=257)
    release.save(path, config, build(config).state_dict(), labels=LABELS, input_spec=spec)
    return path


@pytest.mark.parametrize("device", ["cuda", "gpu", "auto"])
def test_the_mask_is_the_cpus(pair: Path, device: str) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (200, 257, 3), dtype=np.uint8)
    ours = Segmenter(pair, device=device, threads=1)
    assert ours.network.device != "cpu" or device == "auto"
    assert (ours(photo).mask == Segmenter(pair, threads=1)(photo).mask).mean() >= 0.999


def test_several_workers_share_the_gpu(pair: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (200, 257, 3), dtype=np.uint8)
    segmenter = Segmenter(pair, device="cuda")
    one = segmenter(photo).mask
    for result in segmenter.map([photo] * 6, workers=3):
        assert (result.mask == one).all()


def test_a_gpu_too_many_is_refused(pair: Path) -> None:
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"'torch' finds {count} of that kind here"):
        Segmenter(pair, device=f"cuda:{count}")


def test_too_little_memory_is_told(pair: Path) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(ModelError, match="the memory of 'cuda' is too small"):
            Segmenter(pair, device="cuda", size=(1025, 1025))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
