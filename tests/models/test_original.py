"""Networks of the original against its own numbers; ``tests/oracles/write_original.py`` ran it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import CASES, seeded_image, seeded_weight

from deeplab.errors import ConfigError
from deeplab.models import DeepLabConfig, build
from deeplab.models.nas import DropPath, max_pool_any
from deeplab.weights.tensorflow import expected_variables, from_tensorflow
from deeplab.weights.tensorflow_config import config_from_flags, guess_config

TOLERANCE = 2e-4


def _config(name: str) -> DeepLabConfig:
    case = CASES[name]
    config = config_from_flags(
        case["flags"],
        num_classes=case["num_classes"],
        output_stride=case["output_stride"],
        atrous_rates=case["atrous_rates"],
    )
    standard = case.get("weight_standardization", False)
    return dataclasses.replace(config, weight_standardization=standard)


def _variables(config: DeepLabConfig, scale: dict[str, float]) -> dict[str, np.ndarray]:
    found = {}
    for name, shape in expected_variables(config).values():
        if name.endswith("/depthwise_weights"):
            shape = (shape[2], shape[3], shape[0], shape[1])
        elif len(shape) == 4:
            shape = (shape[2], shape[3], shape[1], shape[0])
        found[name] = seeded_weight(name, shape, scale)
    return found


_RARE = ("hnasnet_two_taps", "pnasnet_os8", "pnasnet_os32")  # minutes add up
_CASES = [pytest.param(n, marks=[pytest.mark.oracles] * (n in _RARE)) for n in CASES]


@pytest.mark.parametrize("name", _CASES)
def test_the_logits_are_those_of_the_original(name: str) -> None:
    case, config = CASES[name], _config(name)
    variables = _variables(config, case["scale"])
    network = build(config, from_tensorflow(variables, config)).eval()
    image = torch.from_numpy(seeded_image(*case["size"])).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = network(image).permute(0, 2, 3, 1).numpy()
    with np.load(Path(__file__).with_name("original.npz")) as outputs:
        expected = outputs[name]
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", ["hnasnet", "hnasnet_head", "pnasnet", "pnasnet_os8"])
def test_a_checkpoint_tells_which_searched_network_it_is(name: str) -> None:
    config = _config(name)
    variables = {n: np.zeros(v.shape) for n, v in _variables(config, {}).items()}
    if config.atrous_rates:  # one branch, which no published network has
        with pytest.raises(Exception, match="atrous branches"):
            guess_config(variables)
        return
    found = guess_config(variables)
    for field in ("backbone", "nas_channels", "nas_classification_head", "num_classes"):
        assert getattr(found, field) == getattr(config, field)
    if config.backbone == "nas_pnasnet":  # HNASNet's features have stride 8 whatever is asked
        assert found.output_stride == config.output_stride


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (9, 5)])
def test_max_pooling_ignores_what_lies_outside(size: tuple[int, int], stride: int) -> None:
    x = -1 - torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(3))
    y = max_pool_any(x, 3, stride)
    assert y.shape[2:] == tuple(math.ceil(side / stride) for side in size)
    total = [max((math.ceil(s / stride) - 1) * stride + 3 - s, 0) for s in size]
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            top, left = row * stride - total[0] // 2, column * stride - total[1] // 2
            window = x[0, 0, max(0, top) : top + 3, max(0, left) : left + 3]
            assert y[0, 0, row, column] == window.max()


def test_paths_are_dropped_more_and_more_and_what_stays_makes_up_for_it() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.6), torch.ones(4000, 1, 2, 2)
    assert torch.equal(drop(x), x)  # nothing at the start
    for progress, keep in ((0.5, 0.8), (1.0, 0.6)):
        drop.progress.fill_(progress)
        y = drop(x)
        assert y.unique().tolist() == pytest.approx([0.0, 1 / keep])
        assert torch.equal(y, y[:, :1, :1, :1].expand_as(y))  # whole photos
        assert y.mean().item() == pytest.approx(1, abs=0.05)


def test_later_cells_drop_more_and_frozen_batch_norms_drop_nothing() -> None:
    config = DeepLabConfig(backbone="nas_hnasnet", nas_channels=1, drop_path_keep_prob=0.5)
    network = build(config)
    keeps = [cell.drop.keep for cell in network.backbone.cells]
    assert keeps == pytest.approx([1 - (i + 1) / 12 * 0.5 for i in range(12)])
    network.set_progress(2.0)  # the steps that follow the last one
    assert network.backbone.cells[0].drop.progress == 1
    assert network.backbone.cells[0].learns
    network.freeze_batch_norm()
    assert not network.backbone.cells[0].learns


@pytest.mark.parametrize("backbone", ["nas_pnasnet", "nas_hnasnet"])
def test_weights_of_a_training_that_dropped_paths_make_a_network_that_runs(backbone: str) -> None:
    stride = {"nas_pnasnet": 16, "nas_hnasnet": 8}[backbone]
    config = DeepLabConfig(
        backbone=backbone, nas_channels=1, output_stride=stride, drop_path_keep_prob=0.5
    )
    network = build(config, build(config).state_dict())
    assert not [name for name, buffer in network.named_buffers() if buffer.is_meta]
    network.to("cpu").set_progress(0.5)


def test_standardised_filters_have_mean_0_and_variance_1() -> None:
    config = DeepLabConfig(backbone="resnet_v1_18", weight_standardization=True)
    conv = build(config).backbone.blocks[0][0].conv1.conv
    used = conv.standard_weight().detach()
    assert used.mean((1, 2, 3)).abs().max() < 1e-6
    assert (used.var((1, 2, 3), correction=0) - 1).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"backbone": "nas_hnasnet", "output_stride": 16}, "output_stride: got 16 .* Choose 8."),
        ({"backbone": "nas_pnasnet", "output_stride": 4}, "Choose 8 or 16 or 32"),
        ({"drop_path_keep_prob": 0.5}, "Only the NAS backbones read it"),
        ({"backbone": "nas_pnasnet", "drop_path_keep_prob": 0.0}, "above 0 and at most 1"),
        ({"nas_channels": 8}, "Only the NAS backbones read it"),
        ({"weight_standardization": True}, "Only ResNets read it"),
        ({"backbone": "nas_pnasnet", "nas_remove_os32_stride": True}, "Only nas_hnasnet reads it"),
        ({"version": "v2", "backbone": "vgg16", "bounded_activation": True}, "v3 and v3"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DeepLabConfig(**values)


def test_a_searched_network_runs_at_its_own_output_stride_alone() -> None:
    network = build(DeepLabConfig(backbone="nas_pnasnet", nas_channels=1)).eval()
    with pytest.raises(ConfigError, match="one output stride for all its life; leave it at 16"):
        network(torch.zeros(1, 3, 33, 33), output_stride=8)
