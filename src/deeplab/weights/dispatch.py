"""Whatever file it is, its configuration and weights; the content decides, not the name.

``load`` is the one place that knows every reader; no reader knows another.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deeplab.errors import ConfigError, ModelNotFoundError, WeightsError
from deeplab.models.backbones import TIMM
from deeplab.models.config import DeepLabConfig
from deeplab.weights import huggingface, mobilevit, processor, smp, timm
from deeplab.weights.archive import Archive, map_file
from deeplab.weights.checkpoints import Checkpoint, flatten
from deeplab.weights.pickles import Value
from deeplab.weights.release import check_complete, is_release, open_release
from deeplab.weights.report import ImportReport
from deeplab.weights.state_dicts import from_checkpoint
from deeplab.weights.strangers import name_file, name_folder
from deeplab.weights.tensorflow import EMA, read_tensorflow
from deeplab.weights.tensorflow_config import guess_config
from deeplab.weights.tf_checkpoint import (
    Variables,
    find_checkpoints,
    locate_checkpoint,
    read_bundle,
)
from deeplab.weights.tf_graph import parse_graph, read_settings
from deeplab.weights.tflite import read_tflite
from deeplab.weights.torch_file import read_safetensors, read_torch
from deeplab.zoo import hub

Loaded = tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What the caller wants of a file: see `load_with_report`."""

    output_stride: int | None = None
    part: str | None = None
    backbone: str | None = None


def load(
    path: str | Path,
    *,
    output_stride: int | None = None,
    part: str | None = None,
    backbone: str | None = None,
) -> tuple[DeepLabConfig, dict[str, torch.Tensor]]:
    """Return configuration and state dict of a file of weights.

    Known are our release pairs, TensorFlow checkpoints, frozen graphs and release archives,
    ``.tflite`` files, and state dicts of several PyTorch libraries. A classifier gives the
    backbone's weights only; :func:`load_with_report` says so.

    Args:
        path: the file, the folder that holds it, a checkpoint's prefix, or
            ``hf://user/name[@revision]``.
        output_stride: 4, 8, 16 or 32; None takes what the file says, else the origin's default.
        part: of a file that holds several networks (an average over the training, and the plain
            weights) the one to take, by the name that the report gives it.
        backbone: ``timm/NAME`` where the file's layers are of a network of timm's; a
            ``config.json`` beside it, as timm and smp write it, says so too. Of all other files
            it plays no part.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: the file is damaged, or of no known origin.
        MissingExtraError: a package to read it is not installed.
    """
    config, state, _ = load_with_report(
        path, output_stride=output_stride, part=part, backbone=backbone
    )
    return config, state


def load_with_report(
    path: str | Path,
    *,
    output_stride: int | None = None,
    part: str | None = None,
    backbone: str | None = None,
) -> Loaded:
    """Return configuration, state dict, and what was kept, missed and assumed; see :func:`load`.

    Args:
        path: as for ``load``.
        output_stride: as for ``load``.
        part: as for ``load``.
        backbone: as for ``load``.
    """
    path = find_on_hub(path) or Path(path)
    of_timm = backbone if backbone and backbone.startswith(TIMM) else None
    choice = _Choice(output_stride=output_stride, part=part, backbone=of_timm)
    config, state, report = _dispatch(path, choice)
    if output_stride is not None:
        assumed = {key: report.assumed[key] for key in report.assumed if key != "output_stride"}
        report = dataclasses.replace(report, assumed=assumed)
        try:
            config = dataclasses.replace(config, output_stride=output_stride)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    return config, state, report


def find_on_hub(path: str | Path) -> Path | None:
    """Return the weights of ``hf://user/name``, or of a folder in that shape; None of all else."""
    if isinstance(path, str) and path.startswith(hub.SCHEME):
        return hub.locate(path, weights=True)
    folder = Path(path)
    if folder.is_dir() and hub.is_model_folder(folder):
        return hub.find_file(folder, weights=True)
    return None


