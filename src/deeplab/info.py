"""What is in a model: architecture, parameters and multiply-adds by part, labels, input.

Nothing is run. A ``.tflite`` file is counted from its own graph, without torch; everything else is
read as a configuration and counted on shapes alone.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deeplab import zoo
from deeplab.errors import InputError, MissingExtraError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.tflite import file as tflite_file
from deeplab.weights.release import is_release

if TYPE_CHECKING:
    from deeplab.models.config import DeepLabConfig
    from deeplab.tflite.metadata import Metadata
    from deeplab.weights.report import ImportReport

Kind = Literal["configuration", "weights", "release pair", "tflite"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of a network costs.

    Attributes:
        name: ``backbone``, ``head.project``, …; in a ``.tflite`` the scope of its variables.
        parameters: what training changes; None in a deployed file, which has none of that.
        folded_parameters: what is deployed: batch norm folded into the convolutions.
        macs: multiply-adds of the convolutions for one photo.
    """

    name: str
    parameters: int | None
    folded_parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is in a model, as data.

    Attributes:
        name: the path, or "configuration".
        kind: where the description comes from.
        architecture: one line, such as "DeepLab v3+ on xception_65".
        config: the network's configuration; None where a file does not tell.
        size: (height, width) of the photo that ``parts`` was counted for.
        output_stride: at which it was counted; None where a file does not tell.
        logits_size: (height, width) of the network's answer before the last upsampling; None
            where it gives labels only.
        num_classes: None where the network gives labels only and the file does not name them.
        parts: in the order of the network.
        labels: the classes; None where the model does not name them.
        input: what the network is fed with; None where only the caller can know.
        precision: "float32", "int8", …: in what the convolutions' weights are stored.
        file_bytes: the size of the file with the weights; None for a configuration.
        licence: SPDX name; None where it is not known.
        scores: measured quality with its protocol, of a release pair.
        provenance: where the weights of a release pair come from.
        report: which of a foreign file's variables were kept, ignored and missed.
        optimised: what ``deeplab optimize`` left out of a ``.tflite``, a line each.
    """

    name: str
    kind: Kind
    architecture: str
    config: DeepLabConfig | None
    size: tuple[int, int]
    output_stride: int | None
    logits_size: tuple[int, int] | None
    num_classes: int | None
    parts: tuple[Part, ...]
    labels: LabelSet | None = None
    input: InputSpec | None = None
    precision: str = "float32"
    file_bytes: int | None = None
    licence: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    report: ImportReport | None = None
    optimised: tuple[str, ...] = ()

    @property
    def parameters(self) -> int | None:
        """All that training changes."""
        counts = [part.parameters for part in self.parts]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def folded_parameters(self) -> int:
        """All that is deployed."""
        return sum(part.folded_parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-adds for one photo."""
        return sum(part.macs for part in self.parts)


def describe(
    model: str | PathLike[str] | DeepLabConfig,
    *,
    size: Sequence[int] | None = None,
    output_stride: int | None = None,
) -> ModelInfo:
    """Describe a model without running it.

    Args:
        model: a configuration; a ``.tflite`` file; a release pair; or any other weights that
            :func:`deeplab.weights.load` reads. All but ``.tflite`` need torch.
        size: (height, width) of the photo to count for, pixels. When left out that of the release
            pair, else 513 x 513. A ``.tflite`` file has one size of its own.
        output_stride: 4, 8, 16 or 32; the network's own when left out. A ``.tflite`` file has
            one of its own.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file cannot be read.
        InputError: another size or output stride is asked of a file that has its own.
        MissingExtraError: torch is needed and not installed.
    """
    if isinstance(model, (str, PathLike)):
        path = Path(model)
        if _is_tflite(path):
            return _describe_tflite(path, size, output_stride)
        _require_torch()
        if is_release(path):
            return _describe_release(path, size, output_stride)
        return _describe_weights(path, size, output_stride)
    _require_torch()
    return _describe_config(model, size, output_stride)


