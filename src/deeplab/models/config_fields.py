"""The fields of a DeepLab's configuration: everything that decides what a network computes.

The defaults are the conventions of the original TensorFlow release. What other releases do
differently (corner alignment, padding, epsilon, order of a concatenation, ...) is a field of its
own, so that weights trained there run here exactly. A ``DERIVED`` field that is not given follows
from the version and the backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deeplab.models.backbones import DERIVED, backbone_defaults

Version = Literal["v1", "v2", "v3", "v3+"]
Padding = Literal["same", "symmetric", "block_input", "block_input_only"]


@dataclass(frozen=True, kw_only=True)
class CellBranch:
    """One branch of a Dense Prediction Cell: a separable convolution and where it reads from.

    ``rate`` is (vertical, horizontal) at output stride 16. ``input`` is −1 for the backbone's
    features or the index of an earlier branch.
    """

    rate: tuple[int, int]
    input: int
    kernel: int = 3


# Source: deeplab/core/dense_prediction_cell_branch5_top1_cityscapes.json.
DPC_TOP1 = (
    CellBranch(rate=(1, 6), input=-1),
    CellBranch(rate=(18, 15), input=0),
    CellBranch(rate=(6, 3), input=1),
    CellBranch(rate=(1, 1), input=0),
    CellBranch(rate=(6, 21), input=0),
)


READ_BY_OWN = frozenset(
    (
        "own", "num_classes", "output_stride", "pixel_mean", "pixel_std", "channel_order",
        "align_corners", "image_pyramid", "merge_method", "mirror_scale",
    )
)  # fmt: skip
"""The fields of a configuration that mean something for a network of the reader's own."""


