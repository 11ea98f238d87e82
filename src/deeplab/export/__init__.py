"""From a release pair to one file for a phone, a browser or a server, with a certificate.

Formats are modules of this room with two functions each, listed in :data:`FORMATS`:

``convert(plan, target)``
    writes the file at ``target``; parts of it may lie beside it under the same stem. Returns the
    names of the layers of an int8 file that stayed float.
``count_int8(target)``
    tells how many of its tensors are integers of eight bits.

:func:`export` does the rest for all of them: a temporary folder beside the final place, the
certificate through :class:`~deeplab.segmenter.Segmenter`, and the renaming.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from deeplab.errors import (
    ExportError,
    InputError,
    MissingExtraError,
    OutputError,
    near_matches,
)
from deeplab.export.plan import KeepFloat, Plan, Precision
from deeplab.files import replacing_all
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import NetworkCard
from deeplab.zoo.example_photos import list_example_photos

if TYPE_CHECKING:
    from deeplab.data import Dataset
    from deeplab.export.certificate import Certificate
    from deeplab.export.network import ExportNetwork, Output
    from deeplab.segmenter import Runtime, Segmenter
    from deeplab.weights import Release


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file format that networks are written in.

    Attributes:
        module: has ``convert`` and ``count_int8``, see the top of this file.
        suffix: of the file's name.
        precisions: which it can be written in.
        outputs: "logits", "mask".
        any_size: the file takes frames of any size, not only the one it was written for.
        integer_io: int8 files may take and give integers.
        calibrates: int8 measures on photos; else it is for the weights alone.
        runtime: the engine that runs it, for the certificate; None where there is none here.
        needs: packages that it is written with.
        extra: what brings them.
    """

    module: str
    suffix: str
    precisions: tuple[Precision, ...] = ("float32", "float16", "int8")
    outputs: tuple[Output, ...] = ("logits", "mask")
    any_size: bool = False
    integer_io: bool = False
    calibrates: bool = True
    runtime: Runtime | None = None
    needs: tuple[str, ...] = ()
    extra: str = "export"


