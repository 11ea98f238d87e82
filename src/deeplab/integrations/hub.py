"""``deeplab push``: a release pair as a repository on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from deeplab import __version__
from deeplab.errors import DownloadError, InputError, MissingExtraError, OutputError
from deeplab.files import hash_file
from deeplab.weights import Release, open_release
from deeplab.zoo.hub import CARD, CONFIG, FORMAT, PAIR, TFLITE, WEIGHTS

_LICENCES = frozenset((
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense",
))  # fmt: skip
"""Licences that the Hub knows by these names; others are "other", with their own name."""

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def push(
    pair: str | PathLike[str],
    repo: str,
    *,
    tflite: str | PathLike[str] | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> str:
    """Put a release pair on the Hub, all files in one commit, and return its ``hf://`` address.

    The token is the one of ``hf auth login`` or ``HF_TOKEN``.

    Args:
        pair: either file of it, or its path without suffix.
        repo: "user/name"; it is made where it is not there.
        tflite: the file exported from it; None exports one, in float32.
        private: a repository that is made is seen by its owner alone.
        revision: the branch; None is the main one.
        message: of the commit.
        on_step: told what is being done, in words.

    Raises:
        InputError: the name is none.
        MissingExtraError: huggingface_hub is not installed, or what exports a ``.tflite``.
        ModelNotFoundError, WeightsError: there is no such pair, or it is damaged.
        DownloadError: the Hub refuses it or cannot be reached; nothing was changed there.
    """
    if not _REPO.fullmatch(repo):
        raise InputError(f"repository: got '{repo}', expected user/name.")
    try:
        from huggingface_hub import HfApi, errors
    except ImportError as error:
        raise MissingExtraError("deeplab push", package="huggingface_hub", extra="hub") from error
    with tempfile.TemporaryDirectory(prefix="deeplab-") as work:
        folder = Path(work) / "repository"
        write_folder(pair, folder, name=repo, tflite=tflite, on_step=on_step)
        on_step(f"pushing to {repo}")
        api = HfApi(library_name="deeplab", library_version=__version__)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=revision,
                commit_message=message or f"Push {Path(pair).stem} with deeplab {__version__}",
            )
        except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DownloadError(
                f"push: {repo} was not written ({words}). Log in with: hf auth login (or set "
                "HF_TOKEN to a token that may write)."
            ) from error
    return f"hf://{repo}" + (f"@{revision}" if revision else "")


def write_folder(
    pair: str | PathLike[str],
    folder: Path,
    *,
    name: str,
    tflite: str | PathLike[str] | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write a new folder in the shape of a repository; :class:`deeplab.Segmenter` opens it.

    Args:
        pair: as of :func:`push`.
        folder: it must not be there yet.
        name: "user/name", for the card.
        tflite: as of :func:`push`.
        on_step: as of :func:`push`.

    Raises:
        OutputError: the folder is there already.
        Exception: as :func:`push`.
    """
    release = open_release(_name_pair(pair))
    if folder.exists():
        raise OutputError(f"output: {folder} is there already.")
    folder.mkdir(parents=True)
    try:
        shutil.copyfile(release.path, folder / WEIGHTS)
        content = json.loads(release.path.with_suffix(".json").read_text("utf-8"))
        content["weights"]["file"] = WEIGHTS
        (folder / PAIR).write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
        if tflite is None:
            from deeplab.export import export

            export(folder / PAIR, file=folder / TFLITE, on_step=on_step)
            (folder / f"{TFLITE}.json").rename(folder / "certificate.json")
        else:
            _check_labels(Path(tflite), release)
            shutil.copyfile(tflite, folder / TFLITE)
        _write_config(folder, release)
        (folder / CARD).write_text(make_card(release, name), "utf-8")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def make_card(release: Release, name: str) -> str:
    """Return the model card, with the metadata that the Hub reads.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise MissingExtraError("a card", package="huggingface_hub", extra="hub") from error
    licence = (release.licence or "").lower()
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="custom",
            dataset_name=_name_data(protocol, split),
            metric_type="mean_iou",
            metric_name="mIoU",
            metric_value=round(float(miou), 4),
        )
        for split, miou, protocol in _list_scores(release.scores)
    ]
    data = ModelCardData(
        license=licence if licence in _LICENCES else "other",
        license_name=None if licence in _LICENCES else _shorten(licence or "unknown"),
        library_name="deeplab",
        pipeline_tag="image-segmentation",
        tags=["deeplab", "semantic-segmentation", "tflite", "litert"],
        model_name=name.split("/")[-1],
        eval_results=results or None,
    )
    spec, config = release.input_spec, release.config
    scores = [
        f"| {split} | {miou:.4f} | {_name_data(protocol, split)} |"
        for split, miou, protocol in _list_scores(release.scores)
    ]
    table = ["", "| split | mIoU | measured on |", "|---|---|---|", *scores] if scores else []
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {name.split('/')[-1]}",
        "",
        f"{config.title}, output stride {config.output_stride}, "
        f"{spec.height}×{spec.width}, {len(release.labels)} classes: "
        f"{', '.join(release.labels.names)}.",
        "",
        "```python",
        "import deeplab  # pip install 'deeplab[hub]'",
        "",
        f'result = deeplab.Segmenter("hf://{name}")("photo.jpg")',
        'result.overlay().save("overlay.png")',
        "```",
        "",
        f"Licence: {release.licence or 'not known'}.",
        *table,
        "",
        f"`{TFLITE}` runs; `{WEIGHTS}` and `{PAIR}` are trained on and exported from. "
        f"`{CONFIG}` lists their SHA-256.",
        "",
    ]
    return "\n".join(lines)


def _shorten(licence: str) -> str:
    """Return a licence's name as the Hub takes it; the card has it in full."""
    return re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")[:60]


def _name_pair(pair: str | PathLike[str]) -> Path:
    path = Path(pair)
    return path.with_suffix("") if path.suffix in (".json", ".safetensors") else path


def _list_scores(scores: Mapping[str, Any]) -> list[tuple[str, float, Mapping[str, Any]]]:
    """Return (split, mIoU, protocol) of what was measured; what is of another kind is left out."""
    found = []
    for split, values in scores.items():
        miou = values.get("miou") if isinstance(values, Mapping) else None
        if isinstance(miou, (int, float)):
            protocol = values.get("protocol")
            found.append((split, miou, protocol if isinstance(protocol, Mapping) else {}))
    return found


def _name_data(protocol: Mapping[str, Any], split: str) -> str:
    pictures = protocol.get("pictures")
    return f"{split}, {pictures} pictures" if pictures else split


def _check_labels(tflite: Path, release: Release) -> None:
    from deeplab.runtimes import describe

    if not tflite.is_file():
        raise InputError(f"tflite: there is no file {tflite}.")
    card = describe(tflite).card
    if card.labels is None or card.labels.names != release.labels.names:
        raise InputError(
            f"tflite: {tflite} has other classes than the pair; give the file exported from it."
        )


def _write_config(folder: Path, release: Release) -> None:
    names = dict(enumerate(release.labels.names))
    content = {
        "format": FORMAT,
        "library_name": "deeplab",
        "deeplab_version": __version__,
        "model_type": "deeplab",
        "architectures": [f"DeepLab {release.config.version}"],
        "num_labels": len(names),
        "id2label": {str(index): name for index, name in names.items()},
        "label2id": {name: index for index, name in names.items()},
        "sha256": {file: hash_file(folder / file) for file in (WEIGHTS, PAIR, TFLITE)},
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