@dataclass(frozen=True, kw_only=True)
class ConfigFields:
    """What a configuration is made of, and what follows from it. Nothing is checked here."""

    # -- what it is ------------------------------------------------------------------------------
    version: Version = "v3"
    """Which DeepLab: v1 (large field of view), v2 (ASPP), v3 (with batch norm and the whole photo),
    v3+ (and a decoder)."""
    backbone: str = "mobilenet_v2"
    """The network that reads the photo: docs/networks.md has the list; ``timm/NAME`` is one of
    the library timm (docs/timm.md)."""
    own: str = ""
    """A network of your own in place of all of this: ``FILE.py:NAME`` or ``MODULE:NAME`` of what
    makes it of a number of classes (docs/pieces.md)."""
    num_classes: int = 21
    output_stride: int = DERIVED
    """Stride at which the network was trained; ``forward`` may be asked for another one."""

    # -- backbone --------------------------------------------------------------------------------
    depth_multiplier: float = 1.0
    """Width of MobileNets and of MobileViTv2, relative."""
    divisible_by: int = DERIVED
    """MobileNet widths are rounded to a multiple of this: 8, but MobileNetV2's 1 where its depth
    multiplier is not 1."""
    multi_grid: tuple[int, ...] = (1, 1, 1)
    """Rates of the three units of the last block, relative to that block's rate."""
    cascade_blocks: int = 0
    """v3, cascaded form: copies of ResNet's block4 that follow it (the paper's block5 to 7)."""
    padding: Padding = "same"
    """``same``: the original's. ``symmetric``: (k − 1)/2 on every side, as torchvision.
    ``block_input``: MobileNetV2 whose blocks pad before they expand, and an unpadded stem;
    ``block_input_only``: the same with a padded stem."""
    lost_stride_rate: Literal["old", "new", "old_in_group", "first_of_group"] = DERIVED
    """Rate of the layer that loses its stride: the rate before it (``old``) or after it (``new``).
    The original says old; v2's Caffe ResNet and several re-implementations say new. MobileNetV2:
    ``old_in_group`` keeps the old rate in all blocks of that width, as jfzhang95's does;
    ``first_of_group`` gives the new one to the first block of a width and 1 to the others, as
    OpenMMLab's does."""
    stride_unit: Literal["last", "first"] = DERIVED
    """ResNet: the unit of a block that strides."""
    stride_conv: Literal["3x3", "1x1"] = DERIVED
    """ResNet: the convolution of a bottleneck that strides."""
    basic_rates: Literal["both", "first"] = "both"
    """ResNet-18: the 3×3 convolutions of a unit that have its rate; OpenMMLab's first one only."""
    pool_ceil_mode: bool = DERIVED
    """VGG and ResNet: round the size after max-pooling up, as Caffe does."""
    stem_channels: tuple[int, ...] = DERIVED
    """ResNet: channels of the convolutions before the blocks: one of 7×7, or three of 3×3. The
    original's beta root has 64, 64, 128, OpenMMLab's v1c 32, 32, 64."""
    last_conv: bool = False
    """MobileNetV2: keep the 1×1 convolution to 1280 channels that the original leaves out."""
    gate_slope: float = 0.16667
    """MobileNetV3: slope of the hard sigmoid in gates. The original writes 0.16667, others 1/6."""
    bounded_activation: bool = False
    """Xception, and every head and decoder: ReLU6 for ReLU, and sums kept within −6..6, which
    lose less in 8 bits; Xception's strided convolutions then pad as ``same``."""
    weight_standardization: bool = False
    """ResNet: each filter is brought to mean 0 and variance 1 before it is used."""
    nas_channels: int = 20
    """NAS backbones: channels of each of a cell's five sums, at stride 4; they double with the
    stride."""
    nas_classification_head: bool = False
    """NAS backbones: convolutions down to stride 32 and a 1×1 one to 2048 channels follow."""
    nas_remove_os32_stride: bool = False
    """HNASNet: the cells of stride 32 stay at 16."""
    drop_path_keep_prob: float = 1.0
    """NAS backbones: how likely an operation of the last cell is kept at the end of training;
    earlier cells and steps lose less."""
    odd_patches: Literal["resize", "zero"] = "resize"
    """MobileViT, features whose sides are no multiple of its patches' 2 pixels: its transformers
    see them ``resize``d to the next, as the original has it; or not the last row and column, which
    are ``zero`` behind them, as in MobileViTv2 of transformers."""
    backbone_bn_eps: float = DERIVED
    """Added to the variance in the batch norms of the backbone."""
    backbone_bn_decay: float = DERIVED
    """Weight of the old value in the backbone's running statistics."""

    # -- head ------------------------------------------------------------------------------------
    aspp: bool = DERIVED
    """v3, v3+: pyramid pooling after the backbone. Off in the cascaded form."""
    atrous_rates: tuple[int, ...] = DERIVED
    """Rates of the 3×3 branches at output stride ``rates_stated_at``; at others they scale."""
    rates_stated_at: int = DERIVED
    """Output stride at which ``atrous_rates`` are meant."""
    large_fov_channels: int = 1024
    """v1 and v2 on VGG16: width of fc6 and fc7."""
    multi_scale_features: bool = False
    """v1: the MSc variant, which adds features from the image and the first four pools."""
    head_channels: int = 256
    """Width of the head."""
    aspp_separable: bool = True
    """The head's atrous convolutions are depthwise separable."""
    separable_norm: bool = True
    """Separable convolutions of head and decoder have batch norm + ReLU between their halves."""
    image_pooling: bool = True
    """The head has a branch that sees the whole photo."""
    image_pooling_crop_size: tuple[int, int] | None = None
    """Photo size whose features one pooling window covers; None pools over the whole map."""
    image_pooling_stride: tuple[int, int] = (1, 1)
    """Of that window."""
    pooling_first: bool = True
    """Image pooling comes first in the concatenation of branches (else last)."""
    squeeze_excitation: bool = False
    """Image pooling gates the other branches by a sigmoid instead of joining them."""
    hard_gate: bool = False
    """That sigmoid is the piecewise linear one."""
    concat_projection: bool = True
    """A convolution joins the branches of the head."""
    projection: Literal["1x1", "3x3"] = "1x1"
    """The convolution behind the joined branches: the original's, or as in OpenMMLab."""
    post_aspp: Literal["none", "conv", "separable"] = "none"
    """One more 3×3 convolution after the projection, as torchvision and others have."""
    dense_prediction_cell: tuple[CellBranch, ...] = ()
    """A Dense Prediction Cell in place of ASPP; see ``DPC_TOP1``."""
    dropout: float = DERIVED
    """Probability that a channel value is dropped in training."""
    head_bn_eps: float = 1e-5
    """Added to the variance in the batch norms after the backbone."""
    head_bn_decay: float = 0.9997
    """Weight of the old value in their running statistics."""

    # -- decoder (v3+) ---------------------------------------------------------------------------
    decoder_output_stride: tuple[int, ...] = DERIVED
    """Strides at which low-level features join, coarse to fine: (4,) or (8, 4)."""
    decoder_channels: int = 256
    """Width of the decoder."""
    decoder_convs: int = 2
    """Convolutions of the decoder after the features have joined."""
    decoder_separable: bool = True
    """They are depthwise separable."""
    decoder_merge: Literal["concat", "sum"] = "concat"
    """How low-level features join."""
    decoder_order: Literal["encoder_first", "low_level_first"] = "encoder_first"
    """Which of the two comes first in the concatenation."""
    decoder_output_is_logits: bool = False
    """The last convolution of the decoder gives the classes; no classifier follows."""
    low_level_channels: int = DERIVED
    """Width to which low-level features are projected."""
    low_level: Literal["inner", "block"] = "inner"
    """``inner``: the original's taps inside a block. ``block``: the output of the last block at
    that stride, as in PyTorch re-implementations, and always with NAS and MobileViT."""
    logits_kernel_size: int = 1
    """Of the classifier."""

    # -- image in, logits out --------------------------------------------------------------------
    pixel_mean: tuple[float, ...] = DERIVED
    """Of photos: RGB order, 0..255. Of other pictures one number per channel, in their own units:
    as many as there are, the first convolution takes. Also the value that pads a photo."""
    pixel_std: tuple[float, ...] = DERIVED
    """In the same order: what pixels are divided by, after the mean is taken off."""
    channel_order: Literal["rgb", "bgr"] = DERIVED
    """Order in which the first convolution expects the channels. Photos are always given as RGB."""
    align_corners: bool = DERIVED
    """Features and logits are resized so that corners lie on corners: true, but for backbones that
    cut the photo into patches."""
    image_pyramid: tuple[float, ...] = ()
    """Scales whose logits are merged inside ``forward``; empty means the photo as it is."""
    merge_method: Literal["max", "avg"] = "max"
    """How those logits are merged."""
    mirror_scale: float = 0.0
    """Outside training, ``forward`` looks at the mirrored photo too, at this scale, and averages
    the logits: more time for a steadier mask; 0 never does. Not in the original, whose evaluation
    did so from outside."""

    # -- derived ---------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """``vgg``, ``resnet``, ``xception``, ``mobilenet_v2``, ``_v3``, ``nas``, ``timm``, …"""
        return backbone_defaults(self.backbone).family

    @property
    def channels(self) -> int:
        """Channels of the pictures it takes: 3, unless it was made for others than photos."""
        return len(self.pixel_mean)

    @property
    def logits_stride(self) -> int:
        """Stride of the logits at the trained output stride."""
        return min(self.decoder_output_stride, default=self.output_stride)

    def rates(self, output_stride: int) -> tuple[int, ...]:
        """Return the atrous rates of the head's branches at an output stride."""
        return tuple(max(1, r * self.rates_stated_at // output_stride) for r in self.atrous_rates)