FORMATS: dict[str, Format] = {
    "tflite": Format(
        module="deeplab.export.tflite",
        suffix=".tflite",
        precisions=("float32", "float16", "dynamic", "int8"),
        integer_io=True,
        runtime="litert",
        needs=("torch", "safetensors", "litert-torch", "ai-edge-quantizer"),
    ),
    "onnx": Format(
        module="deeplab.export.onnx",
        suffix=".onnx",
        any_size=True,
        runtime="onnx",
        needs=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
    ),
    "openvino": Format(
        module="deeplab.export.openvino",
        suffix=".xml",
        any_size=True,
        runtime="openvino",
        needs=("openvino", "onnx", "onnxscript"),
        extra="onnx,openvino",
    ),
    "coreml": Format(
        module="deeplab.export.coreml",
        suffix=".mlpackage",
        calibrates=False,
        needs=("coremltools",),
        extra="coreml",
    ),
    "executorch": Format(
        module="deeplab.export.executorch",
        suffix=".pte",
        # Its float16 computes worse, and the file is no smaller: XNNPACK stores float32.
        precisions=("float32", "int8"),
        runtime="executorch",
        needs=("executorch",),
        extra="executorch",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export left.

    Attributes:
        file: the network.
        certificate: what the comparison with torch found; it also lies beside the file.
        certificate_file: the certificate as JSON.
    """

    file: Path
    certificate: Certificate
    certificate_file: Path


def export(
    model: str | PathLike[str],
    to: str = "tflite",
    *,
    file: str | PathLike[str] | None = None,
    precision: Precision = "float32",
    output: Output = "logits",
    size: tuple[int, int] | None = None,
    output_stride: int | None = None,
    calibrate: Sequence[Path] = (),
    keep_float: KeepFloat = (),
    integer_io: bool = False,
    photos: Sequence[Path] = (),
    dataset: Dataset | None = None,
    allow: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    on_step: Callable[[str], None] = lambda step: None,
    on_certificate: Callable[[Certificate], None] = lambda found: None,
) -> Exported:
    """Write a release pair in another format, and prove that it computes the same.

    Args:
        model: the pair, by either of its files or without suffix.
        to: a name in :data:`FORMATS`.
        file: where to; None takes the pair's name, with the precision where it is not float32.
        precision: "float32"; "float16": half the size; "dynamic": int8 weights, a quarter of the
            size; "int8": all in integers, two to three times as fast on a CPU.
        output: "logits" at low resolution, from which :class:`~deeplab.segmenter.Segmenter` makes
            the finest mask; "mask": resize and argmax inside, class ids out.
        size: (height, width) of the frame; None takes the pair's.
        output_stride: 8, 16 or 32; None takes the pair's.
        calibrate: int8: photos like those the network will see, 50 are enough.
        keep_float: int8: layers that stay float; "auto" looks for those that lose the most.
        integer_io: int8: integers in and out too, as some accelerators want.
        photos: for the certificate; none takes those of ``calibrate``, else the shipped ones.
        dataset: pictures with labels for the certificate, which then tells the mIoU too.
        allow: keep the file even where it is not equal enough; the certificate says so.
        overwrite: replace a file that is there.
        threads: for the certificate's latencies.
        on_step: told what is being done, in words.
        on_certificate: called with it before a file that is not equal enough is refused.

    Raises:
        InputError: an argument does not fit the format or the network.
        ModelNotFoundError, WeightsError: there is no such pair, or it is damaged.
        MissingExtraError: a package for this format is not installed.
        ExportError: the network cannot be written, or the file does not compute the same.
        OutputError: the file cannot be written, or is there already.
        ImageError: a photo cannot be read.
    """
    form = find_format(to)
    _check_choices(to, form, precision, output, calibrate, keep_float, integer_io)
    from deeplab.segmenter import Segmenter
    from deeplab.weights import open_release

    release = open_release(_pair(Path(model)))
    target = Path(file) if file else _default_file(release.path, form, precision)
    _check_target(target, form, overwrite=overwrite)
    # Torch's answer is the standard; opening it first also refuses sizes that do not fit.
    reference = Segmenter(release.path, threads=threads, size=size, output_stride=output_stride)
    if release.labels.overlap:
        _check_overlap(output, precision, dataset)
    if reference.spec.bands is not None:
        _check_bands(reference.spec, to, precision, photos)
    shown = photos or calibrate or list_example_photos()
    network, card = _make_network(release, form, reference.spec, output, output_stride)
    plan = Plan(
        network=network,
        card=card,
        licence=release.licence,
        precision=precision,
        output=output,
        calibration=tuple(calibrate if precision in ("float32", "int8") else shown),
        keep_float=keep_float,
        integer_io=integer_io,
    )
    return _write(
        plan,
        target,
        form,
        release=release,
        reference=reference,
        photos=shown,
        dataset=dataset,
        threads=threads,
        allow=allow,
        on_step=on_step,
        on_certificate=on_certificate,
    )


def _write(
    plan: Plan,
    target: Path,
    form: Format,
    *,
    release: Release,
    reference: Segmenter,
    photos: Sequence[Path],
    dataset: Dataset | None,
    threads: int,
    allow: bool,
    on_step: Callable[[str], None],
    on_certificate: Callable[[Certificate], None],
) -> Exported:
    """Write the file, prove that it computes the same, and only then let it have its name."""
    from deeplab.export.compare import certify

    module = importlib.import_module(form.module)
    with replacing_all(target) as partial:
        on_step(f"writing {target.name}")
        kept_float = module.convert(plan, partial)
        on_step("comparing it with torch")
        found = certify(
            partial,
            release=release,
            reference=reference,
            plan=plan,
            runtime=form.runtime,
            int8_tensors=module.count_int8(partial),
            kept_float=kept_float,
            photos=photos,
            dataset=dataset,
            threads=threads,
            allowed=allow,
        )
        on_certificate(found)
        if not allow:
            _refuse_unequal(found, target, plan.keep_float)
        partial.with_name(_certificate_file(target).name).write_text(found.to_json(), "utf-8")
    return Exported(file=target, certificate=found, certificate_file=_certificate_file(target))


def _refuse_unequal(found: Certificate, target: Path, keep_float: KeepFloat) -> None:
    if not found.faults:
        return
    hint = ""
    if found.precision == "int8" and keep_float != "auto":
        hint = " --keep-float auto looks for the layers that lose the most."
    raise ExportError(
        f"certificate: {target.name} is not equal enough to the network: "
        f"{'; '.join(found.faults)}. Nothing was written; --allow keeps it, marked.{hint}"
    )


def find_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        InputError: there is none of that name.
    """
    form = FORMATS.get(name)
    if form is None:
        raise InputError(
            f"format: there is no '{name}'.{near_matches(name, FORMATS)} "
            f"Expected: {', '.join(FORMATS)}."
        )
    return form


def _check_choice(field: str, chosen: str, known: Sequence[str], format_name: str) -> None:
    if chosen not in known:
        raise InputError(
            f"{field}: got '{chosen}', but {format_name} files know {', '.join(known)}."
            f"{near_matches(chosen, known)}"
        )


def _check_choices(
    name: str,
    form: Format,
    precision: Precision,
    output: Output,
    calibrate: Sequence[Path],
    keep_float: KeepFloat,
    integer_io: bool,
) -> None:
    _check_choice("precision", precision, form.precisions, name)
    _check_choice("output", output, form.outputs, name)
    if precision == "int8" and form.calibrates and not calibrate:
        raise InputError(
            "calibrate: int8 needs photos like those that the network will see, to find the range "
            "of its numbers. 50 are enough: --calibrate FOLDER."
        )
    given = {"calibrate": calibrate, "keep_float": keep_float, "integer_io": integer_io}
    for field, value in given.items():
        if value and precision != "int8":
            raise InputError(f"{field}: is for int8 files, but the precision is {precision}.")
    for field in ("calibrate", "keep_float"):
        if given[field] and not form.calibrates:
            raise InputError(
                f"{field}: int8 in {name} files is for the weights alone; leave it out."
            )
    if integer_io and not form.integer_io:
        raise InputError(f"integer_io: {name} files take and give real numbers; leave it out.")
    for package in form.needs:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingExtraError(f"Writing {name} files", package=package, extra=form.extra)


def _check_overlap(output: Output, precision: Precision, dataset: Dataset | None) -> None:
    """Refuse what is for classes that exclude each other."""
    if output == "mask":
        raise InputError("output: a mask has one class per pixel, but these overlap; take logits.")
    if precision not in ("float32", "float16"):
        raise InputError(
            f"precision: got '{precision}', which is measured on masks of one class per pixel; "
            "networks of overlapping classes are written in float32 or float16."
        )
    if dataset is not None:
        raise InputError(
            "dataset: the certificate of overlapping classes compares the two networks only; leave "
            "it out (`deeplab evaluate` tells the scores of either)."
        )


def _check_bands(spec: InputSpec, to: str, precision: Precision, photos: Sequence[Path]) -> None:
    """Refuse what is for photos alone, where the network takes other pictures."""
    _check_choice("format", to, ("tflite", "onnx"), "networks of other pictures'")
    if precision not in ("float32", "float16"):
        raise InputError(
            f"precision: got '{precision}', which is for networks of photos; one of "
            f"{spec.channels} channels is written in float32 or float16."
        )
    if not photos:
        raise InputError(
            f"photos: this network takes pictures with {spec.channels} channel"
            f"{'s' * (spec.channels != 1)} of their own numbers, so the "
            "certificate needs some of them: --photos FOLDER."
        )


def _pair(model: Path) -> Path:
    if model.is_file() and model.suffix not in (".safetensors", ".json"):
        raise InputError(
            f"model: {model} is no release pair. Make one of it first: deeplab import {model} -o "
            f"{model.stem}"
        )
    return model


def _default_file(pair: Path, form: Format, precision: Precision) -> Path:
    middle = "" if precision == "float32" else f".{precision}"
    return pair.with_name(pair.stem + middle + form.suffix)


def _certificate_file(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _check_target(target: Path, form: Format, *, overwrite: bool) -> None:
    if target.suffix != form.suffix:
        fitting = [name for name, other in FORMATS.items() if other.suffix == target.suffix]
        hint = f" For {target.suffix} give --to {fitting[0]}." if fitting else ""
        raise InputError(f"output: got {target}, expected a name that ends in {form.suffix}.{hint}")
    there = [path for path in (target, _certificate_file(target)) if path.exists()]
    if there and not overwrite:
        raise OutputError(f"output: {there[0]} exists already. Add --overwrite to replace it.")


def _make_network(
    release: Release,
    form: Format,
    spec: InputSpec,
    output: Output,
    output_stride: int | None,
) -> tuple[ExportNetwork, NetworkCard]:
    """Return the network to write, and what its file must say of itself."""
    from deeplab.export.network import ExportNetwork

    config = release.config
    if output_stride is not None:
        config = dataclasses.replace(config, output_stride=output_stride)
    # A pooling window and the sizes of other scales are numbers in the graph.
    scaled = config.image_pyramid or config.mirror_scale not in (0, 1)
    cut = config.family == "mobilevit_v2"  # what is left out depends on the size
    any_size = form.any_size and not (config.image_pooling_crop_size or scaled or cut)
    network = ExportNetwork(
        config,
        release.state_dict(),
        output=output,
        size=None if any_size else (spec.height, spec.width),
    )
    card = NetworkCard(
        spec=spec,
        labels=release.labels,
        output="logits" if output == "logits" else "label map",
        align_corners=config.align_corners,
        any_size=any_size,
        temperature=release.temperature,
        thresholds=release.thresholds,
    )
    return network, card
