"""What int8 does to a network, simulated in torch: which layers should stay float.

Every format rounds in its own way, but they agree on what matters here: weights to 255 steps per
channel, what goes into a convolution to 256 steps per tensor, the logits not at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deeplab.export import calibration
from deeplab.export.network import ExportNetwork
from deeplab.export.plan import Plan
from deeplab.export.sensitivity import choose_layers, foreground_iou, measure_distance

Float32 = npt.NDArray[np.float32]

_MOST_PHOTOS = 8
_PHOTOS_FOR_RANKING = 4


def find_sensitive(plan: Plan) -> tuple[str, ...]:
    """Return the layers that int8 should leave in float, see :func:`choose_layers`.

    Raises:
        ImageError: a photo cannot be read.
    """
    frames = list(calibration.frames(plan))
    frames = frames[:: -(-len(frames) // _MOST_PHOTOS)]
    photos = [torch.from_numpy(frame).permute(0, 3, 1, 2) for frame in frames]
    small = SimulatedNetwork(plan.network, photos)
    expected = [small(photo, keep_float=small.layers) for photo in photos]

    def distance_without(layer: str) -> float:
        some = photos[:_PHOTOS_FOR_RANKING]
        return measure_distance([small(photo, keep_float=(layer,)) for photo in some], expected)

    def judge(kept: Sequence[str]) -> tuple[float, float]:
        answers = [small(photo, keep_float=kept) for photo in photos]
        background = plan.card.classes.background
        return measure_distance(answers, expected), foreground_iou(answers, expected, background)

    return choose_layers(small.layers, distance_without=distance_without, judge=judge)


class SimulatedNetwork:
    """A network that rounds as int8 does, but for the layers that it is told.

    Attributes:
        layers: the convolutions, in the order in which they run; without the last, which is float
            in every file, and without those that are no modules of their own.
    """

    layers: list[str]

    def __init__(self, network: ExportNetwork, photos: Sequence[Tensor]) -> None:
        self._network = copy.deepcopy(network)
        self._ranges: dict[str, list[tuple[float, float]]] = {}
        self._kept: Collection[str] = ()
        modules = {
            name.removesuffix(".conv"): module
            for name, module in self._network.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        handles = [m.register_forward_pre_hook(self._look(name)) for name, m in modules.items()]
        with torch.no_grad():
            for photo in photos:
                self._network(photo)
        for handle in handles:
            handle.remove()
        self.layers = list(self._ranges)[:-1]  # in the order in which they were met
        self._weights = {}
        for name in self.layers:
            weight = modules[name].weight.data
            self._weights[name] = modules[name], weight, _round_weights(weight)
            modules[name].register_forward_pre_hook(self._round_input(name))

    def __call__(self, photo: Tensor, *, keep_float: Collection[str]) -> Float32:
        """Return the logits (h, w, K) or the class ids (h, w) of (1, 3, H, W) float32."""
        self._kept = keep_float
        for name, (module, exact, rounded) in self._weights.items():
            module.weight.data = exact if name in keep_float else rounded
        with torch.no_grad():
            answer: Tensor = self._network(photo)[0]
        found: Float32 = answer.permute(1, 2, 0).numpy() if answer.ndim == 3 else answer.numpy()
        return found.astype(np.float32)

    def _look(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            low, high = given[0].aminmax()
            self._ranges.setdefault(name, []).append((min(0.0, float(low)), float(high)))

        return hook

    def _round_input(self, name: str) -> Callable[..., tuple[Any, ...] | None]:
        low, high = np.mean(self._ranges[name], axis=0)
        step = max(high - low, 1e-6) / 255

        def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if name in self._kept:
                return None
            x = torch.round((given[0] - low) / step).clip(0, 255) * step + low
            return x, *given[1:]

        return hook


def _round_weights(weight: Tensor) -> Tensor:
    step = weight.abs().amax((1, 2, 3), keepdim=True).clip(1e-12) / 127
    return torch.round(weight / step) * step
