"""Which parameter learns how fast, and the moving average of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from deeplab.errors import InputError, near_matches
from deeplab.models.deeplab import DeepLab
from deeplab.models.pieces import find_piece
from deeplab.training.lion import Lion
from deeplab.training.settings import OptimiserSettings


def build_optimiser(model: DeepLab, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Return the optimiser with one group per kind of parameter.

    Each group holds ``multiplier``, its learning rate relative to the schedule's: convolution
    biases and everything after the backbone may learn faster, early layers slower. Weight decay is
    on the weights of ordinary convolutions only.

    Source: research/deeplab train.py and utils/train_utils.py get_model_gradient_multipliers.

    Raises:
        InputError: ``rates`` names a part that is none; an optimiser of the reader's own is none.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, multiplier, decay in _sort_parameters(model, settings):
        groups.setdefault((multiplier, decay), []).append(parameter)
    found = [
        {"params": parameters, "multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
    ]
    if ":" in settings.name:
        made = find_piece(settings.name, "optimiser.name")(found)
        if not isinstance(made, torch.optim.Optimizer):
            raise InputError(
                f"optimiser.name: {settings.name} returned {type(made).__name__}, expected a "
                "torch.optim.Optimizer."
            )
        return made
    # set_learning_rate decides about lr, at every step
    if settings.name == "adamw":
        return torch.optim.AdamW(found, lr=0.0, betas=_two(settings.betas, 0.999))
    if settings.name == "lion":
        return Lion(found, lr=0.0, betas=_two(settings.betas, 0.99))
    return torch.optim.SGD(found, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov)


def _two(betas: tuple[float, ...], usual: float) -> tuple[float, float]:
    near, far = betas or (0.9, usual)
    return near, far


def _sort_parameters(
    model: DeepLab, settings: OptimiserSettings
) -> Iterator[tuple[nn.Parameter, float, float]]:
    classifiers = {id(p) for module in classifier_layers(model) for p in module.parameters()}
    backbone = {id(p) for p in model.backbone.parameters()}
    rates = _rates(model, settings)
    for module in model.modules():
        linear = isinstance(module, nn.Conv2d | nn.Linear)
        ordinary = linear and getattr(module, "groups", 1) == 1
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:  # frozen
                continue
            in_head = (
                id(parameter) in classifiers
                if settings.head_is_classifier
                else id(parameter) not in backbone
            )
            multiplier = settings.head_multiplier if in_head else 1.0
            if name == "bias" and linear:
                multiplier *= settings.bias_multiplier
            decay = settings.weight_decay if ordinary and name == "weight" else 0.0
            yield parameter, multiplier * rates[id(parameter)], decay


def _rates(model: DeepLab, settings: OptimiserSettings) -> dict[int, float]:
    """Return what ``layer_decay`` and ``rates`` make of the rate of every parameter, by its id."""
    rates = {id(parameter): 1.0 for parameter in model.parameters()}
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.backbone.named_parameters():
        first, *rest = name.split(".")
        layer = f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first
        layers.setdefault(layer, []).append(parameter)
    for index, parameters in enumerate(layers.values()):
        for parameter in parameters:
            rates[id(parameter)] = settings.layer_decay ** (len(layers) - index)
    parts = dict(model.named_modules())
    for name, rate in settings.rates.items():
        if name not in parts:
            raise InputError(
                f"optimiser.rates: this network has no part '{name}'.{near_matches(name, parts)}"
            )
        for parameter in parts[name].parameters():
            rates[id(parameter)] *= rate
    return rates


def classifier_layers(model: DeepLab) -> list[nn.Conv2d]:
    """Return the convolutions whose output channels are the classes.

    Usually one; v2 has one per branch, and MobileNetV3's head adds two.
    """
    if model.classifier is not None:
        return [model.classifier]
    count = model.config.num_classes
    layers = [
        module
        for part in (model.head, model.decoder)
        if part is not None
        for module in part.modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None
    ]
    return [layer for layer in layers if layer.out_channels == count]


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give each group the schedule's rate times its multiplier."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["multiplier"]


def check_memory(optimiser: torch.optim.Optimizer) -> None:
    """Look at what an optimiser remembers of its parameters, which torch loads as it comes.

    Raises:
        ValueError: it remembers other things of one than of another, or of another shape.
    """
    kinds = {tuple(sorted(memory)) for memory in optimiser.state.values()}
    if len(kinds) > 1:
        raise ValueError(f"the optimiser remembers {sorted(kinds)} of its parameters")
    for parameter, memory in optimiser.state.items():
        for name, value in memory.items():
            if not isinstance(value, Tensor) or value.shape not in (parameter.shape, ()):
                raise ValueError(f"the optimiser's {name} is of another shape than its parameter")


class MovingAverage:
    """The weights averaged over the steps; young averages forget faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model's state; ``decay`` is the weight of the old value."""
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's state after 0-based ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            average: Tensor = self.state[name]
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the average from a checkpoint.

        Raises:
            ValueError: it is that of another network.
        """
        shapes = {name: value.shape for name, value in self.state.items()}
        if {name: value.shape for name, value in state.items()} != shapes:
            raise ValueError("the average is that of another network")
        for name, value in state.items():
            self.state[name].copy_(value)
