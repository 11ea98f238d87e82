"""What is in a model: architecture, parameters and multiply-adds by part, labels, input.

Nothing is run. A ``.tflite`` file is counted from its own graph, without torch; pairs and weights
are read as a configuration and counted on shapes alone; of other deployed files it is said how they
are fed and what they answer.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from deeplab import zoo
from deeplab.errors import InputError, MissingExtraError, ModelError
from deeplab.labels import LabelSet, open_labels
from deeplab.photo.images import InputSpec
from deeplab.runtimes import describe as describe_file
from deeplab.runtimes import find_engines
from deeplab.runtimes.network import Variant
from deeplab.runtimes.network_card import read_normalisation
from deeplab.tflite import file as tflite_file
from deeplab.weights.release import is_release

if TYPE_CHECKING:
    from deeplab.models.config import DeepLabConfig
    from deeplab.photo.images import Fit
    from deeplab.runtimes.network_card import NetworkCard, Normalisation
    from deeplab.weights.report import ImportReport

Kind = Literal[
    "configuration", "weights", "release pair", "tflite", "onnx", "openvino", "executorch"
]


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
        card: how a deployed file is run, and what must be assumed for that; None for others, and
            for files that are no segmentation network.
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
    card: NetworkCard | None = None

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
    labels: LabelSet | str | None = None,
    normalisation: Normalisation | str | None = None,
    fit: Fit | None = None,
    output_name: str | None = None,
) -> ModelInfo:
    """Describe a model without running it.

    Args:
        model: a configuration; a deployed file (``.tflite``, ``.onnx``, …); a release pair; or any
            other weights that :func:`deeplab.weights.load` reads. All but deployed files need
            torch.
        size: (height, width) of the photo to count for, pixels. When left out that of the release
            pair, else 513 x 513. A ``.tflite`` file has one size of its own.
        output_stride: 4, 8, 16 or 32; the network's own when left out. A ``.tflite`` file has
            one of its own.
        labels: of a deployed file, as for :class:`~deeplab.segmenter.Segmenter`; and so the others.
        normalisation: likewise.
        fit: likewise.
        output_name: likewise.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: the file cannot be read.
        InputError: another size or output stride is asked of a file that has its own.
        MissingExtraError: torch is needed and not installed.
    """
    if isinstance(model, (str, PathLike)):
        path = Path(model)
        told = {
            "labels": open_labels(labels) if labels is not None else None,
            "normalisation": read_normalisation(normalisation) if normalisation else None,
            "fit": fit,
            "output_name": output_name,
        }
        if _is_tflite(path):
            return _describe_tflite(path, size, output_stride, told)
        if path.suffix in (".onnx", ".xml", ".pte"):
            return _describe_deployed(path, size, told)
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
    path: Path, size: Sequence[int] | None, output_stride: int | None, told: Mapping[str, Any]
) -> ModelInfo:
    from deeplab.tflite.count import count_graph
    from deeplab.tflite.metadata import read_metadata
    from deeplab.tflite.optimise import read_record

    file = tflite_file.read(path)
    known = zoo.find_by_hash(file.sha256)
    metadata = read_metadata(file)
    card = _read_card(path, size if file.takes_any_size else None, known, told)
    labels, licence = (metadata.labels, metadata.licence) if metadata else (None, None)
    if card is not None:
        labels = card.labels or labels
    if known:
        labels, licence = known.labels, known.licence
    count = count_graph(file)
    sides = (card.spec.height, card.spec.width) if card else count.size
    for name, asked, own in (
        ("size", size and tuple(size), sides),
        ("output_stride", output_stride, count.output_stride),
    ):
        if asked is not None and asked != own:
            raise InputError(
                f"{name}: got {asked}, but {path.name} was written for {own}; leave {name} out, "
                "or describe the weights it was made from."
            )
    counted = card is None or not card.any_size  # else the file's own shapes mean nothing
    record = read_record(file)
    return ModelInfo(
        name=str(path),
        kind="tflite",
        architecture=f"a graph of {len(file.operators)} operators",
        config=None,
        size=sides,
        output_stride=count.output_stride if counted else None,
        logits_size=count.logits_size if counted else None,
        num_classes=card.num_classes if card else count.num_classes,
        parts=tuple(
            Part(
                name=scope.name,
                parameters=None,
                folded_parameters=scope.parameters,
                macs=scope.macs,
            )
            for scope in count.scopes
            if counted
        ),
        labels=labels,
        input=known.input if known else _stated_input(card),
        precision=count.precision,
        file_bytes=len(file.data),
        licence=licence or None,
        optimised=record.changes if record else (),
        card=card,
    )


def _describe_deployed(
    path: Path, size: Sequence[int] | None, told: Mapping[str, Any]
) -> ModelInfo:
    card = _read_card(path, size, None, told, strict=True)
    assert card is not None
    return ModelInfo(
        name=str(path),
        kind=cast("Kind", find_engines(path)[0]),
        architecture=f"a network for {find_engines(path)[0]}",
        config=None,
        size=(card.spec.height, card.spec.width),
        output_stride=None,
        logits_size=None,
        num_classes=card.num_classes,
        parts=(),
        labels=card.labels,
        input=_stated_input(card),
        file_bytes=path.stat().st_size,
        card=card,
    )


def _read_card(
    path: Path,
    size: Sequence[int] | None,
    known: zoo.ZooModel | None,
    told: Mapping[str, Any],
    *,
    strict: bool = False,
) -> NetworkCard | None:
    """Return how a file is run; None for one that is no segmentation network, unless ``strict``."""
    try:
        return describe_file(
            path,
            assume=known.input if known else None,
            variant=Variant(size=(size[0], size[1]) if size else None),
            **told,
        ).card
    except ModelError:
        if strict:
            raise
        return None


def _stated_input(card: NetworkCard | None) -> InputSpec | None:
    """Return how a file is fed, where it says so."""
    return None if card is None or "normalisation" in card.assumed else card.spec


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
        architecture=config.title,
        config=config,
        size=count.size,
        output_stride=count.output_stride,
        logits_size=count.logits_size,
        num_classes=config.num_classes,
        parts=tuple(Part(**dataclasses.asdict(part)) for part in count.parts),
        input=None
        if config.channels != 3  # how others are shown, only a pair says
        else InputSpec(
            height=count.size[0], width=count.size[1], mean=config.pixel_mean, std=config.pixel_std
        ),
    )
