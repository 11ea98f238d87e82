"""Any network of ``timm`` with feature maps as a backbone: ``timm/NAME`` or ``timm/NAME.TAG``.

Its layers, paddings and epsilons are timm's; where it offers an ``output_stride``, strides become
atrous there. Batch norms are exchanged for ours, which compute the same, so that training treats
them as it does all others.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.func import functional_call

from deeplab.errors import ConfigError
from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import BatchNorm2d
from deeplab.models.timm_facts import TimmFeatures, create, measure


class BatchNormAct(BatchNorm2d):
    """A batch norm and the activation that follows it, under the names that timm gives them."""

    def __init__(self, channels: int, *, eps: float, decay: float, act: nn.Module) -> None:
        super().__init__(channels, eps=eps, decay=decay)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return self.act(super().forward(x))  # type: ignore[no-any-return]


class TimmEncoder(nn.Module):
    """Photo (B, 3, H, W), normalised, to the last features of a network of timm's.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: there is no such network, or it cannot do what the configuration asks for.
    """

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.net = self._create(config.output_stride)
        self._others: dict[int, list[nn.Module]] = {}  # in lists: they are no parts of this one
        features = self._features(config.output_stride)
        self.out_channels = features.channels[-1]

    def describe(self) -> str:
        """Return in a sentence where the strides are, and what the pixels become."""
        config, own = self.config, measure(self.config.backbone).strides[-1]
        stride = config.output_stride
        how = "its own" if stride == own else f"atrous; its own is {own}"
        mean, std = (
            ", ".join(f"{one:.6g}" for one in two) for two in (config.pixel_mean, config.pixel_std)
        )
        return (
            f"Backbone: {config.backbone} at output stride {stride} ({how}); pixels minus "
            f"({mean}), divided by ({std})."
        )

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have.

        Raises:
            ConfigError: the network has no features of that stride.
        """
        features = self._features(self.config.output_stride)
        return features.channels[self._tap(features, stride)]

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``.

        Raises:
            ConfigError: the network cannot have this output stride.
        """
        features = self._features(output_stride)
        if output_stride == self.config.output_stride:
            maps = self.net(x)
        else:
            maps = self._run_at(output_stride, x)
        if features.last:
            maps = [one.permute(0, 3, 1, 2) for one in maps]
        return maps[-1], {stride: maps[self._tap(features, stride)] for stride in taps}

    def _create(self, output_stride: int) -> nn.Module:
        config = self.config
        own = measure(config.backbone).strides[-1]
        asked = None if output_stride == own else output_stride
        net = create(config.backbone, asked, config.channels)
        if net_has_constants(net):  # they have no values on the meta device
            with torch.device("cpu"):
                net = create(config.backbone, asked, config.channels)
        usual = config.backbone_bn_eps == measure(config.backbone).bn_eps
        eps = None if usual else config.backbone_bn_eps
        exchange_norms(net, eps=eps, decay=config.backbone_bn_decay)
        return net

    def _features(self, output_stride: int) -> TimmFeatures:
        own = measure(self.config.backbone)
        if output_stride == own.strides[-1]:
            return own
        return measure(self.config.backbone, output_stride)

    def _tap(self, features: TimmFeatures, stride: int) -> int:
        if stride not in features.strides[:-1]:
            finer = sorted(set(features.strides[:-1]))
            raise ConfigError(
                f"decoder_output_stride: got {stride}, but '{self.config.backbone}' has "
                f"low-level features at {', '.join(map(str, finer)) or 'no finer stride'} only. "
                "Choose among these, or version='v3', which needs none."
            )
        return features.strides.index(stride)

    def _run_at(self, output_stride: int, x: Tensor) -> list[Tensor]:
        """Run the same weights with other strides, which timm decides when it builds."""
        if output_stride not in self._others:
            with torch.device("meta"):
                self._others[output_stride] = [self._create(output_stride)]
        other = self._others[output_stride][0]
        for mine, theirs in zip(self.net.modules(), other.modules(), strict=True):
            theirs.training = mine.training
        weights = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        return list(functional_call(other, weights, (x,)))


def net_has_constants(net: nn.Module) -> bool:
    """Whether a network on the meta device has tensors that no state dict brings."""
    state = net.state_dict()
    return any(
        value.is_meta and name not in state
        for name, value in [*net.named_buffers(), *net.named_parameters()]
    )


def exchange_norms(net: nn.Module, *, eps: float | None, decay: float) -> None:
    """Put batch norms of ours in the place of PyTorch's and timm's; names stay.

    Args:
        net: the network, which is changed.
        eps: None leaves each its own.
        decay: the weight of the old value in running statistics.

    Raises:
        ConfigError: one computes something else.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d) or isinstance(child, BatchNorm2d):
                continue
            setattr(parent, name, _exchange(child, child.eps if eps is None else eps, decay))


def _exchange(norm: nn.BatchNorm2d, eps: float, decay: float) -> BatchNorm2d:
    act = getattr(norm, "act", None)
    known = type(norm) is nn.BatchNorm2d or type(norm).__name__ == "BatchNormAct2d"
    plain = isinstance(getattr(norm, "drop", None) or nn.Identity(), nn.Identity)
    whole = norm.affine and norm.track_running_stats
    if not (known and plain and whole):
        raise ConfigError(
            f"backbone: has a {type(norm).__name__} that is not known here. Choose another network "
            "of timm's."
        )
    if act is None or isinstance(act, nn.Identity):
        made = BatchNorm2d(norm.num_features, eps=eps, decay=decay)
    else:
        made = BatchNormAct(norm.num_features, eps=eps, decay=decay, act=act)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    return made
