"""Configurations: what they refuse, what they derive, and that a file brings them back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from networks import NETWORKS

from deeplab.errors import ConfigError
from deeplab.models.config import DeepLabConfig
from deeplab.models.config_fields import CellBranch


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"backbone": "xception65"}, "Did you mean 'xception_65'"),
        ({"version": "v4"}, "Choose one of: v1, v2, v3, v3+"),
        ({"output_stride": 12}, "Choose one of 4, 8, 16, 32"),
        ({"version": "v1"}, "version='v3' with this backbone, or backbone='vgg16'"),
        ({"version": "v3", "decoder_output_stride": (4,)}, "use version='v3+' with (4,)"),
        ({"version": "v3+", "decoder_output_stride": (4, 8)}, "coarse to fine"),
        ({"version": "v3+", "decoder_output_is_logits": True}, "Set decoder_channels=21"),
        ({"backbone": "xception_65", "depth_multiplier": 0.5}, "leave it at 1.0"),
        ({"cascade_blocks": 3}, "v3 on a ResNet; set it to 0"),
        ({"squeeze_excitation": True, "image_pooling": False}, "Set image_pooling=True"),
        ({"num_classes": 1}, "at least 2; background is a class too"),
        ({"mirror_scale": -1.0}, "0 leaves the mirrored photo out"),
        ({"dropout": 1.0}, "a keep probability of 0.9 is dropout 0.1"),
        ({"pixel_std": (0.0, 1.0, 1.0)}, "above 0, in the units of the pixels"),
        ({"multi_grid": (1, 2)}, "Give three rates"),
        ({"atrous_rates": (0, 6)}, "at least 1"),
        ({"backbone_bn_decay": 1.0}, "PyTorch's momentum is 1 − decay"),
        ({"dense_prediction_cell": (CellBranch(rate=(1, 1), input=0),)}, "an earlier branch"),
    ],
)
def test_a_contradiction_is_refused_with_its_fix(values: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        DeepLabConfig(**values)
    assert fix in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_brings_it_back(name: str) -> None:
    config = NETWORKS[name]
    assert DeepLabConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"'num_clases'.*Did you mean 'num_classes'"):
        DeepLabConfig.from_dict({"num_clases": 21})


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"aspp": "false"}, "aspp: got 'false'. Give true or false, without quotes"),
        ({"num_classes": "21"}, "a whole number, without quotes"),
        ({"num_classes": True}, "a whole number, without quotes"),
        ({"dropout": None, "head_bn_eps": None}, "head_bn_eps: got None"),
        ({"atrous_rates": "6,12,18"}, "in JSON a list"),
        ({"dense_prediction_cell": [{"rate": 1}]}, "cannot read the branch"),
    ],
)
def test_a_file_with_values_of_another_type_is_refused(values: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        DeepLabConfig.from_dict(values)
    assert fix in str(error.value)


def test_nothing_is_left_open() -> None:
    may_be_none = {"image_pooling_crop_size"}
    for config in NETWORKS.values():
        values = config.to_dict()
        assert {name for name, value in values.items() if value is None} <= may_be_none


def test_describing_a_network_does_not_need_torch() -> None:
    code = (
        "import sys, deeplab.models; deeplab.models.DeepLabConfig(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
