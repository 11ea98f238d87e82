"""The networks: v1, v2, v3 and v3+ on six families of backbones.

``DeepLabConfig`` describes a network and needs no torch; ``build(config)`` makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deeplab.models.config import DeepLabConfig

if TYPE_CHECKING:
    from deeplab.models.deeplab import DeepLab, build
    from deeplab.models.inference import predict
    from deeplab.models.pieces import hand_over

__all__ = ["DeepLab", "DeepLabConfig", "build", "hand_over", "predict"]


def __getattr__(name: str) -> Any:
    """Import torch only when a network is asked for."""
    if name in ("DeepLab", "build"):
        from deeplab.models import deeplab

        return getattr(deeplab, name)
    if name == "hand_over":
        from deeplab.models.pieces import hand_over

        return hand_over
    if name == "predict":
        from deeplab.models.inference import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
