"""DeepLab v1, v2, v3 and v3+: the forward pass of each, top to bottom.

    v1   VGG16 at stride 8 → fc6 (3×3, rate 12) → fc7 → classes
    v2   VGG16 or ResNet at stride 8 → sum of four branches at rates 6, 12, 18, 24
    v3   backbone → ASPP: pooled image, 1×1, three rates; concatenate, project → classes
    v3+  v3 → decoder: resize, concatenate with low-level features, two 3×3 → classes

A backbone turns (photo, output stride) into features and, for the decoder, the low-level features
at the strides it is asked for. ``layers.py`` has the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deeplab.errors import ConfigError, InputError, WeightsError, near_matches
from deeplab.models.backbones import OUTPUT_STRIDES
from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import (
    Conv2d,
    ConvNorm,
    Norm,
    SeparableConv,
    as_tensor,
    gate,
    init_truncated,
    reduced_size,
    resize,
    scale_size,
)
from deeplab.models.mobilenet_edgetpu import MobileNetEdgeTPU
from deeplab.models.mobilenet_v2 import MobileNetV2
from deeplab.models.mobilenet_v3 import MobileNetV3
from deeplab.models.mobilevit import MobileViT
from deeplab.models.mobilevit_v2 import MobileViTV2
from deeplab.models.nas import NASNet
from deeplab.models.own import OwnNetwork
from deeplab.models.resnet import ResNet
from deeplab.models.timm_encoder import TimmEncoder
from deeplab.models.vgg import VGG16
from deeplab.models.xception import Xception

Backbone = (
    OwnNetwork
    | VGG16
    | ResNet
    | Xception
    | MobileNetV2
    | MobileNetV3
    | MobileNetEdgeTPU
    | MobileViT
    | MobileViTV2
    | NASNet
    | TimmEncoder
)
BACKBONE_CLASSES: dict[str, type[Backbone]] = {
    "vgg": VGG16,
    "resnet": ResNet,
    "xception": Xception,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3": MobileNetV3,
    "mobilenet_edgetpu": MobileNetEdgeTPU,
    "mobilevit": MobileViT,
    "mobilevit_v2": MobileViTV2,
    "nas": NASNet,
    "timm": TimmEncoder,
}


# -- v1 and v2 -----------------------------------------------------------------------------------


class LargeFOV(nn.Module):
    """v1: VGG's fully connected layers as convolutions, the first one 3×3 with a large rate.

    The MSc variant also looks at the photo and the first four pools, by 128 channels each.
    Source: 1412.7062 sections 3.2 and 4.2.
    """

    def __init__(self, in_channels: int, config: DeepLabConfig, side: list[int]) -> None:
        super().__init__()
        channels = config.large_fov_channels
        self.config = config
        self.fc6 = early_conv(in_channels, channels, 3)
        self.fc7 = early_conv(channels, channels, 1)
        self.side = nn.ModuleList(
            nn.ModuleList([early_conv(inputs, 128, 3), early_conv(128, 128, 1)]) for inputs in side
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out_channels = channels + 128 * len(side)

    def forward(self, x: Tensor, output_stride: int, side: dict[int, Tensor]) -> Tensor:
        """(B, 512, h, w) to (B, 1024, h, w); 1664 channels with the side branches."""
        (rate,) = self.config.rates(output_stride)
        x = self.dropout(F.relu(self.fc6(x, 1, rate)))
        parts = [self.dropout(F.relu(self.fc7(x)))]
        for branch, y, stride in zip(self.side, side.values(), (1, 2, 4, 8, 8), strict=False):
            assert isinstance(branch, nn.ModuleList)
            y = F.relu(branch[0](y, max(1, output_stride // stride)))
            y = self.dropout(F.relu(branch[1](y)))
            parts.append(resize(y, x.shape[2:], align_corners=self.config.align_corners))
        return torch.cat(parts, 1)


class SummedASPP(nn.Module):
    """v2: one branch per rate, each all the way to classes; the logits are their sum.

    On ResNet a branch is one 3×3 convolution, on VGG16 it is fc6, fc7, fc8.
    Source: 1606.00915 section 3.2 and figure 7.
    """

    def __init__(self, in_channels: int, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        channels, classes = config.large_fov_channels, config.num_classes
        count, vgg = len(config.atrous_rates), config.family == "vgg"
        self.branches = nn.ModuleList(
            early_conv(in_channels, channels if vgg else classes, 3) for _ in range(count)
        )
        self.fc7 = nn.ModuleList(early_conv(channels, channels, 1) for _ in range(count * vgg))
        self.fc8 = nn.ModuleList(early_conv(channels, classes, 1) for _ in range(count * vgg))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, output_stride: int) -> Tensor:
        """(B, C, h, w) to logits (B, num_classes, h, w)."""
        rates = self.config.rates(output_stride)
        parts = [conv(x, 1, rate) for conv, rate in zip(self.branches, rates, strict=True)]
        if self.fc7:
            for index, (fc7, fc8) in enumerate(zip(self.fc7, self.fc8, strict=True)):
                y = fc7(self.dropout(F.relu(parts[index])))
                parts[index] = fc8(self.dropout(F.relu(y)))
        return torch.stack(parts).sum(0)


def early_conv(in_channels: int, out_channels: int, kernel_size: int) -> Conv2d:
    """Return a convolution of v1's and v2's heads: with a bias, drawn from N(0, 0.01²)."""
    conv = Conv2d(in_channels, out_channels, kernel_size, bias=True, padding="symmetric")
    nn.init.normal_(conv.weight, std=0.01)
    return conv


# -- v3 ------------------------------------------------------------------------------------------


class ImagePooling(nn.Module):
    """The pooled image: one value per channel, or a grid of them where a window is given.

    Source: deeplab/model.py ``extract_features``.
    """

    def __init__(self, in_channels: int, config: DeepLabConfig, norm: Norm) -> None:
        super().__init__()
        self.config = config
        gates = config.squeeze_excitation
        self.project = ConvNorm(
            in_channels,
            config.head_channels,
            norm=None if gates else norm,
            activation=None if gates else nn.ReLU(),
        )

    def forward(self, x: Tensor, output_stride: int, scale: float) -> Tensor:
        """Return (B, head_channels, 1, 1), or the size of ``x`` where a window slides."""
        height, width = x.shape[2:]
        crop = self.config.image_pooling_crop_size
        if crop is None:
            pooled = x.mean((2, 3), keepdim=True)
        else:
            window = [reduced_size(scale_size(side, scale), output_stride) for side in crop]
            window = [min(window[0], height), min(window[1], width)]
            pooled = F.avg_pool2d(x, window, self.config.image_pooling_stride)
        pooled = self.project(pooled)
        if self.config.squeeze_excitation:
            hard = self.config.hard_gate
            pooled = gate(pooled, self.config.gate_slope) if hard else pooled.sigmoid()
        if crop is None:
            return pooled
        return resize(pooled, (height, width), align_corners=self.config.align_corners)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: look at the features at several rates, then project.

    Source: 1706.05587 section 3.3; deeplab/model.py ``extract_features``.
    """

    def __init__(self, in_channels: int, config: DeepLabConfig, norm: Norm) -> None:
        super().__init__()
        self.config = config
        channels = config.head_channels
        self.pooling = ImagePooling(in_channels, config, norm) if config.image_pooling else None
        self.branches = nn.ModuleList(
            [ConvNorm(in_channels, channels, norm=norm, activation=relu(config))]
        )
        for _ in config.atrous_rates:
            self.branches.append(
                conv3x3(in_channels, channels, config, norm=norm, separable=config.aspp_separable)
            )
        count = len(self.branches)
        if self.pooling is not None and not config.squeeze_excitation:
            count += 1
        self.out_channels = count * channels
        self.project = None
        if config.concat_projection:
            self.project = ConvNorm(
                self.out_channels,
                channels,
                int(config.projection[0]),
                norm=norm,
                activation=relu(config),
            )
            self.out_channels = channels
        self.dropout = nn.Dropout(config.dropout)
        self.post = None
        if config.post_aspp != "none":
            self.post = conv3x3(
                self.out_channels,
                channels,
                config,
                norm=norm,
                separable=config.post_aspp == "separable",
            )

    def forward(self, x: Tensor, output_stride: int, scale: float = 1.0) -> Tensor:
        """(B, C, h, w) to (B, head_channels, h, w)."""
        rates = (1, *self.config.rates(output_stride))
        parts = [branch(x, 1, rate) for branch, rate in zip(self.branches, rates, strict=True)]
        pooled = None if self.pooling is None else self.pooling(x, output_stride, scale)
        if pooled is not None and not self.config.squeeze_excitation:
            pooled = pooled.expand(-1, -1, x.shape[2], x.shape[3])
            parts = [pooled, *parts] if self.config.pooling_first else [*parts, pooled]
        y = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if self.project is not None:
            y = self.dropout(self.project(y))
        if pooled is not None and self.config.squeeze_excitation:
            y = y * pooled
        return y if self.post is None else self.post(y)


