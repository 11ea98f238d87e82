"""Named models: where a file comes from, what it must hash to, what it expects and how good it is.

A name is looked up in this order (``deeplab models path NAME`` prints it):

1. inside the package,
2. the folders in the environment variable ``DEEPLAB_MODEL_PATH``, by file name *and* hash,
3. the cache: ``DEEPLAB_HOME``, or the platform's cache folder,
4. the internet: into the cache, under a temporary name until the hash is right.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol

from deeplab.errors import (
    DownloadError,
    InputError,
    ModelError,
    ModelNotFoundError,
    near_matches,
)
from deeplab.files import hash_file
from deeplab.images import InputSpec
from deeplab.labels import CITYSCAPES, VOC, LabelSet

_BUNDLED = Path(__file__).parent / "bundled"
"""Models that come with the package."""


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """One published file.

    Attributes:
        name: what the file is called here.
        address: where its publisher keeps it.
        sha256: 64 hex digits; or only the first few, where the publisher tells no more; or "",
            where nothing is known: then the first download is trusted, and remembered.
        size: in bytes; None where nothing is known.
        licence: SPDX identifier, or the publisher's words.
        miou: its mean intersection over union, 0..1.
        protocol: on what, by whom and how that was measured.
        kind: "model" runs as it is; "weights" are read by ``deeplab import``.
        labels: its classes; None for weights of a backbone.
        input: what the network is fed with; None for weights, which take any size.
        align_corners: how its logits lie on the frame (see ``Network`` in the runtimes).
        file_name: the file's name on disk; the last part of the address unless given.
    """

    name: str
    address: str
    sha256: str
    size: int | None
    licence: str
    miou: float
    protocol: str
    kind: Literal["model", "weights"] = "model"
    labels: LabelSet | None = VOC
    input: InputSpec | None = None
    align_corners: bool = True
    file_name: str = ""

    def __post_init__(self) -> None:
        if not self.file_name:
            object.__setattr__(self, "file_name", self.address.rsplit("/", 1)[-1])


@dataclass(frozen=True)
class Place:
    """One step of the search for a model: a file that is right, wrong, or not there.

    Attributes:
        kind: "package", "folder" (of ``DEEPLAB_MODEL_PATH``) or "cache".
        path: where the file is, or would be.
        state: "found", "missing", or "wrong" (there, but with another hash).
    """

    kind: Literal["package", "folder", "cache"]
    path: Path
    state: Literal["found", "missing", "wrong"]


class Progress(Protocol):
    """What a download reports to. ``total`` is set, in bytes, before the first ``update``."""

    total: float

    def update(self, amount: int) -> None:
        """Say that ``amount`` more bytes have come."""

    def reset(self) -> None:
        """Begin again at zero."""

    def close(self) -> None:
        """End."""


def get(name: str) -> ZooModel:
    """Return the entry of that name or alias; case does not matter.

    Raises:
        ModelNotFoundError: no such name; the near matches are in the message.
    """
    known = {model.name: model for model in MODELS}
    wanted = name.lower()
    wanted = ALIASES.get(wanted, wanted)
    if wanted not in known:
        raise ModelNotFoundError(
            f"model: there is no model called '{name}'.{near_matches(name, [*ALIASES, *known])} "
            "'deeplab models list' shows all names; a path to a model file works too."
        )
    return known[wanted]


def locate(
    model: str | PathLike[str], *, weights: bool = False, progress: Progress | None = None
) -> Path:
    """Return the file of a model, given by name or by path; a named one is downloaded if need be.

    Args:
        model: a name, or the path of a file.
        weights: names of weights, which cannot run as they are, are welcome too.
        progress: what a download reports to.

    Raises:
        ModelNotFoundError: there is no such name, and no such file.
        ModelError: the name is that of weights, and ``weights`` is false.
        DownloadError: the file is nowhere on this machine and could not be downloaded.
    """
    if not isinstance(model, (str, PathLike)):
        raise InputError(f"model: got {type(model).__name__}, expected a name or a path.")
    path = Path(model)
    if len(path.name) > 255:  # more than any file system takes
        raise ModelNotFoundError(f"model: there is no model called '{path.name[:50]}…'.")
    if path.is_file():
        return path
    if path.is_dir():
        if path.suffix == ".mlpackage":
            raise ModelError(f"model: {path} is for Core ML, which runs on Apple's systems only.")
        raise ModelNotFoundError(f"model: {path} is a folder, expected a model file or a name.")
    text = os.fspath(model)
    if isinstance(model, PathLike) or path.suffix in _SUFFIXES or os.sep in text:
        raise ModelNotFoundError(f"model: there is no file {path}.{_neighbours(path)}")
    entry = get(text)
    if entry.kind == "weights" and not weights:
        raise ModelError(
            f"model: '{entry.name}' is weights, not a model that runs as it is. "
            f"Make one of it first: deeplab import {entry.name} -o NAME"
        )
    return find(entry) or pull(entry, progress=progress)


def home() -> Path:
    """Return the cache folder: ``DEEPLAB_HOME``, or the platform's own place for caches."""
    chosen = os.environ.get("DEEPLAB_HOME")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("deeplab"))


