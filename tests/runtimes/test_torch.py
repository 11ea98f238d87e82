"""A release pair runs in the segmenter exactly as its network runs by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deeplab import Segmenter  # noqa: E402
from deeplab.errors import InputError, ModelNotFoundError  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402
from deeplab.photo.images import InputSpec  # noqa: E402
from deeplab.photo.upsample import argmax_bilinear  # noqa: E402
from deeplab.weights import release  # noqa: E402

LABELS = LabelSet(("ground", "cat", "dog"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = DeepLabConfig(backbone="mobilenet_v2", num_classes=3, depth_multiplier=0.25)
    path = tmp_path_factory.mktemp("pair") / "tiny.safetensors"
    spec = InputSpec(height=65, width=65)
    release.save(path, config, build(config).state_dict(), labels=LABELS, input_spec=spec)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_the_mask_is_the_networks(pair: Path, suffix: str) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 65, 3), dtype=np.uint8)
    result = Segmenter(pair.with_suffix(suffix), threads=1)(photo)
    opened = release.open_release(pair)
    frame = np.full((65, 65, 3), 127, np.uint8)
    frame[:40] = photo
    model = build(opened.config, opened.state_dict()).eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(frame).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    logits = np.ascontiguousarray(logits.numpy())
    assert result.labels == LABELS
    np.testing.assert_allclose(result.logits, logits, rtol=0, atol=1e-5)
    wanted = argmax_bilinear(
        result.logits, 40, 65, align_corners=True, region=result.geometry.region
    )
    assert (result.mask == wanted).all()


def test_half_a_pair(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes(pair.read_bytes())
    with pytest.raises(ModelNotFoundError, match="A release is a pair"):
        Segmenter(tmp_path / "half.safetensors")


def test_its_normalisation_is_its_own(pair: Path) -> None:
    with pytest.raises(InputError, match="has its own inside"):
        Segmenter(pair, normalisation=((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_pair_runs_at_another_size_and_output_stride(pair: Path, stride: int) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (97, 129, 3), dtype=np.uint8)
    segmenter = Segmenter(pair, threads=1, size=(97, 129), output_stride=stride)
    assert (segmenter.spec.height, segmenter.spec.width) == (97, 129)
    opened = release.open_release(pair)
    model = build(opened.config, opened.state_dict()).eval()
    with torch.inference_mode():
        wanted = model(torch.from_numpy(photo).permute(2, 0, 1)[None], stride)[0].permute(1, 2, 0)
    found = segmenter(photo).logits
    assert found.shape[:2] == (96 // stride + 1, 128 // stride + 1)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5)


def test_a_size_beside_the_grid_is_refused_with_the_nearest(pair: Path) -> None:
    with pytest.raises(InputError, match=r"multiple of 16, plus 1\. The nearest is 97×113"):
        Segmenter(pair, size=(100, 110))
    with pytest.raises(InputError, match="The nearest is 65×65"):
        Segmenter(pair, size=(81, 81), output_stride=32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(pair: Path) -> None:
    with pytest.raises(InputError, match=r"'torch' finds no 'cuda' here. It needs an NVIDIA GPU"):
        Segmenter(pair, device="cuda")


def test_operators_are_timed_in_their_order(pair: Path) -> None:
    network = Segmenter(pair, threads=1).network
    found = network.time_operators(np.zeros((65, 65, 3), np.uint8))
    kinds = [kind for kind, _, _ in found]
    convolutions = sum(isinstance(one, torch.nn.Conv2d) for one in network.model.modules())
    assert kinds.count("aten::conv2d") == convolutions
    assert all(ms >= 0 for _, _, ms in found)


def test_every_network_keeps_its_own_number_of_threads(pair: Path) -> None:
    before = torch.get_num_threads()
    try:
        segmenters = {count: Segmenter(pair, threads=count) for count in (2, 1)}
        for count in (2, 1, 2):
            segmenters[count](np.zeros((65, 65, 3), np.uint8))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
