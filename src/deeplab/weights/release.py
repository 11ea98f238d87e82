"""The release pair: ``NAME.safetensors`` with the weights and ``NAME.json`` with all the rest.

It loads without the data set and without the code that made it. The JSON holds the architecture,
the label set, the input specification, where the weights come from, their licence and their
measured scores, and the digest of the weights it belongs to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.errors import (
    DeepLabError,
    InputError,
    MissingExtraError,
    ModelNotFoundError,
    OutputError,
    WeightsError,
)
from deeplab.files import hash_file, replacing
from deeplab.labels import LABEL_SETS, LabelSet
from deeplab.models.config import DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import read_bands, read_temperature, read_thresholds
from deeplab.tflite import file as tflite_file
from deeplab.weights.tflite_card import read_labels

if TYPE_CHECKING:
    import torch

FORMAT = "deeplab release"
VERSION = 1
SPECIAL_VERSION = 2
"""Of pairs that older programs would misread: see :mod:`deeplab.runtimes.network_card`."""
_LARGEST_JSON = 64 << 20
"""In bytes; a JSON of ours has some thousands."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a release pair says about a network; the weights are read by ``state_dict()``.

    Attributes:
        path: the ``.safetensors`` file.
        config: the architecture.
        labels: the classes.
        input_spec: the frame it was trained on, normalisation, and how photos meet it.
        provenance: where the weights come from, in words and numbers that JSON knows.
        licence: SPDX name, or None where it is not known.
        scores: measured quality with its protocol.
        temperature: of its probabilities, see :mod:`deeplab.photo.confidence`; 1 where it was not
            calibrated.
        thresholds: of overlapping classes, see
            :class:`~deeplab.runtimes.network_card.NetworkCard`.
    """

    path: Path
    config: DeepLabConfig
    labels: LabelSet
    input_spec: InputSpec
    provenance: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Read the weights.

        Raises:
            WeightsError: the file is damaged.
        """
        from deeplab.weights.torch_file import read_safetensors

        return read_safetensors(self.path)


def default_labels(num_classes: int) -> LabelSet:
    """Return the label set that a class count means by custom, else "class 0", "class 1", …"""
    for labels in LABEL_SETS.values():
        if len(labels) == num_classes:
            return labels
    return LabelSet(tuple(f"class {index}" for index in range(num_classes)), background=None)


def labels_of(path: Path, config: DeepLabConfig) -> LabelSet:
    """Return the classes of a file of weights: as it says, else those that their count means."""
    if is_release(path):
        return open_release(path).labels
    labels = None
    if path.suffix == ".tflite":
        labels = read_labels(tflite_file.read(path))
    fits = labels is not None and len(labels) == config.num_classes
    return labels if labels is not None and fits else default_labels(config.num_classes)


def save(
    name: str | Path,
    config: DeepLabConfig,
    state_dict: Mapping[str, torch.Tensor],
    *,
    labels: LabelSet,
    input_spec: InputSpec,
    provenance: Mapping[str, Any] | None = None,
    licence: str | None = None,
    scores: Mapping[str, Any] | None = None,
    thresholds: Sequence[float] = (),
) -> Release:
    """Write ``NAME.safetensors`` and ``NAME.json``, each to a temporary name and then renamed.

    Args:
        name: the path without suffix; either suffix is taken off.
        config: the architecture.
        state_dict: all weights of ``build(config)``.
        labels: one class per channel of the logits.
        input_spec: its height, width, fit and bands are written; the normalisation is the
            network's.
        provenance: where the weights come from; anything that JSON knows.
        licence: SPDX name.
        scores: measured quality with its protocol; anything that JSON knows.
        thresholds: one per class where they overlap; () takes 0.5 for each.

    Raises:
        InputError: the labels do not fit the classes, or something is nothing that JSON knows.
        WeightsError: the weights are not those of this architecture, all of them.
        OutputError: the files cannot be written.
    """
    weights_path, json_path = _pair(Path(name))
    if len(labels) != config.num_classes:
        raise InputError(
            f"labels: got {len(labels)} names for a network of {config.num_classes} classes; "
            "give one name per class."
        )
    check_complete(config, state_dict)
    bands = input_spec.bands
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": SPECIAL_VERSION if bands is not None or labels.overlap else VERSION,
        "architecture": config.to_dict(),
        "labels": labels.to_dict(),
        "input": {
            "height": input_spec.height,
            "width": input_spec.width,
            "fit": input_spec.fit,
            **({} if bands is None else {"bands": bands.to_dict()}),
        },
        "provenance": dict(provenance or {}),
        "licence": licence,
        "scores": dict(scores or {}),
    }
    if labels.overlap:
        content["thresholds"] = list(thresholds) or [0.5] * len(labels)
    try:
        json.dumps(content)
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance, scores: {error}; give values that JSON knows.") from error
    _write(weights_path, json_path, content, state_dict)
    return open_release(json_path)


