"""jfzhang95's, mmsegmentation's and smp's networks give here what their own code gives.

The numbers were measured with their code (jfzhang95/pytorch-deeplab-xception at its last commit,
mmsegmentation 1.2.2, segmentation-models-pytorch 0.5.0) on the weights and the picture of `peers`:
a digest of names and shapes, the logits of the last pixel, and the mean of the absolute logits.
"""

from __future__ import annotations

from typing import Any

import peers
import pytest
import torch

from deeplab.errors import WeightsError
from deeplab.models import DeepLabConfig, build
from deeplab.weights import from_state_dict, jfzhang95, openmmlab, smp
from deeplab.weights.checkpoints import Checkpoint
from deeplab.weights.naming import Layer, aspp_layers, resnet_layers
from deeplab.weights.state_dicts import from_checkpoint

JF = DeepLabConfig(
    version="v3+", backbone="mobilenet_v2", num_classes=5, atrous_rates=(6, 12, 18),
    aspp_separable=False, decoder_separable=False, low_level="block",
)  # fmt: skip
MM = {"num_classes": 7, "atrous_rates": (12, 24, 36), "projection": "3x3", "low_level": "block"}
WIDE: Any = {"head_channels": 512, "decoder_channels": 512, "stride_unit": "first"}
GRID = """
model = dict(type='EncoderDecoder',
    backbone=dict(type='ResNetV1c', depth=50, dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1),
                  multi_grid=(1, 2, 4), contract_dilation=True, style='pytorch'),
    decode_head=dict(type='ASPPHead', dilations=(1, 6, 12, 18), align_corners=False))
"""


def jf_layers(backbone: str) -> tuple[DeepLabConfig, list[Layer]]:
    config = JF
    layers = list(jfzhang95._mobilenet_v2_layers())
    if backbone == "resnet":
        config = DeepLabConfig(
            version="v3+", backbone="resnet_v1_50", num_classes=5, aspp_separable=False,
            decoder_separable=False, low_level="block", stride_unit="first",
        )  # fmt: skip
        layers = list(resnet_layers("backbone.", 50))
    return config, [*layers, *jfzhang95._head_layers(), ("classifier", "decoder.last_conv.8", None)]


def mm_layers(backbone: str, *, plus: bool, deep: bool) -> tuple[DeepLabConfig, list[Layer]]:
    values: Any = {**MM, "version": "v3+" if plus else "v3", "aspp_separable": plus}
    if backbone == "mobilenet":
        config = DeepLabConfig(**values, **{**WIDE, "stride_unit": "last"})
        layers = list(openmmlab._mobilenet_layers())
    else:
        depth = int(backbone.removeprefix("resnet"))
        narrow = {"head_channels": 128, "decoder_channels": 128, "low_level_channels": 12}
        config = DeepLabConfig(
            **values, **{**WIDE, **(narrow if depth == 18 else {})},
            backbone=f"resnet_v1_{depth}{'_beta' if deep else ''}",
            stem_channels=(32, 32, 64) if deep else (64,),
        )  # fmt: skip
        layers = list(openmmlab._resnet_layers(depth, deep=deep))
    layers += openmmlab._head_layers(4, plus=plus)
    return config, [*layers, ("classifier", "decode_head.conv_seg", None)]


def smp_layers(depth: int, *, plus: bool) -> tuple[DeepLabConfig, list[Layer]]:
    config = DeepLabConfig(
        version="v3+" if plus else "v3", backbone=f"resnet_v1_{depth}", num_classes=7,
        stride_unit="first", atrous_rates=(12, 24, 36), aspp_separable=plus, separable_norm=False,
        post_aspp="separable" if plus else "conv", low_level="block", decoder_convs=1,
    )  # fmt: skip
    aspp = "decoder.aspp.0." if plus else "decoder.aspp."
    return config, [
        *resnet_layers("encoder.", depth),
        *aspp_layers(aspp, separable="" if plus else None),
        *smp._head_layers(aspp, plus=plus),
        ("classifier", "segmentation_head.0", None),
    ]


