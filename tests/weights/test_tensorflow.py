"""Variables and flags of the original: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import parity
from deeplab.errors import ConfigError, WeightsError
from deeplab.models import DeepLabConfig, build
from deeplab.models.config_fields import DPC_TOP1
from deeplab.weights.tensorflow import expected_variables, from_tensorflow, read_tensorflow
from deeplab.weights.tensorflow_config import config_from_flags, guess_config

SMALL = DeepLabConfig(depth_multiplier=0.5)


def make_variables(config: DeepLabConfig, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return random variables, laid out as a checkpoint of this network has them."""
    generator = np.random.default_rng(seed)
    variables = {}
    for name, shape in expected_variables(config).values():
        value = generator.standard_normal(shape).astype(np.float32)
        if name.endswith("depthwise_weights"):
            value = value.transpose(2, 3, 0, 1)
        elif name.endswith("/weights"):
            value = value.transpose(2, 3, 1, 0)
        variables[name] = value
    return variables


def test_every_weight_gets_its_variable_in_our_layout() -> None:
    variables = make_variables(SMALL)
    state = from_tensorflow(variables, SMALL)
    build(SMALL, state)
    stem = variables["MobilenetV2/Conv/weights"]
    assert stem.shape == (3, 3, 3, 16)
    np.testing.assert_array_equal(
        state["backbone.stem.conv.weight"].numpy(), stem.transpose(3, 2, 0, 1)
    )
    depthwise = variables["MobilenetV2/expanded_conv/depthwise/depthwise_weights"]
    assert depthwise.shape == (3, 3, 16, 1)
    np.testing.assert_array_equal(
        state["backbone.blocks.0.depthwise.conv.weight"].numpy()[5, 0], depthwise[:, :, 5, 0]
    )
    np.testing.assert_array_equal(
        state["head.project.norm.running_var"].numpy(),
        variables["concat_projection/BatchNorm/moving_variance"],
    )


def test_what_training_leaves_behind_is_ignored_and_said() -> None:
    variables = make_variables(SMALL)
    weights = "aspp0/weights"
    extra = {
        "global_step": np.int64(5),
        f"{weights}/Momentum": np.zeros_like(variables[weights]),
        f"{weights}/ExponentialMovingAverage": variables[weights] + 1,
        "aspp0/act_quant/min": np.float32(0),
    }
    _, state, report = read_tensorflow({**variables, **extra}, SMALL)
    assert set(report.ignored) == set(extra)
    assert len(report.kept) == len(variables)
    assert report.missing == ()
    assert "ignored 4" in str(report)

    _, averaged, report = read_tensorflow({**variables, **extra}, SMALL, prefer_ema=True)
    torch.testing.assert_close(
        averaged["head.branches.0.conv.weight"], state["head.branches.0.conv.weight"] + 1
    )
    assert f"{weights}/ExponentialMovingAverage" in report.kept
    assert weights in report.ignored


def test_a_missing_and_an_unknown_variable_are_named() -> None:
    variables = make_variables(SMALL)
    variables["aspp1/weights"] = variables.pop("aspp0/weights")
    with pytest.raises(WeightsError) as error:
        from_tensorflow(variables, SMALL)
    assert "missing (1): aspp0/weights" in str(error.value)
    assert "unexpected (1): aspp1/weights" in str(error.value)


def test_a_variable_of_another_shape_is_named() -> None:
    variables = make_variables(SMALL)
    with pytest.raises(WeightsError, match="logits/semantic/biases has"):
        from_tensorflow(variables, DeepLabConfig(depth_multiplier=0.5, num_classes=19))


def test_a_classification_checkpoint_gives_a_backbone() -> None:
    variables = {n: v for n, v in make_variables(SMALL).items() if n.startswith("MobilenetV2/")}
    variables["MobilenetV2/Logits/Conv2d_1c_1x1/weights"] = np.zeros((1, 1, 1280, 1001))
    _, state, report = read_tensorflow(variables, SMALL, strict=False)
    assert all(key.startswith("backbone.") for key in state)
    assert "logits/semantic/weights" in report.missing
    assert report.ignored == ("MobilenetV2/Logits/Conv2d_1c_1x1/weights",)
    build(SMALL).load_state_dict(state, strict=False)


def test_weights_that_the_original_never_had_are_refused() -> None:
    with pytest.raises(WeightsError, match="TensorFlow release has no v2"):
        from_tensorflow({}, DeepLabConfig(version="v2", backbone="resnet_v1_101"))
    with pytest.raises(WeightsError, match="No backbone of the original"):
        guess_config({"InceptionV3/Conv/weights": np.zeros((1, 1, 1, 1))})


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        DeepLabConfig(depth_multiplier=0.35, num_classes=7),
        DeepLabConfig(depth_multiplier=1.4),
        DeepLabConfig(version="v3+", backbone="mobilenet_v2", num_classes=151),
        DeepLabConfig(version="v3+", backbone="mobilenet_v2", decoder_output_stride=(8, 4)),
        DeepLabConfig(version="v3+", backbone="resnet_v1_50_beta", aspp_separable=False,
                      decoder_separable=False),
        DeepLabConfig(version="v3+", backbone="xception_41", dense_prediction_cell=DPC_TOP1),
        DeepLabConfig(version="v3", backbone="resnet_v1_18"),
        DeepLabConfig(backbone="mobilenet_edgetpu", depth_multiplier=0.75, head_channels=128,
                      num_classes=19),
    ],
)  # fmt: skip
def test_names_and_shapes_tell_which_network_it_is(config: DeepLabConfig) -> None:
    assert guess_config(make_variables(config)) == config


@pytest.mark.reference
@pytest.mark.parametrize("name", parity.fixture_names("tf_deeplab"))
def test_the_guess_fits_every_checkpoint_of_the_original(name: str) -> None:
    spec = parity.load_fixture(name).spec
    shapes = {n: np.broadcast_to(np.float32(0), s) for n, s in spec["variables"].items()}
    config, _, report = read_tensorflow(shapes)
    assert report.missing == ()
    assert len(report.kept) == len(shapes)
    given = spec["model"]
    assert config.backbone == given["model_variant"]
    assert config.num_classes == given["num_classes"]
    assert config.depth_multiplier == float(spec["all_flags"]["depth_multiplier"])


def test_flags_are_read_as_the_command_line_gives_them() -> None:
    flags = {
        "model_variant": "xception_71",
        "decoder_output_stride": ["4"],
        "image_pooling_crop_size": "769,769",
        "image_pooling_stride": ["4", "5"],
        "add_image_level_feature": "true",
        "multi_grid": [1, 2, 4],
        "dense_prediction_cell_json": "core/dense_prediction_cell_branch5_top1_cityscapes.json",
        "merge_method": "avg",
    }
    config = config_from_flags(flags, num_classes=19, output_stride=8, atrous_rates=(12, 24, 36))
    assert config.version == "v3+"
    assert config.image_pooling_crop_size == (769, 769)
    assert config.image_pooling_stride == (4, 5)
    assert config.multi_grid == (1, 2, 4)
    assert config.dense_prediction_cell == DPC_TOP1
    assert config.rates(16) == (6, 12, 18)
    assert config_from_flags({}, num_classes=21, output_stride=16) == DeepLabConfig()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"aspp_with_batch_norm": "false"}, "sums one classifier per rate"),
        ({"image_pooling_crop_size": "513"}, "Give height,width"),
        ({"dense_prediction_cell_json": "mine.json"}, "give its list of branches"),
    ],
)
def test_a_flag_that_cannot_be_honoured_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_from_flags(flags, num_classes=21, output_stride=16, atrous_rates=(6, 12, 18))