def _dispatch(path: Path, choice: _Choice) -> Loaded:
    if choice.part is not None and not _may_hold_several(path):
        raise WeightsError(
            f"part: got '{choice.part}', but {path} holds one network; leave the part out."
        )
    if is_release(path):
        release = open_release(path)
        state = release.state_dict()
        check_complete(release.config, state)
        return (
            release.config,
            state,
            ImportReport(kept=tuple(state), labels=release.labels, input_spec=release.input_spec),
        )
    if path.is_dir():
        return _load_folder(path, choice)
    if _is_checkpoint(path):
        archive, prefix = locate_checkpoint(path)
        return _load_checkpoint(archive, prefix, choice)
    content = map_file(path)
    head = bytes(content[:16])
    if head[4:8] == b"TFL3":
        return read_tflite(path)
    # The length that safetensors begin with may begin as a pickle does.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(content):
        return _from_tensors(Checkpoint(tensors=read_safetensors(path)), path, choice)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":  # PyTorch's, though it be .pth.tar
        return _from_tensors(_flatten(path), path, choice)
    if head[:2] == b"\x1f\x8b" or path.suffix == ".tar":
        return _load_archive(Archive.open(path), choice)
    if head[8:9] == b"{":
        return _from_tensors(Checkpoint(tensors=read_safetensors(path)), path, choice)
    if head[:1] == b"\x0a" or path.suffix == ".pb":
        return _load_graph(map_file(path), path, choice)
    if words := name_file(head, path.suffix):
        raise WeightsError(f"{path}: {words}")
    raise WeightsError(
        f"{path}: its first bytes {head[:8]!r} are of no file that is known here. Known are "
        "release pairs, TensorFlow checkpoints and frozen graphs (.index, .pb, .tar.gz), .tflite, "
        "PyTorch (.pth, .pt, .bin) and .safetensors."
    )


def _may_hold_several(path: Path) -> bool:
    """Whether a file may hold more than one network: checkpoints of a training may."""
    return not is_release(path) and bytes(map_file(path)[4:8] if path.is_file() else b"") != b"TFL3"


def _is_checkpoint(path: Path) -> bool:
    """Whether the name is that of a checkpoint, or a prefix that has an index beside it."""
    return (
        path.name == "checkpoint"
        or re.search(r"\.(index|meta|data-\d{5}-of-\d{5})$", path.name) is not None
        or path.with_name(path.name + ".index").is_file()
    )


# ------------------------------------------------------------------------------------- TensorFlow


def _load_folder(path: Path, choice: _Choice) -> Loaded:
    archive = Archive.open(path)
    if not find_checkpoints(archive):
        for name in _IN_FOLDERS:
            if (path / name).is_file():
                return _dispatch(path / name, choice)
        for name in _IN_PARTS:
            if name in archive.names:
                return _from_tensors(_join_parts(path, name), path / name, choice)
        if words := name_folder(archive.names):
            raise WeightsError(f"{path}: {words}")
    return _load_archive(archive, choice)


def _join_parts(folder: Path, name: str) -> Checkpoint:
    """Return the tensors of a checkpoint in several files, which an index names.

    Raises:
        WeightsError: a file does not hold what the index says, as after a download of two versions.
    """
    table = _read_settings(folder / name).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise WeightsError(f"{folder / name}: names no files of weights.")
    tensors: dict[str, Value] = {}
    for part in dict.fromkeys(table.values()) if _are_texts(table) else ():
        if Path(part).name != part:
            raise WeightsError(f"{folder / name}: names the file {part!r}, which is not beside it.")
        one = folder / part
        found = read_safetensors(one) if part.endswith(".safetensors") else _flatten(one).tensors
        odd = [key for key in found if table.get(key) != part]
        odd += [key for key in table if table[key] == part and key not in found]
        if odd:
            raise WeightsError(
                f"{one}: does not hold what {name} says, '{odd[0]}' for one: they are of two "
                "versions. Get all parts and the index anew."
            )
        tensors |= found
    if not tensors:
        raise WeightsError(f"{folder / name}: its weight_map names no files. Get it anew.")
    return Checkpoint(tensors=tensors)


def _are_texts(table: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, str) for value in table.values())