def _is_tflite(path: Path) -> bool:
    """Tell by the name, or by the content where the name says nothing."""
    if path.suffix.lower() == ".tflite":
        return True
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == tflite_file.IDENTIFIER
    except OSError:
        return False  # a folder, the prefix of a checkpoint, or nothing: for the reader of weights


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(
            "Describing anything but a .tflite file", package="torch", extra="train"
        )


def _describe_release(
    path: Path, size: Sequence[int] | None, output_stride: int | None
) -> ModelInfo:
    from deeplab.weights import open_release

    release = open_release(path)
    spec = release.input_spec
    info = _describe_config(release.config, size or (spec.height, spec.width), output_stride)
    return dataclasses.replace(
        info,
        name=str(path),
        kind="release pair",
        labels=release.labels,
        input=spec,
        file_bytes=release.path.stat().st_size,
        licence=release.licence,
        scores=release.scores,
        provenance=release.provenance,
    )


def _describe_weights(
    path: Path, size: Sequence[int] | None, output_stride: int | None
) -> ModelInfo:
    from deeplab.weights import load_with_report

    config, _, report = load_with_report(path)
    return dataclasses.replace(
        _describe_config(config, size, output_stride),
        name=str(path),
        kind="weights",
        file_bytes=path.stat().st_size if path.is_file() else None,
        report=report,
    )


def _describe_tflite(
    path: Path, size: Sequence[int] | None, output_stride: int | None
) -> ModelInfo:
    from deeplab.tflite.count import count_graph
    from deeplab.tflite.metadata import read_metadata
    from deeplab.tflite.optimise import read_record

    file = tflite_file.read(path)
    count = count_graph(file)
    _, height, width, _ = file.tensors[file.inputs[0]].shape
    for name, asked, own in (
        ("size", size and tuple(size), (height, width)),
        ("output_stride", output_stride, count.output_stride),
    ):
        if asked is not None and asked != own:
            raise InputError(
                f"{name}: got {asked}, but {path.name} was written for {own}; leave {name} out, "
                "or describe the weights it was made from."
            )
    labels, spec, licence = None, None, ""
    if known := zoo.find_by_hash(file.sha256):
        labels, spec, licence = known.labels, known.input, known.licence
    elif metadata := read_metadata(file):
        labels, licence = metadata.labels, metadata.licence
        spec = _stated_input(metadata, height, width)
    record = read_record(file)
    return ModelInfo(
        name=str(path),
        kind="tflite",
        architecture=f"a graph of {len(file.operators)} operators",
        config=None,
        size=(height, width),
        output_stride=count.output_stride,
        logits_size=count.logits_size,
        num_classes=count.num_classes,
        parts=tuple(
            Part(
                name=scope.name,
                parameters=None,
                folded_parameters=scope.parameters,
                macs=scope.macs,
            )
            for scope in count.scopes
        ),
        labels=labels,
        input=spec,
        precision=count.precision,
        file_bytes=len(file.data),
        licence=licence or None,
        optimised=record.changes if record else (),
    )


def _stated_input(metadata: Metadata, height: int, width: int) -> InputSpec | None:
    """Return what the metadata says about the input; one number stands for all channels."""
    if not metadata.mean or not metadata.std:
        return None
    mean, std = (
        values if len(values) == 3 else values[:1] * 3 for values in (metadata.mean, metadata.std)
    )
    return InputSpec(
        height=height,
        width=width,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _describe_config(
    config: DeepLabConfig, size: Sequence[int] | None, output_stride: int | None
) -> ModelInfo:
    from deeplab.models.count import count_network

    count = count_network(config, size or (513, 513), output_stride=output_stride)
    assert config.pixel_mean is not None
    assert config.pixel_std is not None
    return ModelInfo(
        name="configuration",
        kind="configuration",
        architecture=f"DeepLab {config.version} on {config.backbone}",
        config=config,
        size=count.size,
        output_stride=count.output_stride,
        logits_size=count.logits_size,
        num_classes=config.num_classes,
        parts=tuple(Part(**dataclasses.asdict(part)) for part in count.parts),
        input=InputSpec(
            height=count.size[0], width=count.size[1], mean=config.pixel_mean, std=config.pixel_std
        ),
    )
