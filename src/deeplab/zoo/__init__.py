"""Named models: where a file comes from, what it must hash to, what it expects and how good it is.

A name is looked up in this order (``deeplab models path NAME`` prints it):

1. inside the package,
2. the folders in the environment variable ``DEEPLAB_MODEL_PATH``, by file name *and* hash,
3. the cache: ``DEEPLAB_HOME``, or the platform's cache folder,
4. the internet: into the cache, under a temporary name until the hash is right. Files that come
   inside the package have no address there.
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
from deeplab.zoo.entries import ALIASES as ALIASES
from deeplab.zoo.entries import MODELS as MODELS
from deeplab.zoo.entries import ZooModel as ZooModel

_BUNDLED = Path(__file__).parent / "bundled"
"""Models that come inside the package."""


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


@dataclass(frozen=True)
class ModelFile:
    """A model's file, and what the zoo knows of it.

    Attributes:
        path: the file.
        entry: by its name, or by its content where it was given by path; None for files of others.
    """

    path: Path
    entry: ZooModel | None


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
    """Return the file of a model, see :func:`locate_file`."""
    return locate_file(model, weights=weights, progress=progress).path


def locate_file(
    model: str | PathLike[str], *, weights: bool = False, progress: Progress | None = None
) -> ModelFile:
    """Return the file of a model, given by name or by path; a named one is downloaded if need be.

    Args:
        model: a name, or the path of a file.
        weights: names of weights, which cannot run as they are, are welcome too.
        progress: what a download reports to.

    Raises:
        ModelNotFoundError: there is no such name, and no such file.
        ModelError: the name is that of weights, and ``weights`` is false; or the file comes inside
            the package, and this copy of the package lacks it.
        DownloadError: the file is nowhere on this machine and could not be downloaded.
    """
    if not isinstance(model, (str, PathLike)):
        raise InputError(f"model: got {type(model).__name__}, expected a name or a path.")
    path = Path(model)
    if len(path.name) > 255:  # more than any file system takes
        raise ModelNotFoundError(f"model: there is no model called '{path.name[:50]}…'.")
    if path.is_file():
        return ModelFile(path, find_by_file(path))
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
    return ModelFile(find(entry) or pull(entry, progress=progress), entry)


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
        ModelError: it comes inside the package, and this copy of the package lacks it.
    """
    if model.comes_inside:
        raise ModelError(
            f"model: '{model.name}' comes inside the package, but {_BUNDLED / model.file_name} is "
            "missing or damaged. Install deeplab again."
        )
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
        again = f"Delete the file and run: deeplab models pull {model.name}"
        raise ModelError(
            f"{path}: has the sha256 {digest}, expected {expected} for '{model.name}'. "
            f"{'Install deeplab again.' if model.comes_inside else again}"
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
