"""Models on the Hugging Face Hub, ``hf://user/name[@revision]``, and folders in their shape.

A repository of ours holds ``model.safetensors`` and ``model.json`` (a release pair),
``model.tflite``, ``config.json``, which lists their sha256, and a model card. Only these names are
asked for, so that a pickle is never even downloaded, and every file is checked before it is opened.
Where to find the Hub, its cache, its tokens and being offline are the affair of ``huggingface_hub``
(``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from deeplab.errors import (
    DownloadError,
    InputError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
)
from deeplab.files import hash_file

SCHEME = "hf://"
FORMAT = "deeplab hub"
CONFIG, PAIR, TFLITE, CARD = "config.json", "model.json", "model.tflite", "README.md"
WEIGHTS = "model.safetensors"
PROCESSOR = "preprocessor_config.json"  # of transformers: how its networks are fed

_NAME = r"[\w][\w.-]*"
_ADDRESS = re.compile(rf"hf://(?P<repo>{_NAME}/{_NAME})(@(?P<revision>[\w][\w./-]*))?/?")
_LARGEST_CONFIG = 1 << 20


def locate(address: str, *, weights: bool) -> Path:
    """Return the file of ``hf://user/name[@revision]``, downloaded where it is not here.

    Args:
        address: its revision is a branch, a tag or a commit; the main branch where it is left out.
        weights: the weights are wanted, not what runs.

    Raises:
        InputError: the address is none.
        MissingExtraError: huggingface_hub is not installed.
        ModelNotFoundError: there is no such repository or revision, or nothing to open in it.
        ModelError: a file is not the one that it was pushed as.
        DownloadError: the Hub cannot be reached, or wants a token.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise InputError(f"model: got '{address}', expected hf://user/name or hf://user/name@REV.")
    wanted = [CONFIG, PAIR, WEIGHTS, PROCESSOR] if weights else [CONFIG, TFLITE]
    folder = _download(address, found["repo"], found["revision"], wanted)
    config = _read_config(folder)
    if not weights and config is not None and TFLITE not in config:  # only its pair runs
        folder = _download(address, found["repo"], found["revision"], [CONFIG, PAIR, WEIGHTS])
    return find_file(folder, weights=weights, name=address)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder has the shape of a repository of ours."""
    return _read_config(folder) is not None


def find_file(folder: Path, *, weights: bool, name: str | None = None) -> Path:
    """Return the file to open in a folder of that shape, after checking it.

    Args:
        folder: the folder.
        weights: the weights are wanted, not what runs.
        name: of the folder, for messages.

    Raises:
        ModelNotFoundError: nothing in it can be opened.
        ModelError: a file is not the one that ``config.json`` was written with.
    """
    name = name or str(folder)
    digests = _read_config(folder)
    if digests is None:
        foreign = folder / WEIGHTS
        if weights and foreign.is_file():
            return foreign  # another library's, told by its content
        raise ModelNotFoundError(
            f"model: {name} holds no model in the shape of 'deeplab push'"
            + ("." if weights else "; 'deeplab import' reads safetensors of some other libraries.")
            + " Pickles are not opened."
        )
    runs = TFLITE in digests and not weights
    for file in (TFLITE,) if runs else (WEIGHTS, PAIR):
        path = folder / file
        if not path.is_file():
            raise ModelNotFoundError(f"model: {name} lacks {file}, which its {CONFIG} names.")
        if hash_file(path) != digests.get(file):
            raise ModelError(
                f"model: {name}: {file} is not the file that {CONFIG} was written with (its "
                "SHA-256 differs): it is cut off or replaced. Get it again."
            )
    return folder / (TFLITE if runs else PAIR)


def _read_config(folder: Path) -> dict[str, str] | None:
    """Return file -> sha256 of a folder of ours; None where it is none."""
    try:
        if (folder / CONFIG).stat().st_size > _LARGEST_CONFIG:
            return None
        content: Any = json.loads((folder / CONFIG).read_text("utf-8"))
        if content["format"] != FORMAT:
            return None
        return {str(file): str(digest) for file, digest in content["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _download(address: str, repo: str, revision: str | None, files: list[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise MissingExtraError(address, package="huggingface_hub", extra="hub") from error
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"download: {address} asks for an agreement or a token: open its page on the Hub, then "
            "hf auth login (or set HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"model: {address}: there is no such revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"model: {address}: there is no such repository, or it is private: hf auth login (or "
            "set HF_TOKEN)."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise DownloadError(
            f"download: {address} is not in the cache, and the Hub cannot be reached (or "
            "HF_HUB_OFFLINE is set). Connect, or copy its folder and open that by its path."
        ) from error
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise DownloadError(f"download: {address} cannot be fetched ({error}).") from error