def open_release(name: str | Path) -> Release:
    """Return what ``NAME.json`` says, after checking that the weights are those it was made with.

    ``name`` is the path without suffix, or with either of the two. torch is not imported.

    Raises:
        ModelNotFoundError: one of the two files is not there.
        WeightsError: the JSON is damaged, of a newer format, or belongs to other weights.
    """
    weights_path, json_path = _pair(Path(name))
    for path in (json_path, weights_path):
        if not path.is_file():
            raise ModelNotFoundError(
                f"release: there is no file {path}. A release is a pair, "
                f"{weights_path.name} and {json_path.name}; keep both in one folder."
            )
    content = _read_json(json_path)
    try:
        config = DeepLabConfig.from_dict(content["architecture"])
        release = Release(
            path=weights_path,
            config=config,
            labels=LabelSet.from_dict(content["labels"]),
            input_spec=_read_input(content["input"], config),
            provenance=_as_mapping(content["provenance"]),
            licence=_as_licence(content["licence"]),
            scores=_as_mapping(content["scores"]),
            temperature=read_temperature(content),
            thresholds=read_thresholds(content),
        )
        digest = content["weights"]["sha256"]
    except DeepLabError as error:
        raise WeightsError(f"{json_path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{json_path}: a part is missing or of another kind ({type(error).__name__}: {error})."
        ) from error
    if hash_file(weights_path) != digest:
        raise WeightsError(
            f"{weights_path}: is not the file that {json_path.name} was written with (its SHA-256 "
            "differs): it is cut off or replaced. Copy both files again."
        )
    return release


def set_temperature(name: str | Path, temperature: float) -> None:
    """Write a temperature into ``NAME.json``; the weights stay as they are.

    Raises:
        WeightsError: the JSON is damaged.
        OutputError: it cannot be written.
    """
    json_path = _pair(Path(name))[1]
    content = {**_read_json(json_path), "temperature": temperature}
    with replacing(json_path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def find_pair(model: str | PathLike[str]) -> Path | None:
    """Return the JSON of a pair given without suffix; None where it names no pair.

    A name that is a file is that file: beside an exported one lies its certificate, FILE.json.
    """
    path = Path(f"{os.fspath(model)}.json")
    return path if path.is_file() and not Path(model).is_file() else None


def is_release(path: Path) -> bool:
    """Whether ``path`` (any of the pair's names) has a JSON of ours beside it."""
    json_path = _pair(path)[1]
    try:
        if json_path.stat().st_size > _LARGEST_JSON:
            return False
        return bool(json.loads(json_path.read_text("utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def check_complete(config: DeepLabConfig, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not exactly those of ``build(config)``.

    Raises:
        WeightsError: names the first weights that are missing, left over, or of another shape.
    """
    import torch

    from deeplab.models import build

    try:
        with torch.device("meta"):
            expected = build(config).state_dict()
    except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise WeightsError(
            "architecture: no network can be made with these numbers "
            f"({(str(error).splitlines() or [''])[0][:200]})."
        ) from error
    missing = [name for name in expected if name not in state_dict]
    left = [name for name in state_dict if name not in expected]
    wrong = [
        name
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    if missing and all(not name.startswith("backbone.") for name in missing) and not left:
        raise WeightsError(
            "state dict: the backbone is there, but not the head: this network must be trained "
            f"first (missing {len(missing)} weights, such as {missing[0]})."
        )
    for what, names in (("missing", missing), ("left over", left), ("of another shape", wrong)):
        if names:
            raise WeightsError(
                f"state dict: {len(names)} weights are {what}: {', '.join(names[:5])}"
                f"{', …' * (len(names) > 5)}. Give all weights of build(config), no others."
            )


# ------------------------------------------------------------------------------------- the files


def _pair(name: Path) -> tuple[Path, Path]:
    if name.name in ("", ".."):
        raise ModelNotFoundError(f"model: {name} is a folder, expected the name of a release pair.")
    base = name
    if name.suffix in (".json", ".safetensors"):
        base = name.with_suffix("")
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def _write(
    weights_path: Path,
    json_path: Path,
    content: dict[str, Any],
    state_dict: Mapping[str, torch.Tensor],
) -> None:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtraError(
            "Writing a release", package="safetensors", extra="train"
        ) from error
    tensors = {
        name: value.detach().cpu().contiguous().clone() for name, value in state_dict.items()
    }
    try:
        # The JSON gets its name last: it says that the weights are whole.
        with replacing(json_path) as partial_json, replacing(weights_path) as partial_weights:
            save_file(tensors, partial_weights)
            content["weights"] = {
                "file": weights_path.name,
                "sha256": hash_file(partial_weights),
                "bytes": partial_weights.stat().st_size,
            }
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            partial_json.write_text(text, "utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OutputError(f"release: {json_path.parent} cannot be written: {error}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WeightsError(f"{path}: is not the JSON of a release (its format is not '{FORMAT}').")
    if content.get("format_version") not in (VERSION, SPECIAL_VERSION):
        raise WeightsError(
            f"{path}: has format version {content.get('format_version')!r}, this program reads "
            f"{VERSION} and {SPECIAL_VERSION}. Update deeplab."
        )
    return content


def _as_mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected names and values, got {str(value)[:40]!r}")
    return value


def _as_licence(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"licence: expected a name, got {str(value)[:40]!r}")
    return value


def _read_input(values: Mapping[str, Any], config: DeepLabConfig) -> InputSpec:
    assert config.pixel_mean is not None
    assert config.pixel_std is not None
    return InputSpec(
        height=values["height"],
        width=values["width"],
        mean=config.pixel_mean,
        std=config.pixel_std,
        fit=values["fit"],
        bands=read_bands(values),
    )
