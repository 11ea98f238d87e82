"""What every network does, whatever its weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, make, photo

from deeplab.errors import ConfigError, InputError, WeightsError
from deeplab.models import DeepLab, DeepLabConfig, build, predict
from deeplab.models.backbones import BACKBONES
from deeplab.models.inference import pad_to_stride
from deeplab.models.layers import BatchNorm2d, plan_strides, same_padding
from deeplab.models.mobilenet_v3 import SqueezeExcitation

EVERY = pytest.mark.parametrize("name", NETWORKS)


def ceil_divide(size: int, stride: int) -> int:
    return -(-size // stride)


@EVERY
@torch.inference_mode()
def test_it_takes_any_size_and_says_something_about_every_pixel(name: str) -> None:
    model = make(name)
    for height, width in ((1, 1), (33, 33), (34, 47)):
        probabilities = predict(model, photo(height, width))
        assert probabilities.shape == (1, model.config.num_classes, height, width)
        assert torch.isfinite(probabilities).all()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(1, height, width))


@torch.inference_mode()
def test_a_whole_street_photo_fits() -> None:
    logits = make("v3-mobilenet")(photo(1025, 2049))
    assert logits.shape == (1, 21, 65, 129)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["v3-mobilenet", "v3+-beta", "v3+-xception", "v3-resnet18"])
def test_the_grid_of_the_logits_is_the_photo_divided_by_their_stride(name: str) -> None:
    model = make(name)
    for stride in (8, 32):
        logits = model(photo(65, 98), stride)
        finest = model.logits_stride(stride)
        assert logits.shape[2:] == (ceil_divide(65, finest), ceil_divide(98, finest))


@EVERY
@torch.inference_mode()
def test_bytes_and_floats_are_the_same_photo(name: str) -> None:
    model, image = make(name), photo(33, 49)
    torch.testing.assert_close(model(image), model(image.float()))


@torch.inference_mode()
def test_a_mirror_makes_the_answer_symmetric_outside_training() -> None:
    image = photo(49, 65)
    model, plain = (mirrored_at(scale) for scale in (1.0, 0.0))
    expected = (plain(image) + plain(image.flip(3)).flip(3)) / 2
    assert not torch.allclose(plain(image), expected, rtol=1e-2)
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(image.flip(3)).flip(3), expected, rtol=1e-4, atol=1e-4)
    model.train()
    model.freeze_batch_norm()
    torch.testing.assert_close(model(image), plain(image))


@torch.inference_mode()
def test_the_mirror_image_may_be_smaller() -> None:
    image = photo(49, 65)
    model, plain = (mirrored_at(scale) for scale in (0.5, 0.0))
    logits = plain(image)
    small = F.interpolate(image.float(), (25, 33), mode="bilinear", align_corners=True)
    mirrored = F.interpolate(
        plain(small.flip(3)), logits.shape[2:], mode="bilinear", align_corners=True
    )
    expected = (logits + mirrored.flip(3)) / 2
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mirrored_at(1.0)(image), expected, rtol=1e-2)


def mirrored_at(scale: float) -> DeepLab:
    model = make("v3+-mirror")
    config = dataclasses.replace(model.config, mirror_scale=scale)
    return build(config, model.state_dict()).eval()


CASCADE = DeepLabConfig(backbone="resnet_v1_18", cascade_blocks=3, multi_grid=(1, 2, 1))
BODIES = [DeepLabConfig(version="v1" if name == "vgg16" else "v3", backbone=name)
          for name in BACKBONES
          # The former run at one stride, the latter look at the whole map.
          if not name.startswith(("nas_", "mobilevit_"))]  # fmt: skip


@pytest.mark.parametrize("config", [*BODIES, CASCADE], ids=lambda config: config.backbone)
@torch.inference_mode()
def test_features_at_stride_4_hold_those_at_every_other_stride(config: DeepLabConfig) -> None:
    model = make(config)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            # The one part that looks at the whole map: its gates depend on how many samples
            # there are. Left with its biases it weighs channels, but always the same way.
            torch.nn.init.zeros_(module.expand.conv.weight)
            torch.nn.init.normal_(module.expand.conv.bias)
    x = model.normalise(photo(65, 97))
    dense, _ = model.backbone(x, 4)
    assert dense.shape[2:] == (17, 25)
    assert dense.std() > 0
    # In the small MobileNetV3 the last strided block has as many channels out as in, so that
    # losing its stride gives it a residual connection: the original does this too.
    for stride in (8, 16) if config.backbone == "mobilenet_v3_small_seg" else (8, 16, 32):
        direct, _ = model.backbone(x, stride)
        step = stride // 4
        torch.testing.assert_close(
            direct, dense[:, :, ::step, ::step], rtol=1e-4, atol=1e-5 * float(dense.abs().max())
        )


@EVERY
def test_gradients_reach_every_parameter(name: str) -> None:
    model = make(name).train()
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    image = torch.cat([photo(65, 65, 1), photo(65, 65, 2)])
    model(image).pow(2).mean().backward()
    unreached = [
        name
        for name, value in model.named_parameters()
        if value.grad is None or not torch.isfinite(value.grad).all() or not value.grad.any()
    ]
    assert unreached == []


def test_running_statistics_change_in_training_only_and_not_when_frozen() -> None:
    model, image = make("v3-mobilenet"), torch.cat([photo(33, 33, 1), photo(33, 33, 2)])
    norm = model.backbone.stem.norm
    assert isinstance(norm, BatchNorm2d)
    assert norm.running_mean is not None
    before = norm.running_mean.clone()

    model(image)
    torch.testing.assert_close(norm.running_mean, before)
    model.train()
    model.freeze_batch_norm()
    model.train()
    model(image)
    torch.testing.assert_close(norm.running_mean, before)
    model.freeze_batch_norm(False)
    seen = model.backbone.stem.conv(model.normalise(image), 2)
    model(image)
    # The original's decay 0.997 is the weight of the old average.
    torch.testing.assert_close(norm.running_mean, 0.997 * before + 0.003 * seen.mean((0, 2, 3)))
    assert norm.running_var is not None
    torch.testing.assert_close(
        norm.running_var, 0.997 + 0.003 * seen.var((0, 2, 3)), rtol=1e-4, atol=1e-6
    )


def test_a_batch_of_one_trains_though_its_pooled_image_has_no_variance() -> None:
    model = make("v3-mobilenet").train()
    pooled = model.head.pooling.project.norm  # type: ignore[union-attr]
    before = pooled.running_mean.clone()  # type: ignore[union-attr, operator]
    assert torch.isfinite(model(photo(33, 33))).all()
    torch.testing.assert_close(pooled.running_mean, before)  # type: ignore[union-attr]


def test_dropout_acts_in_training_only() -> None:
    model = make("v3-mobilenet")
    image = photo(33, 33)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(image))
        model.head.dropout.train()  # type: ignore[union-attr, operator]
        assert not torch.equal(model(image), model(image))


@EVERY
@torch.inference_mode()
def test_half_the_bits_and_channels_last_give_the_same_answer(name: str) -> None:
    model, image = make(name), photo(33, 49)
    want = model(image)
    scale = float(want.abs().max())
    last = model.to(memory_format=torch.channels_last)
    got = last(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * scale)
    half = model.to(torch.bfloat16)(image)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - want).abs().max()) < 0.15 * scale


@EVERY
@torch.inference_mode()
def test_it_compiles_in_one_graph(name: str) -> None:
    model, image = make(name), photo(33, 49)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(image, 8), model(image, 8))


@EVERY
@torch.inference_mode()
def test_it_exports(name: str) -> None:
    model, image = make(name), photo(34, 49)
    exported = torch.export.export(model, (image,))
    torch.testing.assert_close(exported.module()(image), model(image))


@pytest.mark.parametrize("name", ["v3-mobilenet", "v3+-beta"])
def test_an_exported_graph_takes_other_sizes(name: str) -> None:
    model = make(name)
    height, width = (
        torch.export.Dim("height", min=64, max=4096),
        torch.export.Dim("width", min=64, max=4096),
    )
    with torch.no_grad():
        exported = torch.export.export(
            model, (photo(130, 161).float(),), dynamic_shapes=({2: height, 3: width},)
        )
        for size in ((130, 161), (97, 66)):
            image = photo(*size).float()
            torch.testing.assert_close(exported.module()(image), model(image), rtol=1e-4, atol=1e-5)


# -- prediction ----------------------------------------------------------------------------------


@torch.inference_mode()
def test_mirroring_the_photo_mirrors_the_averaged_prediction() -> None:
    model, image = make("v3-mobilenet"), photo(40, 57)
    ours = predict(model, image, scales=(0.75, 1.0), flip=True)
    mirrored = predict(model, image.flip(3), scales=(0.75, 1.0), flip=True)
    torch.testing.assert_close(mirrored.flip(3), ours)


@torch.inference_mode()
def test_padding_extends_with_the_mean_pixel_and_is_cropped_off() -> None:
    model, image = make("v3-mobilenet"), photo(40, 57)
    padded = pad_to_stride(model, image)
    assert padded.shape == (1, 3, 49, 65)
    torch.testing.assert_close(padded[:, :, :40, :57], image.float())
    assert (padded[:, :, 40:] == 127.5).all()
    assert (padded[:, :, :, 57:] == 127.5).all()
    want = predict(model, padded)[:, :, :40, :57]
    torch.testing.assert_close(predict(model, image, pad=True), want)
    assert pad_to_stride(model, photo(33, 49)).shape == (1, 3, 33, 49)


@torch.inference_mode()
def test_the_scales_asked_for_take_the_place_of_the_networks_own() -> None:
    model, image = make("v3-pyramid"), photo(40, 57)
    want = model.upsample(model(image), (40, 57)).softmax(1)
    torch.testing.assert_close(predict(model, image), want)
    halves = [
        model.upsample(model.one_scale(image, scale=scale), (40, 57)).softmax(1)
        for scale in (1.0, 1.5)
    ]
    torch.testing.assert_close(predict(model, image, scales=(1.0, 1.5)), sum(halves) / 2)


def test_prediction_leaves_no_trace() -> None:
    model, image = make("v3-mobilenet"), photo(33, 33)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = predict(model, image)
        predict(model, image, output_stride=8, scales=(0.5, 1.5), flip=True, pad=True)
        torch.testing.assert_close(predict(model, image), first)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_scales_must_be_above_zero() -> None:
    with pytest.raises(InputError, match="above 0"):
        predict(make("v3-mobilenet"), photo(9, 9), scales=(0.0,))


def test_what_is_not_a_batch_of_photos_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"image\.permute\(2, 0, 1\)\[None\]"):
        make("v3-mobilenet")(torch.zeros(33, 33, 3))


def test_an_output_stride_that_no_plan_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match="Choose one of 4, 8, 16, 32"):
        make("v3-mobilenet")(photo(9, 9), 12)


@torch.inference_mode()
def test_built_with_weights_it_is_the_network_that_had_them() -> None:
    model, image = make("v3-torchvision"), photo(33, 49)
    again = build(model.config, model.state_dict()).eval()
    assert torch.equal(again(image), model(image))
    half = {name: value.bfloat16() for name, value in model.state_dict().items()}
    assert build(model.config, half).eval()(image).dtype == torch.bfloat16


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"do not fit this v3 on resnet_v1_18"):
        build(NETWORKS["v3-resnet18"], make("v3-mobilenet").state_dict())


# -- v1, layer by layer --------------------------------------------------------------------------


@torch.inference_mode()
def test_v1_is_the_network_of_its_published_prototxt() -> None:
    model = make("v1")
    torch.nn.init.normal_(model.backbone.blocks[4][2].bias)
    x = model.normalise(photo(66, 83))
    channels = [(64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3]
    for block, depths in enumerate(channels):
        rate = 2 if block == 4 else 1
        for index, _ in enumerate(depths):
            conv = model.backbone.blocks[block][index]
            x = F.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate).relu()
        x = F.max_pool2d(x, 3, 2 if block < 3 else 1, 1, ceil_mode=True)
    fc6, fc7 = model.head.fc6, model.head.fc7  # type: ignore[union-attr]
    x = F.conv2d(x, fc6.weight, fc6.bias, padding=12, dilation=12).relu()  # type: ignore[union-attr, arg-type]
    x = F.conv2d(x, fc7.weight, fc7.bias).relu()  # type: ignore[union-attr, arg-type]
    assert model.classifier is not None
    want = F.conv2d(x, model.classifier.weight, model.classifier.bias)
    torch.testing.assert_close(model(photo(66, 83)), want)


def test_v1_has_the_parameters_that_its_paper_states() -> None:
    with torch.device("meta"):
        plain = build(DeepLabConfig(version="v1", backbone="vgg16"))
        msc = build(DeepLabConfig(version="v1", backbone="vgg16", multi_scale_features=True))
    assert sum(p.numel() for p in plain.parameters()) == 20_505_429  # 20.5 M in table 2
    # 1412.7062 section 4.2: five branches of 128 channels widen the last layer by 640.
    assert msc.classifier is not None
    assert msc.classifier.in_channels - 1024 == 640


# -- the rules -----------------------------------------------------------------------------------


def test_the_layer_that_loses_its_stride_keeps_the_old_rate() -> None:
    strides = [2, 1, 2, 2, 2, 1, 2, 1]
    assert plan_strides(strides, 8)[4:] == [(1, 1), (1, 2), (1, 2), (1, 4)]
    assert plan_strides(strides, 8, lost_stride_rate="new")[4:] == [(1, 2), (1, 2), (1, 4), (1, 4)]
    assert plan_strides(strides, 32) == [(stride, 1) for stride in strides]


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 33])
def test_same_padding_is_tensorflows(size: int, stride: int, kernel: int) -> None:
    want = max((ceil_divide(size, stride) - 1) * stride + kernel - size, 0)
    assert same_padding(size, kernel, stride) == want


def test_the_heads_rates_follow_the_output_stride() -> None:
    config = DeepLabConfig(version="v3", backbone="resnet_v1_50")
    assert [config.rates(s) for s in (32, 16, 8)] == [(3, 6, 9), (6, 12, 18), (12, 24, 36)]
    early = DeepLabConfig(version="v2", backbone="vgg16")
    assert [early.rates(s) for s in (8, 4)] == [(6, 12, 18, 24), (12, 24, 36, 48)]


def test_weights_start_as_in_the_original() -> None:
    torch.manual_seed(0)
    config = DeepLabConfig(version="v3", backbone="mobilenet_v2", atrous_rates=(6,))
    state = build(config).state_dict()
    deviations = {
        "backbone.blocks.16.project.conv.weight": 0.09,
        "head.branches.1.depthwise.conv.weight": 0.33,
        "head.branches.1.pointwise.conv.weight": 0.06,
        "classifier.weight": 0.01,
    }
    for name, deviation in deviations.items():
        # A normal distribution cut at two deviations keeps 0.88 of its deviation.
        assert float(state[name].std()) == pytest.approx(0.88 * deviation, rel=0.05), name
        assert float(state[name].abs().max()) <= 2 * deviation
    assert not state["classifier.bias"].any()
