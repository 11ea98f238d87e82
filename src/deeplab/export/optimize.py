"""``deeplab optimize``: a foreign ``.tflite`` made faster, proven equal, and only then written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deeplab import zoo
from deeplab.errors import ExportError, InputError, ModelError, OutputError
from deeplab.files import replacing
from deeplab.photo.images import Geometry, Photo
from deeplab.photo.upsample import argmax_bilinear
from deeplab.runtimes import network_card
from deeplab.runtimes.litert import LiteRTNetwork
from deeplab.runtimes.network import Float32, UInt8
from deeplab.runtimes.network_card import NetworkCard, refuse_special
from deeplab.runtimes.probe import check_runs
from deeplab.runtimes.tflite_network import TfliteNetwork, understand
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import cut
from deeplab.tflite.file import TfliteFile
from deeplab.tflite.metadata import ENTRY
from deeplab.tflite.optimise import RECORD, Optimisation, Record, read_record
from deeplab.zoo.example_photos import list_example_photos

if TYPE_CHECKING:
    from deeplab.zoo import ZooModel

LOGIT_TOLERANCE = 1e-4
"""Of the largest logit. Sums taken in another order differ by a hundredth of this."""

EQUAL_PIXELS = 0.9999
"""Two classes that are level to the last digit may be told apart differently by rounding."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The old file and the new one on the same pictures, in LiteRT.

    Attributes:
        pictures: how many.
        largest_logit: the largest magnitude.
        difference: the largest difference of a logit.
        pixels: of all masks at the frame's size.
        equal: those of them that are the same in masks made from both files' logits.
        equal_to_file: those that are the same as in what the old file answers run as it is.
    """

    pictures: int
    largest_logit: float
    difference: float
    pixels: int
    equal: int
    equal_to_file: int


@dataclass(frozen=True, kw_only=True)
class OptimizeReport:
    """What became of a file.

    Attributes:
        source: the file.
        target: the new one.
        changes: what was left out, a line each.
        left: what stays, and why.
        steps: operators before and after.
        macs: multiply-adds that are saved.
        bytes: the size of the files before and after.
        comparison: the proof.
    """

    source: Path
    target: Path
    changes: tuple[str, ...]
    left: tuple[str, ...]
    steps: tuple[int, int]
    macs: int
    bytes: tuple[int, int]
    comparison: Comparison


def optimize(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    photos: Sequence[str | PathLike[str]] = (),
    overwrite: bool = False,
) -> OptimizeReport:
    """Write a faster file that computes the same, see :mod:`deeplab.tflite.optimise`.

    The new file gives logits at the network's low resolution. It says how they lie on the frame,
    and carries the labels and the normalisation of a file that is known. It is run against the old
    one before it gets its name.

    Args:
        source: a ``.tflite`` file.
        target: the file to write.
        photos: to compare on, besides noise; none takes those that come with the package.
        overwrite: replace a file at ``target``.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is no DeepLab in TFLite, or there is nothing to leave out.
        InputError: it is another kind of file.
        OutputError: ``target`` exists, is the file itself, or cannot be written.
        ExportError: the new file does not compute the same.
    """
    source, target = Path(source), Path(target)
    file = _read(source)
    if target.exists():
        if source.resolve() == target.resolve():
            raise OutputError(f"output: {target} is the model itself; name another file.")
        if not overwrite:
            raise OutputError(f"output: {target} exists already. Add --overwrite to replace it.")
    known = zoo.find_by_hash(file.sha256)
    network = understand(file, assume=known.input if known else None)
    refuse_special(network, "optimize")
    if known is None:
        check_runs(source, "litert")
    found = Optimisation(file, network.output_tensor.index)
    if not found.changes:
        raise ModelError(_nothing_to_do(file, found))
    photos = photos or list_example_photos()
    pictures = [*_pictures(photos, (network.spec.height, network.spec.width))]
    content = found.apply(**_say(network, known, found.changes))
    with replacing(target) as temporary:
        temporary.write_bytes(content)
        comparison = _compare(network, temporary, pictures)
        _check(comparison, source, rounds=network.output_tensor.type != "FLOAT32")
    return OptimizeReport(
        source=source,
        target=target,
        changes=found.changes,
        left=found.left,
        steps=(len(file.operators), len(tflite_file.parse(content).operators)),
        macs=found.macs,
        bytes=(len(file.data), len(content)),
        comparison=comparison,
    )


def _read(source: Path) -> TfliteFile:
    if source.suffix in (".safetensors", ".json"):
        raise InputError(
            f"model: {source.name} is a release pair. A .tflite that 'deeplab export' makes of it "
            "is as fast as it can be."
        )
    return tflite_file.read(source)


def _nothing_to_do(file: TfliteFile, found: Optimisation) -> str:
    if read_record(file):
        return f"{file.name}: was optimised already; there is nothing more to leave out."
    left = "".join(f"\n{reason}" for reason in found.left)
    return (
        f"{file.name}: there is nothing to leave out. It gives low-resolution logits, resizes "
        f"nothing in vain, and spreads no pooled image over the map.{left}"
    )


def _say(
    network: TfliteNetwork, known: ZooModel | None, changes: tuple[str, ...]
) -> dict[str, dict[str, bytes]]:
    """Return what the new file must say of itself: metadata entries, and packed files."""
    file, spec = network.file, network.spec
    corners = network.align_corners if network.output == "logits" else None
    record = Record(changes=changes, align_corners=corners, source=file.sha256)
    entries = {RECORD: record.to_json().encode()}
    labels = network.labels or (known.labels if known else None)
    if labels is None:
        return {"entries": entries, "files": {}}
    card = NetworkCard(
        spec=known.input if known and known.input else spec,
        labels=labels,
        output=network.output,
        align_corners=network.align_corners,
        temperature=network.temperature,
    )
    entries[network_card.KEY] = card.to_json().encode()
    if ENTRY in file.entries:
        return {"entries": entries, "files": {}}
    from deeplab.export.metadata import LABEL_FILE, pack

    entries[ENTRY] = pack(card, licence=known.licence if known else None)
    names = "".join(f"{name}\n" for name in labels.names)
    return {"entries": entries, "files": {LABEL_FILE: names.encode()}}


def _pictures(photos: Sequence[str | PathLike[str]], size: tuple[int, int]) -> Iterator[UInt8]:
    """Give frames: the photos, then noise of every grain, because a flat one would prove little."""
    for path in photos:
        photo = Photo(path)
        geometry = Geometry(photo.size, size, "stretch")
        yield geometry.place(photo.decode(at_least=geometry.content), (0, 0, 0))
    from PIL import Image

    rng = np.random.default_rng(0)
    height, width = size
    for grain in (1, 8, 64):
        shape = (-(-height // grain), -(-width // grain), 3)
        coarse = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        yield np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _compare(network: TfliteNetwork, target: Path, pictures: Sequence[UInt8]) -> Comparison:
    """Run the file as it is, its own logits inside, and the new file."""
    file, spec = network.file, network.spec

    def open_whole(some: TfliteFile) -> LiteRTNetwork:
        understood = understand(some, whole=True, normalisation=(spec.mean, spec.std))
        return LiteRTNetwork(understood, threads=1)

    whole = inner = open_whole(file)
    if network.output_tensor.index != file.outputs[0]:
        inner = open_whole(tflite_file.parse(cut(file, network.output_tensor.index)))
    new = open_whole(tflite_file.read(target))
    largest = difference = 0.0
    equal = equal_to_file = pixels = 0
    for frame in pictures:
        wanted, got, answer = inner(frame), new(frame), whole(frame)
        masks: list[UInt8] = [_mask(network, grid, frame.shape[:2]) for grid in (wanted, got)]
        if network.output == "logits":
            largest = max(largest, float(np.abs(wanted).max()))
            difference = max(difference, float(np.abs(got - wanted).max()))
        own = answer.argmax(axis=2) if answer.ndim == 3 else answer
        if own.shape != frame.shape[:2]:  # the file leaves the way up to the frame to others
            own = _mask(network, answer, frame.shape[:2])
        pixels += own.size
        equal += int((masks[0] == masks[1]).sum())
        equal_to_file += int((masks[1] == own).sum())
    return Comparison(
        pictures=len(pictures),
        largest_logit=largest,
        difference=difference,
        pixels=pixels,
        equal=equal,
        equal_to_file=equal_to_file,
    )


def _mask(network: TfliteNetwork, answer: Float32 | UInt8, size: tuple[int, int]) -> UInt8:
    if network.output == "label map":
        return answer.astype(np.uint8)
    grid = answer.astype(np.float32, copy=False)
    return argmax_bilinear(grid, *size, align_corners=network.align_corners)


def _check(comparison: Comparison, source: Path, *, rounds: bool) -> None:
    """Refuse a file that computes something else.

    Integer files round their logits once more on the way up to the frame, so what they answer run
    as they are is another mask than that of their logits.
    """
    enough = EQUAL_PIXELS * comparison.pixels
    wrong = comparison.difference > LOGIT_TOLERANCE * comparison.largest_logit
    wrong = wrong or comparison.equal < enough
    if wrong or (comparison.equal_to_file < enough and not rounds):
        raise ExportError(
            f"{source}: nothing was written, because the new file does not compute the same: "
            f"logits differ by up to {comparison.difference:.2g} (the largest is "
            f"{comparison.largest_logit:.3g}), and {comparison.equal:,} of {comparison.pixels:,} "
            f"pixels are equal, {comparison.equal_to_file:,} to the file run as it is."
        )