# What a folder is opened for: transformers, smp and accelerate, the safe format first; DeepSpeed,
# also inside Lightning, whose first rank has all weights but in its stage 3.
_IN_FOLDERS = (
    "model.safetensors", "pytorch_model.bin", "mp_rank_00_model_states.pt",
    "checkpoint/mp_rank_00_model_states.pt",
)  # fmt: skip
_IN_PARTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def _load_archive(archive: Archive, choice: _Choice) -> Loaded:
    """Take the checkpoint if there is one, else the frozen graph."""
    prefixes = find_checkpoints(archive)
    if prefixes:
        return _load_checkpoint(archive, prefixes[0], choice)
    graphs = _graphs(archive)
    if not graphs:
        pairs = [name for name in archive.names if name.endswith(".safetensors")]
        hint = f" Of a training's folder give {pairs[0]}." if pairs else ""
        raise ModelNotFoundError(
            f"{archive.where}: holds neither a TensorFlow checkpoint (.index) nor a frozen graph "
            f"(.pb). It holds: {', '.join(archive.names[:8]) or 'nothing'}.{hint}"
        )
    where = Path(archive.describe(graphs[0]))
    return _load_graph(archive.read(graphs[0]), where, choice)


def _load_checkpoint(archive: Archive, prefix: str, choice: _Choice) -> Loaded:
    """Take a checkpoint, with the settings of a frozen graph of the same network beside it."""
    variables, skipped = read_bundle(archive, prefix)
    settings: dict[str, Any] = {}
    for name in _graphs(archive):
        try:
            graph = parse_graph(archive.read(name))
        except WeightsError as error:  # the checkpoint does without
            skipped.append(f"{name} ({error})")
            continue
        if graph.variable_names() and graph.variable_names() <= set(variables):
            settings = read_settings(graph)
            break
    where = Path(archive.describe(prefix))
    return _from_variables(variables, skipped, settings, choice=choice, where=where)


def _graphs(archive: Archive) -> list[str]:
    return [name for name in archive.names if name.endswith(".pb")]


def _load_graph(data: memoryview, path: Path, choice: _Choice) -> Loaded:
    try:
        graph = parse_graph(data)
        variables, settings = graph.variables(), read_settings(graph)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if not variables:
        raise WeightsError(
            f"{path}: no variables among the {len(graph.nodes)} operators; the graph is not "
            "frozen. Give the checkpoint instead."
        )
    return _from_variables(variables, [], settings, choice=choice, where=path)


def _from_variables(
    variables: Variables,
    skipped: list[str],
    settings: dict[str, Any],
    *,
    choice: _Choice,
    where: Path,
) -> Loaded:
    backbone_only = not any(name.startswith("logits/") for name in variables) and not any(
        name.startswith("decoder/") for name in variables
    )
    if backbone_only:  # a classifier's stride of 32 is not what a segmentation wants
        settings = {name: settings[name] for name in settings if name == "backbone_bn_eps"}
    try:
        config = dataclasses.replace(guess_config(variables), **settings)
        averaged = _takes_average(variables, choice.part)
        config, state, report = read_tensorflow(
            variables, config, prefer_ema=averaged, strict=not backbone_only
        )
    except WeightsError as error:
        raise WeightsError(f"{where}: {error}") from error
    except ConfigError as error:  # of a graph whose operators say what none of these networks has
        raise ConfigError(f"{where}: {error}") from error
    report = dataclasses.replace(
        report, ignored=(*report.ignored, *skipped), backbone_only=backbone_only
    )
    if any(name.endswith(EMA) for name in variables):
        names = (_AVERAGES, _PLAIN) if averaged else (_PLAIN, _AVERAGES)
        report = dataclasses.replace(report, taken=names[0], others=names[1:])
    if "output_stride" not in settings:
        report = _assume_stride(report, config)
    return config, state, report


_AVERAGES, _PLAIN = EMA.strip("/"), "variables"


def _takes_average(variables: Variables, part: str | None) -> bool:
    """Return whether the moving averages of a checkpoint are taken: as in PyTorch's, by default."""
    known = [_PLAIN, *([_AVERAGES] if any(name.endswith(EMA) for name in variables) else [])]
    if part not in (None, *known):
        raise WeightsError(
            f"part: got '{part}', but the networks in this checkpoint are: {', '.join(known)}."
        )
    return (part or known[-1]) == _AVERAGES