def places(model: ZooModel) -> list[Place]:
    """Return where a model is looked for on this machine, in order, and what is there."""
    folders = os.environ.get("DEEPLAB_MODEL_PATH", "").split(os.pathsep)
    wanted: list[tuple[Literal["package", "folder", "cache"], Path]] = [("package", _BUNDLED)]
    wanted += [("folder", Path(folder).expanduser()) for folder in folders if folder]
    wanted += [("cache", home())]
    return [_look(kind, folder / model.file_name, model) for kind, folder in wanted]


def find(model: ZooModel) -> Path | None:
    """Return the first right file on this machine, or None. Downloads nothing."""
    return next((place.path for place in places(model) if place.state == "found"), None)


def pull(model: ZooModel, *, progress: Progress | None = None) -> Path:
    """Download a model into the cache, check its hash, and return the file.

    The file has a temporary name until its hash is right. Where the zoo knows no hash, the first
    download is trusted and its hash is kept beside it.

    Raises:
        DownloadError: no connection, no such address, a broken transfer, or another hash; the
            message says where a file that was fetched by other means is found.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    folder = home()
    hint = _by_hand(model)
    fetched = folder / f".{model.file_name}.{os.getpid()}.part"
    responses: list[requests.Response] = []  # pooch leaves them open when something goes wrong
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download = pooch.HTTPDownloader(
            progressbar=progress or False,
            chunk_size=1 << 16,
            hooks={"response": lambda response, **_: responses.append(response)},
        )
        download(model.address, str(fetched), None)
        digest = hash_file(fetched)
        if not digest.startswith(model.sha256):
            raise DownloadError(
                f"download: {model.address} gave a file with the sha256 {digest}, expected "
                f"{model.sha256}. Nothing was kept.\n{hint}"
            )
        path = folder / model.file_name
        if not model.sha256:
            _remembered(path).write_text(f"{digest}\n", encoding="ascii")
        fetched.replace(path)
    except requests.RequestException as error:
        raise DownloadError(
            f"download: {model.address} cannot be fetched ({_reason(error)}).\n{hint}"
        ) from error
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"download: {folder} cannot be written ({error}).\n{hint}") from error
    finally:
        for response in responses:
            response.close()
        with contextlib.suppress(OSError):  # where there is no folder, there is no file
            fetched.unlink()
    return path


def verify(path: str | PathLike[str], model: ZooModel) -> str:
    """Check the file of a model against the zoo, or against its first download.

    Returns:
        Its sha256, 64 hex digits.

    Raises:
        ModelError: the hash is another one.
    """
    path = Path(path)
    digest = hash_file(path)
    expected = _expected(path, model)
    if not digest.startswith(expected):
        raise ModelError(
            f"{path}: has the sha256 {digest}, expected {expected} for '{model.name}'. "
            f"Delete the file and run: deeplab models pull {model.name}"
        )
    return digest


def find_by_hash(sha256: str) -> ZooModel | None:
    """Return the entry whose file has this sha256 (64 hex digits), or None."""
    return next((m for m in MODELS if m.sha256 and sha256.lower().startswith(m.sha256)), None)


def find_by_file(path: str | PathLike[str]) -> ZooModel | None:
    """Return the entry for a file's content, whatever its name, or None.

    So a known file without metadata, opened by path, still has labels and normalisation.
    Only files of a known size are read.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0  # a folder, or the prefix of a checkpoint
    if not any(model.size == size for model in MODELS):
        return None
    return find_by_hash(hash_file(path))


