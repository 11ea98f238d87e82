"""The network as one torch program that takes a photo: what ONNX and ExecuTorch files are made of.

``image`` (N, H, W, 3) uint8 RGB, as every picture library gives it; the normalisation is inside, so
nobody can get it wrong. Out come ``logits`` (N, h, w, K) float32 or ``mask`` (N, H, W) uint8.
Channels are last on both sides: :mod:`deeplab.photo.upsample` and drawing want them there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from deeplab.errors import ExportError, InputError, near_matches
from deeplab.export import calibration
from deeplab.export.half import round_weights
from deeplab.export.layer_names import layer_name
from deeplab.export.network import ExportNetwork
from deeplab.export.plan import Plan
from deeplab.export.quiet import quiet, reason
from deeplab.export.same_padding import leave_padding_open
from deeplab.export.simulation import find_sensitive
from deeplab.photo.images import InputSpec

_SIDES = (33, 16384)
"""Fewest and most pixels per side: smaller frames have features of one pixel at stride 32."""


class PhotoProgram(nn.Module):
    """An :class:`ExportNetwork` with the normalisation in front.

    Args:
        network: (N, 3, H, W) normalised to logits (N, K, h, w) or a mask (N, H, W).
        spec: its normalisation; of other pictures than photos, (N, H, W, C) float32 go in.
    """

    def __init__(self, network: ExportNetwork, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB to (N, h, w, K) float32 or (N, H, W) uint8."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = (image.to(torch.float32) - self.mean) / self.std
        answer: Tensor = self.network(x.permute(0, 3, 1, 2))
        return answer.permute(0, 2, 3, 1) if answer.ndim == 4 else answer


def trace(plan: Plan) -> ExportedProgram:
    """Return the network as a program; where the card says so, of any batch, height and width.

    With ``precision="float16"`` its weights, but depthwise ones, are rounded to that; it computes
    in float32. One of any size holds operators of :mod:`deeplab.export.same_padding`, which torch
    cannot run.

    Raises:
        ExportError: the network cannot be traced.
    """
    network = round_weights(plan) if plan.precision == "float16" else plan.network
    program = PhotoProgram(network, plan.card.spec)
    height, width = plan.size
    free = plan.card.any_size
    if free:
        program = copy.deepcopy(program)
        leave_padding_open(program)
    # An example of one photo would make one photo a part of the program.
    spec = plan.card.spec
    kind = torch.uint8 if spec.bands is None else torch.float32
    sample = torch.zeros(2 if free else 1, height, width, spec.channels, dtype=kind)
    sides = {
        0: Dim("batch", min=1, max=256),
        1: Dim("height", min=_SIDES[0], max=_SIDES[1]),
        2: Dim("width", min=_SIDES[0], max=_SIDES[1]),
    }
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                program,
                (sample,),
                dynamic_shapes={"image": sides} if free else None,
                # Otherwise sizes whose features would be one pixel wide stand in the way.
                prefer_deferred_runtime_asserts_over_guards=free,
            )
    except Exception as error:  # the tracer has no errors of its own
        raise ExportError(
            f"export: PyTorch cannot trace this network at {height}×{width} ({reason(error)})."
        ) from error


def layer_names(plan: Plan) -> list[str]:
    """Return the names of the layers that int8 may keep in float."""
    return [
        layer_name(name) for name, weight in plan.network.named_parameters() if weight.ndim == 4
    ]


def find_layers(plan: Plan) -> tuple[str, ...]:
    """Return the layers that stay float in int8; "auto" looks for them.

    Raises:
        InputError: there is no such layer.
        ImageError: a photo to look for layers on cannot be read.
    """
    if plan.keep_float == "auto":
        return find_sensitive(plan)
    known = layer_names(plan)
    for name in plan.keep_float:
        if name not in known:
            raise InputError(
                f"keep_float: there is no layer '{name}'.{near_matches(name, known)} "
                f"The network has {len(known)} of them, from {known[0]} to {known[-1]}."
            )
    return tuple(plan.keep_float)


def pictures(plan: Plan) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the photos for calibration as (1, H, W, 3) uint8 RGB."""
    spec = plan.card.spec
    for frame in calibration.frames(plan):
        yield np.rint(frame * np.asarray(spec.std) + np.asarray(spec.mean)).astype(np.uint8)
