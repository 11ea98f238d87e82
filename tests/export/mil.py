"""Computes a written Core ML program in torch, as its specification says, where Core ML is not.

Source: the definitions in coremltools/converters/mil/mil/ops/defs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import torch
import torch.nn.functional as F
from coremltools.converters.mil.frontend.milproto.load import load

from deeplab.export.quiet import quiet


def run(package: Path, image: np.ndarray) -> np.ndarray:
    """Return the answer to an (H, W, 3) uint8 RGB picture."""
    with quiet():
        model = coremltools.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
    function = program.functions["main"]
    known = {"image": torch.from_numpy(image).permute(2, 0, 1)[None].float()}
    for operation in function.operations:
        if operation.op_type == "const":
            continue
        given = {
            name: [_value(v, known) for v in value]
            if isinstance(value, (list, tuple))
            else _value(value, known)
            for name, value in operation.inputs.items()
        }
        (output,) = operation.outputs
        known[output.name] = OPERATIONS[operation.op_type](**given)
        assert tuple(known[output.name].shape) == tuple(output.shape), operation.op_type
    (answer,) = function.outputs
    return known[answer.name].numpy()


def _value(variable: Any, known: dict[str, torch.Tensor]) -> Any:
    if variable.name in known:
        return known[variable.name]
    value = variable.val
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, np.float32 if value.dtype.kind == "f" else None))
    return value


def _conv(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    assert pad_type in ("valid", "custom")
    if pad_type == "custom":
        top, bottom, left, right = pad.tolist()
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(
        x, weight, bias, tuple(strides.tolist()), 0, tuple(dilations.tolist()), int(groups)
    )


def _pad(x, pad, mode, constant_val):
    assert mode == "constant"
    sides = pad.reshape(-1, 2).flip(0).reshape(-1).tolist()
    return F.pad(x, sides, value=float(constant_val))


def _upsample(x, scale_factor_height, scale_factor_width, align_corners):
    size = int(x.shape[2] * scale_factor_height), int(x.shape[3] * scale_factor_width)
    return F.interpolate(x, size, mode="bilinear", align_corners=bool(align_corners))


def _dequantize(quantized_data, zero_point, scale, axis):
    shape = [-1 if i == int(axis) else 1 for i in range(quantized_data.ndim)]
    shift = torch.as_tensor(zero_point).float().reshape(shape)
    return (quantized_data.float() - shift) * torch.as_tensor(scale).float().reshape(shape)


def _argmax(x, axis, keep_dims, **_):
    return x.argmax(int(axis), keepdim=bool(keep_dims))


OPERATIONS = {
    "add": lambda x, y: x + y,
    "cast": lambda x, dtype: x.to(torch.int32) if dtype == "int32" else x,
    "clip": lambda x, alpha, beta: x.clip(float(alpha), float(beta)),
    "concat": lambda values, axis, interleave: torch.cat(values, int(axis)),
    "constexpr_affine_dequantize": _dequantize,
    "conv": _conv,
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "real_div": lambda x, y: x / y,
    "reduce_argmax": _argmax,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), keepdim=bool(keep_dims)),
    "relu": lambda x: F.relu(x),
    "slice_by_index": lambda x, **_: x[0],
    "squeeze": lambda x, axes: x.squeeze(axes.tolist()),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_bilinear": _upsample,
}
