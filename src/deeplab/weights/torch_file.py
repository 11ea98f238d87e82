"""Files of PyTorch (``.pth``, ``.pt``, ``.bin``) and ``.safetensors``: tensors in, nothing run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deeplab.errors import MissingExtraError, WeightsError

# Where training scripts put the weights beside optimiser and step.
_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "net", "network", "weights")


def read_torch(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that ``torch.save`` wrote.

    A dictionary around the state dict ("model", "state_dict", "model_state", …) is taken off.
    Nothing but tensors is unpickled, so a foreign file cannot run code.

    Raises:
        WeightsError: it holds anything else than tensors, or is cut off or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, or is damaged, and was refused: loading such a "
            "file can run any code. Save the state dict alone: torch.save(model.state_dict(), "
            f"'weights.pth'). PyTorch says: {str(error).strip().splitlines()[0]}"
        ) from error
    except Exception as error:  # on damaged bytes the unpickler raises whatever it runs into
        raise WeightsError(
            f"{path}: cannot be read as a PyTorch file ({_first_line(error)}); it is cut off or "
            "damaged."
        ) from error
    return _unwrap(content, path)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file.

    Raises:
        WeightsError: it is cut off or damaged.
        MissingExtraError: the package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError(
            "Reading .safetensors", package="safetensors", extra="train"
        ) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({_first_line(error)}); it is cut off or "
            "damaged."
        ) from error


def _unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the first dictionary of tensors, from the outside in."""
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, expected a state dict: names and tensors."
        )
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        shown = ", ".join(str(name) for name in list(content)[:6]) or "nothing"
        raise WeightsError(f"{path}: no tensors in it; it holds {shown}.")
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
