"""Lets equal networks be traced once per session: it takes seconds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from onnx import ModelProto

    from deeplab.export.plan import Plan

_built: dict[str, bytes] = {}


def build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember what :func:`deeplab.export.onnx.build` gave, for ONNX and OpenVINO."""
    from onnx import ModelProto

    from deeplab.export import onnx

    build = onnx.build

    def remember(plan: Plan) -> ModelProto:
        about = (plan.network.config, plan.card, plan.precision == "float16", plan.output)
        key = hashlib.sha256(repr(about).encode())
        for value in plan.network.state_dict().values():
            key.update(value.numpy().tobytes())
        name = key.hexdigest()
        if name not in _built:
            _built[name] = build(plan).SerializeToString()
        return ModelProto.FromString(_built[name])

    monkeypatch.setattr(onnx, "build", remember)
