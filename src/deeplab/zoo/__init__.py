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
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from deeplab.errors import (
    DownloadError,
    InputError,
    ModelError,
    ModelNotFoundError,
    near_matches,
)
from deeplab.files import hash_file, replacing, sweep
from deeplab.remote.address import Address, find_address
from deeplab.remote.copies import keep_file
from deeplab.zoo import hub
from deeplab.zoo.download import Progress as Progress
from deeplab.zoo.download import check_kind, fetch, resuming, unfinished
from deeplab.zoo.entries import ALIASES as ALIASES
from deeplab.zoo.entries import MODELS as MODELS
from deeplab.zoo.entries import ZooModel as ZooModel

_BUNDLED = Path(__file__).parent / "bundled"
"""Models that come inside the package."""

_GRAPHICS = Path(__file__).parent / "graphics"
"""The same networks with float16 weights, for graphics processors."""

_pulling: dict[str, threading.Lock] = {}
"""By name: threads that want the same file wait for the one that fetches it."""


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


def is_name(model: str | PathLike[str]) -> bool:
    """Whether a text names a model; a folder of that name in the current one is not meant then."""
    if not isinstance(model, str):
        return False
    wanted = model.lower()
    return wanted in ALIASES or any(wanted == entry.name for entry in MODELS)


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
        model: a name, the path of a file, or ``hf://user/name[@revision]`` on the Hugging Face Hub;
            a folder in the shape of such a repository is opened too.
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
    if isinstance(model, str) and model.startswith(hub.SCHEME):
        return ModelFile(hub.locate(model, weights=weights), None)
    address = find_address(model)
    if address is not None:
        path = _keep(address)
        return ModelFile(path, find_by_file(path))
    path = Path(model)
    if len(path.name) > 255:  # more than any file system takes
        raise ModelNotFoundError(f"model: there is no model called '{path.name[:50]}…'.")
    if path.is_file():
        return ModelFile(path, find_by_file(path))
    if path.is_dir() and not is_name(model):
        if path.suffix == ".mlpackage":
            raise ModelError(f"model: {path} is for Core ML, which runs on Apple's systems only.")
        if hub.is_model_folder(path):
            return ModelFile(hub.find_file(path, weights=weights), None)
        pairs = sorted(each.with_suffix(".json") for each in path.glob("*.safetensors"))
        hint = f" It holds {pairs[0]}: give that." if pairs else ""
        raise ModelNotFoundError(
            f"model: {path} is a folder, expected a model file or a name.{hint}"
        )
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


def _keep(address: Address) -> Path:
    """Return a copy of a model that lies elsewhere; of a release pair, both files."""
    others = {".json": (".safetensors",), ".safetensors": (".json",), ".xml": (".bin",)}
    for suffix in others.get(address.suffix, ()):
        with contextlib.suppress(FileNotFoundError):  # the one that is asked for says so
            keep_file(address.with_suffix(suffix), home())
    return keep_file(address, home())


def home() -> Path:
    """Return the cache folder: ``DEEPLAB_HOME``, or the platform's own place for caches."""
    chosen = os.environ.get("DEEPLAB_HOME")
    if chosen:
        return _expand(chosen)
    import pooch

    try:
        found = Path(pooch.os_cache("deeplab"))
    except RuntimeError:  # a user whom the system does not know has no home
        found = Path()
    return found if found.is_absolute() else Path(tempfile.gettempdir()) / f"deeplab-{_user()}"


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def places(model: ZooModel) -> list[Place]:
    """Return where a model is looked for on this machine, in order, and what is there."""
    return list(_places(model))


def _places(model: ZooModel) -> Iterator[Place]:
    yield _look("package", _BUNDLED / model.file_name, model)
    for folder in os.environ.get("DEEPLAB_MODEL_PATH", "").split(os.pathsep):
        if folder:
            yield _look("folder", _expand(folder) / model.file_name, model)
    yield _look("cache", home() / model.file_name, model)


def _expand(folder: str) -> Path:
    return Path(os.path.expanduser(folder))


def find(model: ZooModel) -> Path | None:
    """Return the first right file on this machine, or None. Downloads nothing.

    Places that cannot be read are passed over; no place is looked at in vain.
    """
    return next((place.path for place in _places(model) if place.state == "found"), None)


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
    with _pulling.setdefault(model.name, threading.Lock()):
        # Whoever waited for another thread's download has it now.
        return find(model) or _pull(model, progress)


def _pull(model: ZooModel, progress: Progress | None) -> Path:
    hint = _by_hand(model)
    try:
        folder = home()
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        path = folder / model.file_name
        for last in (False, True):
            resumed = unfinished(path).exists() and not last
            with resuming(path) as partial:
                try:
                    fetch(model.address, partial, size=model.size, progress=progress)
                except DownloadError as error:
                    raise DownloadError(
                        f"download: {model.address} cannot be fetched ({error}). {hint}"
                    ) from error
                try:
                    digest = _check(partial, model)
                except DownloadError as error:
                    partial.unlink()
                    if resumed:  # what came the last time was of another file
                        continue
                    raise DownloadError(
                        f"download: {model.address} {error}. Nothing was kept. {hint}"
                    ) from None
                if not model.sha256:
                    with replacing(_remembered(path)) as note:
                        note.write_text(f"{digest}\n", encoding="ascii")
                partial.replace(path)
                return path
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"download: {error.filename or folder} cannot be written ({error.strerror or error}); "
            f"name another folder in the environment variable DEEPLAB_HOME. {hint}"
        ) from error
    raise AssertionError("the second try ends in a file or in an error")


def _check(partial: Path, model: ZooModel) -> str:
    check_kind(partial, model.file_name)
    size = partial.stat().st_size
    if model.size not in (None, size):
        raise DownloadError(f"gave {size} bytes, expected {model.size}")
    digest = hash_file(partial)
    if not digest.startswith(model.sha256):
        raise DownloadError(f"gave a file with the sha256 {digest}, expected {model.sha256}")
    return digest


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


def find_float16(model: ZooModel) -> Path | None:
    """Return the float16 file of a model that comes inside the package as int8; None where none is.

    It is the same release pair, exported with 16-bit weights: graphics processors run integer
    networks slowly or wrongly, and these as they are meant.
    """
    path = _GRAPHICS / f"{model.name}.float16.tflite"
    return path if model.comes_inside and path.is_file() else None


# --- the search -------------------------------------------------------------------------------

_SUFFIXES = (".tflite", ".safetensors", ".json", ".pth", ".onnx", ".xml", ".pte", ".pb")


def _look(kind: Literal["package", "folder", "cache"], path: Path, model: ZooModel) -> Place:
    try:
        if not path.is_file():
            return Place(kind, path, "missing")
        if model.size is not None and path.stat().st_size != model.size:
            return Place(kind, path, "wrong")
        expected = _expected(path, model)
        # Weights without a known hash were hashed when they came; to read them all again on every
        # look would cost a second per file and prove nothing new.
        right = not model.sha256 or hash_file(path).startswith(expected)
    except (OSError, ValueError):  # somebody else's folder
        return Place(kind, path, "missing")
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
        f"To put the file there by hand: get {model.address} "
        f"and save it as {home() / model.file_name} "
        f"(or into a folder named in DEEPLAB_MODEL_PATH). Its sha256: {digest}"
    )