# --- the search -------------------------------------------------------------------------------

_SUFFIXES = (".tflite", ".safetensors", ".json", ".pth", ".onnx", ".xml", ".pte", ".pb")


def _look(kind: Literal["package", "folder", "cache"], path: Path, model: ZooModel) -> Place:
    if not path.is_file():
        return Place(kind, path, "missing")
    if model.size is not None and path.stat().st_size != model.size:
        return Place(kind, path, "wrong")
    expected = _expected(path, model)
    # Weights without a known hash were hashed when they came; to read them all again on every
    # look would cost a second per file and prove nothing new.
    right = not model.sha256 or hash_file(path).startswith(expected)
    return Place(kind, path, "found" if right else "wrong")


def _remembered(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _expected(path: Path, model: ZooModel) -> str:
    if model.sha256 or not _remembered(path).is_file():
        return model.sha256
    return _remembered(path).read_text(encoding="ascii").strip()


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" The folder {path.parent} does not exist either."
    files: Iterable[Path] = path.parent.iterdir()
    return near_matches(path.name, (file.name for file in files if file.suffix in _SUFFIXES))


def _by_hand(model: ZooModel) -> str:
    digest = model.sha256 or "not known"
    if 0 < len(digest) < 64 and model.sha256:
        digest = f"begins with {digest}"
    return (
        f"To put the file there by hand: get {model.address}\n"
        f"and save it as {home() / model.file_name}\n"
        f"(or into a folder named in DEEPLAB_MODEL_PATH). Its sha256: {digest}"
    )


def _reason(error: Exception) -> str:
    """Return the few words of a network error that help."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"the transfer broke off: {error}"


# --- the entries ------------------------------------------------------------------------------

_446 = (
    "446 VOC 2012 val photos, the 7 classes background, cat, cow, dog, horse, person, sheep; "
    "photo letterboxed, label map back to the photo's size by nearest neighbour"
)
_CORAL = "https://github.com/google-coral/test_data/raw/master/"
_TENSORFLOW = "http://download.tensorflow.org/models/"
_TORCHVISION = "https://download.pytorch.org/models/"
_VOC_VAL = "VOC 2012 val, published: one scale, no flip, output stride 16"
_VOC_TEST = "VOC 2012 test, published: 6 scales, flip, output stride 8"
_CITYSCAPES_VAL = "Cityscapes val, published: one scale, no flip, output stride 16"
_ADE20K_VAL = "ADE20K val, published: 6 scales, flip, output stride 8"
_COCO_VAL = "COCO val 2017 with the 21 VOC classes, published"


def _checkpoint(
    name: str, file: str, miou: float, protocol: str, labels: LabelSet | None = VOC
) -> ZooModel:
    """Return an entry for a checkpoint of the original's model zoo.

    Source: research/deeplab/g3doc/model_zoo.md of tensorflow/models, which states no hashes.
    """
    return ZooModel(
        name=name,
        address=f"{_TENSORFLOW}{file}.tar.gz",
        sha256="",
        size=None,
        licence="Apache-2.0",
        miou=miou,
        protocol=protocol,
        kind="weights",
        labels=labels,
    )


def _torchvision(name: str, file: str, miou: float) -> ZooModel:
    """Return an entry for torchvision's weights; the file name ends in the hash's first digits."""
    return ZooModel(
        name=name,
        address=f"{_TORCHVISION}{file}.pth",
        sha256=file.rsplit("-", 1)[-1],
        size=None,
        licence="BSD-3-Clause (torchvision)",
        miou=miou,
        protocol=_COCO_VAL,
        kind="weights",
        align_corners=False,
    )


MODELS: tuple[ZooModel, ...] = (
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-257",
        address="https://storage.googleapis.com/download.tensorflow.org/models/tflite/gpu/"
        "deeplabv3_257_mv_gpu.tflite",
        sha256="68a539782c2c6a72f8aac3724600124a85ed977162b44e84cbae5db717c933c6",
        size=2779264,
        licence="Apache-2.0",
        miou=0.720,
        protocol=_446,
        input=InputSpec(height=257, width=257),
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-257-metadata",
        address="https://github.com/tensorflow/tflite-support/raw/master/"
        "tensorflow_lite_support/cc/test/testdata/task/vision/deeplabv3.tflite",
        sha256="9711334db2b01d5894feb8ed0f5cb3e97d125b8d229f8d8692f625801818f5ef",
        size=2780051,
        licence="Apache-2.0",
        miou=0.720,
        protocol=f"{_446}; the same network with Task Library metadata",
        input=InputSpec(height=257, width=257),
        file_name="deeplabv3_with_metadata.tflite",
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-dm05-513-int8",
        address=f"{_CORAL}deeplabv3_mnv2_dm05_pascal_quant.tflite",
        sha256="0470d2a782aa54eeeb99d32e7b6b3fb7722905c7c4f5d26bd957ec861366d48b",
        size=760904,
        licence="Apache-2.0",
        miou=0.787,
        protocol=_446,
        input=InputSpec(height=513, width=513),
    ),
    ZooModel(
        name="deeplabv3-mobilenetv2-513-int8",
        address=f"{_CORAL}deeplabv3_mnv2_pascal_quant.tflite",
        sha256="350af47fd346ea6d74b58833a351f583ba860e9806ec5bd292ff8d8f1f249398",
        size=2193224,
        licence="Apache-2.0",
        miou=0.837,
        protocol=_446,
        input=InputSpec(height=513, width=513),
    ),
    ZooModel(
        name="deeplab-edgetpu-slim-cityscapes-513-int8",
        address=f"{_CORAL}deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite",
        sha256="322fe29945cb1693f426952f2a330ab67ea5678545ddee6f2548e0cfd0ca03e5",
        size=2157328,
        licence="Apache-2.0",
        miou=0.732,
        protocol="Cityscapes val, published for the float network at output stride 16 and full "
        "size; the 513 px file was not measured",
        labels=CITYSCAPES,
        input=InputSpec(height=513, width=513),
    ),
    _checkpoint(
        "tf-mobilenetv2-voc-trainaug",
        "deeplabv3_mnv2_pascal_train_aug_2018_01_29",
        0.7532,
        _VOC_VAL,
    ),
    _checkpoint(
        "tf-mobilenetv2-voc-trainval",
        "deeplabv3_mnv2_pascal_trainval_2018_01_29",
        0.8025,
        _VOC_TEST,
    ),
    _checkpoint(
        "tf-xception65-voc-trainaug",
        "deeplabv3_pascal_train_aug_2018_01_04",
        0.8220,
        _VOC_VAL,
    ),
    _checkpoint(
        "tf-xception65-voc-trainval",
        "deeplabv3_pascal_trainval_2018_01_04",
        0.8780,
        _VOC_TEST,
    ),
    _checkpoint(
        "tf-mobilenetv2-cityscapes",
        "deeplabv3_mnv2_cityscapes_train_2018_02_05",
        0.7071,
        _CITYSCAPES_VAL,
        CITYSCAPES,
    ),
    _checkpoint(
        "tf-xception65-cityscapes",
        "deeplabv3_cityscapes_train_2018_02_06",
        0.7879,
        _CITYSCAPES_VAL,
        CITYSCAPES,
    ),
    _checkpoint(
        "tf-xception65-ade20k",
        "deeplabv3_xception_ade20k_train_2018_05_29",
        0.4565,
        _ADE20K_VAL,
        None,
    ),
    _torchvision("torchvision-resnet50", "deeplabv3_resnet50_coco-cd0a2569", 0.664),
    _torchvision("torchvision-resnet101", "deeplabv3_resnet101_coco-586e9e4e", 0.674),
    _torchvision("torchvision-mobilenetv3", "deeplabv3_mobilenet_v3_large-fc3c493d", 0.603),
)
"""Everything that has a name, the ready models first."""

ALIASES: dict[str, str] = {
    "voc": "deeplabv3-mobilenetv2-dm05-257",
    "cityscapes": "deeplab-edgetpu-slim-cityscapes-513-int8",
}
"""Short names: the default for a label set."""