class DensePredictionCell(nn.Module):
    """The searched alternative to ASPP: a small graph of separable convolutions.

    Source: 1809.04184; deeplab/core/dense_prediction_cell.py.
    """

    def __init__(self, in_channels: int, config: DeepLabConfig, norm: Norm) -> None:
        super().__init__()
        self.cell = config.dense_prediction_cell
        channels = config.head_channels
        self.branches = nn.ModuleList()
        for branch in self.cell:
            inputs = in_channels if branch.input < 0 else channels
            if branch.kernel == 1:
                layer: nn.Module = ConvNorm(inputs, channels, norm=norm, activation=nn.ReLU())
            else:
                layer = SeparableConv(
                    inputs,
                    channels,
                    norm=norm,
                    activation=nn.ReLU(),
                    between=config.separable_norm,
                    kernel_size=branch.kernel,
                )
            self.branches.append(layer)
        self.dropout = nn.Dropout(config.dropout)
        self.project = ConvNorm(
            len(self.cell) * channels, channels, norm=norm, activation=nn.ReLU()
        )
        self.out_channels = channels

    def forward(self, x: Tensor, output_stride: int, scale: float = 1.0) -> Tensor:
        """(B, C, h, w) to (B, head_channels, h, w). ``scale`` plays no part."""
        outputs: list[Tensor] = []
        for spec, branch in zip(self.cell, self.branches, strict=True):
            rate = tuple(max(1, r * 16 // output_stride) for r in spec.rate)
            outputs.append(branch(x if spec.input < 0 else outputs[spec.input], 1, rate))
        return self.project(self.dropout(torch.cat(outputs, 1)))  # type: ignore[no-any-return]


# -- v3+ -----------------------------------------------------------------------------------------


class DecoderStage(nn.Module):
    """Join the features with low-level features of a finer stride.

    Source: 1802.02611 section 3.1; deeplab/model.py ``refine_by_decoder``.
    """

    def __init__(
        self, in_channels: int, tap_channels: int, config: DeepLabConfig, norm: Norm
    ) -> None:
        super().__init__()
        self.config = config
        channels = config.decoder_channels
        last = config.decoder_output_is_logits
        self.low_level = ConvNorm(
            tap_channels,
            config.low_level_channels,
            norm=None if last else norm,
            activation=None if last else relu(config),
        )
        # A sum needs one convolution, which brings the features to the same channels.
        self.in_channels = in_channels
        count = 1 if config.decoder_merge == "sum" else config.decoder_convs
        if config.decoder_merge == "concat":
            in_channels += config.low_level_channels
        self.convs = nn.ModuleList()
        for index in range(count):
            inputs = channels if index else in_channels
            self.convs.append(
                ConvNorm(inputs, channels, norm=None)
                if last
                else conv3x3(
                    inputs, channels, config, norm=norm, separable=config.decoder_separable
                )
            )

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        """(B, C, h, w) and (B, L, H, W) to (B, decoder_channels, H, W)."""
        low = self.low_level(low_level)
        x = resize(x, low.shape[2:], align_corners=self.config.align_corners)
        if self.config.decoder_merge == "sum":
            return self.convs[0](x) + low  # type: ignore[no-any-return]
        encoder_first = self.config.decoder_order == "encoder_first"
        x = torch.cat((x, low) if encoder_first else (low, x), 1)
        for conv in self.convs:
            x = conv(x)
        return x

    @torch.no_grad()
    def pass_through(self) -> bool:
        """Hand the features on as they are, only resized, and say whether this stage can.

        It can where it makes as many channels as it gets; the features must not be negative. The
        low-level features then count nothing, but have a gradient: training lets them in.
        """
        config, channels = self.config, self.config.decoder_channels
        if (
            config.decoder_merge == "sum"
            or config.decoder_output_is_logits
            or self.in_channels != channels
        ):
            return False
        before = 0 if config.decoder_order == "encoder_first" else config.low_level_channels
        for conv in self.convs:
            parts = (conv.depthwise, conv.pointwise) if isinstance(conv, SeparableConv) else (conv,)
            for part in parts:
                assert isinstance(part, ConvNorm)
                _keep_channels(part, range(before, before + channels))
            before = 0
        return True


def _keep_channels(layer: ConvNorm, kept: range) -> None:
    """Let a convolution copy the ``kept`` ones of its inputs; a depthwise one leaves the others."""
    weight = layer.conv.weight
    middle = weight.shape[-1] // 2
    if layer.conv.groups > 1:
        weight[kept.start : kept.stop] = 0
        weight[kept.start : kept.stop, 0, middle, middle] = 1
    else:
        nn.init.zeros_(weight)
        for output, source in enumerate(kept):
            weight[output, source, middle, middle] = 1
    if layer.norm is not None:
        layer.norm.weight.fill_(math.sqrt(1 + layer.norm.eps))  # a new norm's mean is 0, variance 1


# -- the network ---------------------------------------------------------------------------------


class DeepLab(nn.Module):
    """A whole network: normalisation, backbone, head, decoder, classes.

    >>> model = build(DeepLabConfig(version="v3+", backbone="xception_65")).eval()
    >>> model(image).shape  # image: (1, 3, 513, 513), 0..255
    torch.Size([1, 21, 129, 129])
    """

    head: nn.Module | None
    classifier: Conv2d | None

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.batch_norm_frozen = False
        self.frozen_parts: tuple[str, ...] = ()
        self.backbone = build_backbone(config)
        self.set_pixel_statistics()
        if config.own:
            self.head, self.decoder, self.classifier = None, nn.ModuleList(), None
            return
        channels = self.backbone.out_channels
        norm = Norm(eps=config.head_bn_eps, decay=config.head_bn_decay)

        self.head = None
        if config.version == "v1":
            side = range(5) if config.multi_scale_features else ()
            self.head = LargeFOV(channels, config, [self.backbone.tap_channels(n) for n in side])
        elif config.version == "v2":
            self.head = SummedASPP(channels, config)
        elif config.dense_prediction_cell:
            self.head = DensePredictionCell(channels, config, norm)
        elif config.aspp:
            self.head = ASPP(channels, config, norm)
        if isinstance(self.head, (LargeFOV, DensePredictionCell, ASPP)):
            channels = self.head.out_channels

        self.decoder = nn.ModuleList()
        for stride in config.decoder_output_stride:
            taps = self.backbone.tap_channels(stride)
            self.decoder.append(DecoderStage(channels, taps, config, norm))
            channels = config.decoder_channels

        self.classifier = None
        if config.version != "v2" and not config.decoder_output_is_logits:
            self.classifier = Conv2d(
                channels, config.num_classes, config.logits_kernel_size, bias=True
            )
            init_truncated(self.classifier, 0.01)  # Source: model.py get_branch_logits.

    def forward(self, image: Tensor, output_stride: int | None = None) -> Tensor:
        """Return logits (B, num_classes, h, w), before the last upsampling.

        Args:
            image: (B, 3, H, W) RGB, uint8 or floating point in 0..255, any size.
            output_stride: 4, 8, 16 or 32; by default the configuration's. Each value is a
                graph of its own when the network is compiled or exported.

        Raises:
            ConfigError: the output stride is not one of those.
            InputError: the image is not a batch of three channels.
        """
        channels = self.config.channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise InputError(
                f"image: got shape {tuple(image.shape)}. Give (batch, {channels}, height, width), "
                f"in the units of pixel_mean: RGB in 0..255 for photos; one picture (height, "
                f"width, {channels}) is image.permute(2, 0, 1)[None]."
            )
        plain = self._merge_scales(image, output_stride)
        if not self.config.mirror_scale or self.training:
            return plain
        scale = self.config.mirror_scale
        mirrored = self.one_scale(image, output_stride, scale=scale, mirror=True).flip(3)
        mirrored = resize(mirrored, plain.shape[2:], align_corners=self.config.align_corners)
        return (plain + mirrored) / 2

    def _merge_scales(self, image: Tensor, output_stride: int | None) -> Tensor:
        if not self.config.image_pyramid:
            return self.one_scale(image, output_stride)
        stacked = torch.stack(self.every_scale(image, output_stride))
        return stacked.amax(0) if self.config.merge_method == "max" else stacked.mean(0)

    def every_scale(self, image: Tensor, output_stride: int | None = None) -> list[Tensor]:
        """Return the logits of each scale of the pyramid, on one grid.

        Source: deeplab/model.py ``multi_scale_logits``; 1606.00915 section 4.1.
        """
        scales = self.config.image_pyramid or (1.0,)
        logits = [self.one_scale(image, output_stride, scale=scale) for scale in scales]
        largest = max(1.0, *scales)
        if self.config.align_corners:
            stride = self.logits_stride(output_stride)
            size = [scale_size(side, largest / stride) for side in image.shape[2:]]
        else:
            size = list(logits[scales.index(max(scales))].shape[2:])
        return [resize(x, size, align_corners=self.config.align_corners) for x in logits]

    def one_scale(
        self,
        image: Tensor,
        output_stride: int | None = None,
        *,
        scale: float = 1.0,
        mirror: bool = False,
    ) -> Tensor:
        """Return the logits of the photo, or its mirror image, at one scale, on its own grid."""
        stride = self.config.output_stride if output_stride is None else output_stride
        if stride not in OUTPUT_STRIDES:
            raise ConfigError(
                f"output_stride: got {stride}. Choose one of {', '.join(map(str, OUTPUT_STRIDES))}."
            )
        x = rescale(self.normalise(image), scale, align_corners=self.config.align_corners)
        x = x.flip(3) if mirror else x
        if self.config.own:
            return self.backbone(x)  # type: ignore[no-any-return]
        if isinstance(self.head, LargeFOV):  # v1
            x, side = self.backbone(x, stride, range(len(self.head.side)))
            assert self.classifier is not None
            return self.classifier(self.head(x, stride, side))  # type: ignore[no-any-return]
        if isinstance(self.head, SummedASPP):  # v2
            x, _ = self.backbone(x, stride)
            return self.head(x, stride)  # type: ignore[no-any-return]

        # v3: features, pyramid pooling, classes. v3+: a decoder before the classes.
        taps = self.config.decoder_output_stride
        x, low_level = self.backbone(x, stride, taps)
        if self.head is not None:
            x = self.head(x, stride, scale)
        for tap, stage in zip(taps, self.decoder, strict=True):
            x = stage(x, low_level[tap])
        return x if self.classifier is None else self.classifier(x)  # type: ignore[no-any-return]

    def normalise(self, image: Tensor) -> Tensor:
        """Turn RGB in 0..255 into what the first convolution expects."""
        mean, std = self.pixel_mean, self.pixel_std
        assert isinstance(mean, Tensor)
        assert isinstance(std, Tensor)
        wide = torch.promote_types(mean.dtype, torch.float32)
        x = ((image.to(wide) - mean) / std).to(mean.dtype)
        return x.flip(1) if self.config.channel_order == "bgr" else x

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Resize logits to the photo's (height, width), float32, as the network was trained."""
        return resize(logits.float(), size, align_corners=self.config.align_corners)

    def set_pixel_statistics(self) -> None:
        """Put mean and deviation of the pixels, which are no weights, where the network is."""
        weight = next(self.parameters())
        for name in ("pixel_mean", "pixel_std"):
            with torch.device(weight.device):
                values = as_tensor(getattr(self.config, name)).to(weight)
            self.register_buffer(name, values, persistent=False)

    def logits_stride(self, output_stride: int | None = None) -> int:
        """Return the stride of the logits."""
        stride = self.config.output_stride if output_stride is None else output_stride
        return min(self.config.decoder_output_stride, default=stride)

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """Use running statistics, unchanged, in training too (``fine_tune_batch_norm=False``)."""
        self.batch_norm_frozen = frozen
        self.train(self.training)

    def set_progress(self, progress: float) -> None:
        """Say which share of the training is done, 0..1; NAS backbones drop paths by it."""
        if isinstance(self.backbone, NASNet):
            self.backbone.set_progress(progress)

    def freeze(self, parts: Sequence[str]) -> None:
        """Keep parts ("backbone.stem", "backbone.blocks.0") as they are in training.

        They get no gradients, and their batch norms keep their statistics.

        Raises:
            InputError: the network has no such part.
        """
        known = dict(self.named_modules())
        for part in parts:
            if part not in known:
                raise InputError(
                    f"frozen: this network has no part '{part}'.{near_matches(part, known)}"
                )
            known[part].requires_grad_(False)
        self.frozen_parts = tuple(parts)
        self.train(self.training)

    def train(self, mode: bool = True) -> DeepLab:
        """Switch training mode; frozen parts and batch norms stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen_parts:
            self.get_submodule(part).eval()
        if self.batch_norm_frozen:
            for module in self.modules():
                if isinstance(module, _BatchNorm):  # SyncBatchNorm is one too
                    module.eval()
        return self


def build(config: DeepLabConfig, state_dict: Mapping[str, Tensor] | None = None) -> DeepLab:
    """Return the network, in training mode; no input or output happens.

    Args:
        config: the network.
        state_dict: its weights, used as they are and not copied; drawing initial ones, which
            takes seconds for the large networks, is left out. None draws them.

    Raises:
        WeightsError: the weights are not those of this network.
    """
    if state_dict is None:
        return DeepLab(config)
    with torch.device("meta"):
        model = DeepLab(config)
    try:
        model.load_state_dict(state_dict, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"The weights do not fit this {config.version} on {config.backbone}: "
            f"{' '.join(str(error).split())[:600]} Use the configuration that was saved with them."
        ) from error
    model.set_pixel_statistics()
    return model


def build_backbone(config: DeepLabConfig) -> Backbone:
    """Return the backbone that a configuration names, or the whole of a network of one's own."""
    return OwnNetwork(config) if config.own else BACKBONE_CLASSES[config.family](config)


def conv3x3(
    in_channels: int, out_channels: int, config: DeepLabConfig, *, norm: Norm, separable: bool
) -> nn.Module:
    """Return a 3×3 convolution with batch norm and ReLU, separable or not."""
    if separable:
        return SeparableConv(
            in_channels,
            out_channels,
            norm=norm,
            activation=relu(config),
            between=config.separable_norm,
        )
    return ConvNorm(in_channels, out_channels, 3, norm=norm, activation=relu(config))


def relu(config: DeepLabConfig) -> nn.Module:
    """Return the activation of head and decoder; the pooled image and cells keep plain ReLU."""
    return nn.ReLU6() if config.bounded_activation else nn.ReLU()


def rescale(x: Tensor, scale: float, *, align_corners: bool) -> Tensor:
    """Resize by a factor: with aligned corners both ends are kept, else sizes are rounded down."""
    if scale == 1.0:
        return x
    if not align_corners:
        return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    size = [scale_size(side, scale) for side in x.shape[2:]]
    return resize(x, size, align_corners=True)