def _assume_stride(report: ImportReport, config: DeepLabConfig) -> ImportReport:
    """Say that the output stride is its origin's default, since weights do not tell."""
    if report.backbone_only:
        return report
    assumed = {**report.assumed, "output_stride": f"{config.output_stride}, the origin's default"}
    return dataclasses.replace(report, assumed=assumed)


# ---------------------------------------------------------------------------------------- PyTorch


def _flatten(path: Path) -> Checkpoint:
    content = read_torch(path)
    checkpoint = flatten(content)
    if not checkpoint.tensors:
        shown = ", ".join(map(str, list(checkpoint.facts)[:6]))
        shown = f"it holds {shown}" if shown else f"it holds a {type(content.value).__name__}"
        raise WeightsError(
            f"{path}: no tensors in it; {shown}. Save the network: "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    return checkpoint


def _from_tensors(checkpoint: Checkpoint, path: Path, choice: _Choice) -> Loaded:
    settings = _read_settings(path.with_name("config.json"))
    stride = choice.output_stride or _stated_stride(path, settings)
    backbone = _name_timm(choice.backbone, settings, path)
    whole = any(name.endswith("segmentation_head.0.weight") for name in checkpoint.tensors)
    try:
        if backbone is not None and not whole:
            return timm.read_classifier(
                checkpoint, backbone, settings, output_stride=stride, part=choice.part
            )
        config, state, report = from_checkpoint(
            checkpoint, output_stride=stride, part=choice.part, backbone=backbone
        )
        huggingface.check_kind(config, settings)
        config = huggingface.apply_settings(config, settings)
        config = mobilevit.apply_settings(config, settings)
        config = smp.apply_settings(config, settings)
        beside = _read_settings(path.with_name(processor.FILE))
        config, report = processor.apply_processor(config, report, settings=settings, values=beside)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}{_name_unrun(checkpoint)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not report.backbone_only and (labels := huggingface.read_labels(settings)):
        report = dataclasses.replace(report, labels=labels)
    return config, state, report if stride else _assume_stride(report, config)


def _name_timm(given: str | None, settings: Mapping[str, Any], path: Path) -> str | None:
    """Return ``timm/NAME`` of a file, as the caller says or its config.json; None of all others."""
    stated = timm.name_backbone(settings) or smp.name_backbone(settings)
    if given and stated and given.partition(".")[0] != stated.partition(".")[0]:
        raise WeightsError(
            f"{path}: its config.json says that these are weights of {stated}, not of {given}. "
            "Name that one as model.backbone, or take other weights."
        )
    return given or stated


def _name_unrun(checkpoint: Checkpoint) -> str:
    """Return the classes that a refused file names; its tensors may be in one of them."""
    if not checkpoint.names:
        return ""
    names = ", ".join(checkpoint.names[:6])
    return (
        f" The file also names {names}; nothing of it was run. If the weights are in one of these, "
        "save them alone: torch.save(model.state_dict(), 'weights.pth')."
    )


def _read_settings(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file beside weights says; nothing where there is none.

    Raises:
        WeightsError: it is no JSON object: without it the network may be another.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: cannot be read as JSON ({error}). Get it anew, or take it away if it is not "
            "of these weights."
        ) from error
    if not isinstance(values, dict):
        raise WeightsError(
            f"{path}: holds a {type(values).__name__}, expected an object of settings. Get it "
            "anew, or take it away if it is not of these weights."
        )
    return values


def _stated_stride(path: Path, settings: Mapping[str, Any]) -> int | None:
    """Return the output stride that a config.json beside the file states, or the file's name.

    Raises:
        WeightsError: it states none that there is.

    Source: MobileNetV2Config (transformers), save_pretrained of smp; VainF's
    "best_deeplabv3plus_mobilenet_voc_os16.pth".
    """
    for name in ("output_stride", "encoder_output_stride"):
        stated = settings.get(name)
        if stated is None:
            continue
        if isinstance(stated, bool) or stated not in (4, 8, 16, 32):
            raise WeightsError(
                f"{path.with_name('config.json')}: {name} is {stated!r}, expected 4, 8, 16 or 32. "
                "Correct it, or give the output stride (--output-stride)."
            )
        return int(stated)
    match = re.search(r"_os(4|8|16|32)(?!\d)", path.stem)
    return int(match.group(1)) if match else None