CASES: dict[str, tuple[Any, int | None, str, int, list[float], float]] = {
    "jf mobilenet, stride 16": (jf_layers("mobilenet"), 16, "", 3705699662,
        [0.2137, 0.1275, -1.4468, -0.4183, -0.8479], 1.2746),
    "jf mobilenet, stride 8": (jf_layers("mobilenet"), 8, "", 3705699662,
        [0.2262, 0.4143, -1.2729, -0.3276, -0.5379], 1.2454),
    "jf resnet": (jf_layers("resnet"), 16, "", 1390070567,
        [9.1015, 6.8274, -11.4302, -0.2111, -18.2062], 26.167),
    "mm mobilenet": (mm_layers("mobilenet", plus=True, deep=False), None, "", 1171811577,
        [-0.0315, 0.1536, -0.2006, -0.015, 0.1888], 0.7505),
    "mm resnet18": (mm_layers("resnet18", plus=True, deep=True), None, "", 1544914545,
        [-1.2454, -0.7586, 0.3901, 1.2153, 0.3028], 2.9017),
    "mm resnet50, multi-grid": (mm_layers("resnet50", plus=False, deep=True), None, GRID, 418557397,
        [-4.3987, 30.431, 6.0167, 2.2362, -2.8035], 16.8073),
    "smp resnet18, v3+, stride 8": (smp_layers(18, plus=True), 8, "", 2689484221,
        [2.5738, 2.2685, 1.0352, -2.6277, -2.5019], 7.3553),
    "smp resnet34, v3+, stride 16": (smp_layers(34, plus=True), 16, "", 4215081002,
        [10.2254, 11.2467, 8.8265, -9.5682, -13.5959], 27.8944),
    "smp resnet18, v3, stride 8": (smp_layers(18, plus=False), 8, "", 2564260257,
        [3.4008, -1.9268, 0.9584, -1.965, 1.3213], 2.8664),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_peer_s_own_code(name: str):
    (config, layers), stride, text, digest, corner, mean = CASES[name]
    shapes = peers.shapes_of(config, layers)
    assert peers.digest(shapes) == digest
    checkpoint = Checkpoint(tensors=peers.draw(shapes), facts={"meta": {"cfg": text}})
    config, state, report = from_checkpoint(checkpoint, output_stride=stride)
    assert len(report.kept) == len(shapes)
    network = build(config, state).eval()
    with torch.inference_mode():
        size = (64, 80) if name.startswith("smp") else (65, 81)
        logits = network(peers.image(*size))
        if name.startswith(("jf", "smp")):
            logits = network.upsample(logits, size)
    assert logits.abs().mean().item() == pytest.approx(mean, rel=1e-4)
    assert logits[0, :5, -1, -1].tolist() == pytest.approx(corner, rel=2e-3, abs=2e-4)


def small_mm() -> dict[str, torch.Tensor]:
    return peers.draw(peers.shapes_of(*mm_layers("resnet18", plus=True, deep=True)))


def test_openmmlab_s_own_notes_decide_what_weights_do_not_tell():
    state = small_mm()
    text = """
norm_cfg = dict(type='SyncBN')
model = dict(data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=False),
    backbone=dict(depth=18, dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1), contract_dilation=False),
    decode_head=dict(dilations=(1, 6, 12, 18), align_corners=True))
"""
    names = tuple("abcdefg")
    meta = {
        "cfg": text,
        "dataset_meta": {"classes": names, "palette": [[i, 0, 0] for i in range(7)]},
    }
    config, _, report = from_checkpoint(Checkpoint(tensors=state, facts={"meta": meta}))
    assert config.align_corners
    assert (config.output_stride, config.rates_stated_at) == (16, 16)
    assert config.atrous_rates == (6, 12, 18)
    assert config.lost_stride_rate == "new"
    assert (config.channel_order, config.pixel_mean, config.pixel_std) == (
        "bgr",
        (3, 2, 1),
        (6, 5, 4),
    )
    assert report.labels is not None
    assert (report.labels.names, report.labels.colours[3]) == (names, (3, 0, 0))
    plain, _, report = from_checkpoint(Checkpoint(tensors=state))
    assert (plain.output_stride, plain.align_corners, plain.channel_order) == (8, False, "rgb")
    old = {"meta": {"CLASSES": list(names), "PALETTE": None}}
    labels = from_checkpoint(Checkpoint(tensors=state, facts=old))[2].labels
    assert labels is not None
    assert labels.names == names
    for useless in ("model = f(", "model = load()", "(" * 5000, "x = 1"):
        facts = {"meta": {"cfg": useless}}
        assert from_checkpoint(Checkpoint(tensors=state, facts=facts))[0] == plain
    caffe = {"meta": {"cfg": "model = dict(backbone=dict(style='caffe'))"}}
    with pytest.raises(WeightsError, match="style 'caffe'"):
        from_checkpoint(Checkpoint(tensors=state, facts=caffe))


def test_one_class_of_openmmlab_begins_at_its_own_threshold():
    state = small_mm()
    for part in ("weight", "bias"):
        state[f"decode_head.conv_seg.{part}"] = state[f"decode_head.conv_seg.{part}"][:1]
    config, ours, report = from_state_dict(state)
    assert "from a confidence of 0.3 on" in str(report)
    with torch.inference_mode():
        logits = build(config, ours).eval()(peers.image(65, 65))
    # Theirs: object where the sigmoid of the logit is above 0.3.
    theirs = logits[:, 1] + torch.logit(torch.tensor(0.3))
    assert torch.equal(logits.argmax(1) == 1, theirs.sigmoid() > 0.3)


def test_what_is_theirs_but_not_known_here_is_named():
    state = small_mm()
    other = {name.replace("backbone.layer1", "backbone.stage1"): v for name, v in state.items()}
    with pytest.raises(WeightsError, match="mmsegmentation's DeepLabs those on ResNet"):
        from_state_dict(other)
    fcn = {name: v for name, v in state.items() if "image_pool" not in name}
    with pytest.raises(WeightsError, match="mmsegmentation's"):
        from_state_dict(fcn)
    jf = peers.draw(peers.shapes_of(*jf_layers("mobilenet")))
    drn = {name.replace("features", "layer9"): v for name, v in jf.items()}
    with pytest.raises(WeightsError, match="not those on Xception and DRN"):
        from_state_dict(drn)
    averaged = {**state, "ema_backbone_stem_0_weight": torch.ones(2)}
    assert from_state_dict(averaged)[2].ignored == ("ema_backbone_stem_0_weight",)


@pytest.mark.parametrize("depth", [34, 152])
def test_smp_s_default_encoder_is_known(depth: int):
    """Its default, resnet34, has the units of ResNet-50 and the convolutions of ResNet-18."""
    config = DeepLabConfig(
        version="v3", backbone=f"resnet_v1_{depth}", num_classes=3, head_channels=16,
        stride_unit="first", atrous_rates=(12, 24, 36), aspp_separable=False, post_aspp="conv",
    )  # fmt: skip
    layers = [
        *resnet_layers("encoder.", depth), *aspp_layers("decoder.aspp."),
        *smp._head_layers("decoder.aspp.", plus=False),
        ("classifier", "segmentation_head.0", None),
    ]  # fmt: skip
    shapes = peers.shapes_of(config, layers)
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    got, _, report = from_state_dict(state)
    assert got.backbone == f"resnet_v1_{depth}"
    assert len(report.kept) == len(shapes)
