"""``--cluster``: photos and data sets over the workers of a Ray cluster."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab import __version__
from deeplab.cli.console import complain
from deeplab.cli.outputs import Job, which_exist
from deeplab.cli.work import Outcome, Work
from deeplab.errors import DataError, DeepLabError, ImageError, InputError, OutputError
from deeplab.files import hash_file, replacing
from deeplab.remote import store
from deeplab.remote.address import Place, find_address

if TYPE_CHECKING:
    from deeplab.data.sample import Dataset
    from deeplab.evaluation.protocol import Evaluation

RECORD = ".deeplab-segment.json"
"""Beside the results: what made them, so that only the same goes on with them."""

FAILED = "failed.jsonl"
"""Beside the results: a line of JSON for each photo that could not be done; empty where none."""

_MODEL_PARTS = (".json", ".safetensors", ".bin", ".xml")
"""Files beside a model's, under its name, that belong to it."""


# -- photos --------------------------------------------------------------------------------------


class ClusterWork:
    """Segments photos over a cluster and writes what was asked for, as :class:`Work` does here.

    Photos whose files are all there are left alone, if the same model and settings made them.

    Args:
        jobs: every photo with its files.
        cluster: see :func:`deeplab.integrations.ray_workers.connected`.
        output: the folder of all files; every machine of the cluster sees it.
        model: its name or path.
        told: what :class:`deeplab.Segmenter` takes.
        settings: what :class:`Work` takes.
        kinds: what is written of each photo.
        overwrite: do them all, whatever is there.
        memory: bytes for each worker; None shares each machine's among its processors.
        limit: workers at most.

    Attributes:
        due: the photos that are to be done.

    Raises:
        OutputError: nobody knows what made the files that are there, or it is not what makes those
            to come.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        cluster: str,
        output: Place,
        model: str,
        told: Mapping[str, Any],
        settings: Mapping[str, Any],
        kinds: Sequence[str],
        overwrite: bool,
        memory: int | None,
        limit: int | None,
    ) -> None:
        jobs = [_in_full(job) for job in jobs]
        large = frozenset(_absolute(photo) for photo in settings["large"])
        self._cluster, self._output, self._limit = cluster, _absolute(output), limit
        of_model = fingerprint(model)
        self._made_by = _describe(kinds, of_model, {**told, **settings, "large": sorted(large)})
        there = set(which_exist(self._output, [f for job in jobs for f in job.files.values()]))
        self._token, self._replaces = _begin(
            self._output, self._made_by, overwrite=overwrite, there=bool(there)
        )
        self.due = [job for job in jobs if overwrite or not there.issuperset(job.files.values())]
        if len(self.due) < len(jobs):
            done = len(jobs) - len(self.due)
            complain(f"note: {done} of {len(jobs)} photos are done already.")
        self._gpu = told["device"] not in (None, "cpu")
        self._cpus = told["threads"] or 1
        afar = any(find_address(job.photo) or find_address(self._output) for job in self.due)
        self._arguments = {
            "model": _find_model(model),
            "of_model": of_model,
            "told": {**told, "threads": self._cpus, "streams": 1},
            "settings": {**settings, "large": large},
            "output": self._output,
            "token": self._token,
            "memory": memory,
            "at_once": 2 if afar else 1,  # one reads or sends while the other computes
        }

    def run(self) -> Iterator[tuple[Job, Outcome]]:
        """Give back what became of each photo that is due, as it is done.

        Raises:
            InputError: there is no such cluster, or a machine of it does not see the same files.
            DeepLabError: what a worker raised; a file that it cannot write, say.
        """
        failed: list[dict[str, str]] = []
        try:
            for job, outcome in self._spread() if self.due else ():
                if isinstance(outcome, DeepLabError):
                    failed.append({"photo": str(job.photo), "error": str(outcome)})
                yield job, outcome
            if self._replaces:  # every file is new by now
                _write_record(self._output, self._made_by, token=self._token, unfinished=False)
        finally:
            with replacing(self._output / FAILED) as partial:
                text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in failed)
                partial.write_text(text, "utf-8", errors="replace")

    def _spread(self) -> Iterator[tuple[Job, Outcome]]:
        from deeplab.integrations.ray_workers import Lost, Needs, connected, has_gpus, spread

        with connected(self._cluster):
            needs = Needs(cpus=self._cpus, gpus=float(self._gpu and has_gpus()))
            for job, outcome in spread(
                self.due, open_photos, self._arguments, needs=needs, limit=self._limit
            ):
                if isinstance(outcome, Lost):
                    yield job, ImageError(f"{job.photo}: {outcome.reason}.")
                else:
                    yield job, outcome


def open_photos(
    *,
    model: str,
    of_model: str,
    told: Mapping[str, Any],
    settings: Mapping[str, Any],
    output: Place,
    token: str,
    memory: int | None,
    at_once: int,
) -> Callable[[Sequence[Job]], Sequence[Outcome]]:
    """Open the model in a worker, and return what does some photos.

    Raises:
        InputError: this machine does not see the same model, or not the same folder.
        DeepLabError: the model cannot be opened.
    """
    from deeplab.photo.memory import default_budget, resident_bytes
    from deeplab.segmenter import Segmenter, count_cores

    record = _read_record(output)
    if record is None or record["token"] != token:
        raise InputError(
            f"output: the folder {output} is not the one here that it is where the command runs; "
            "write into a folder that all machines of the cluster share, or to an address (s3://…)."
        )
    _check_model(model, of_model)
    before = resident_bytes()
    work = Work(
        Segmenter(model, **told),
        workers=at_once,
        budget=memory or default_budget() // count_cores(),
        before=before,
        overwrite=True,  # a worker that died may have written some of these
        **settings,
    )

    def do(jobs: Sequence[Job]) -> Sequence[Outcome]:
        return [outcome for _, outcome in work.run(jobs)]

    return do


def _in_full(job: Job) -> Job:
    """Return a job whose paths mean the same in every folder."""
    files = {kind: _absolute(file) for kind, file in job.files.items()}
    return Job(_absolute(job.photo), files, job.base)


def _find_model(model: str) -> str:
    """Return how a model is called on every machine."""
    return os.path.abspath(model) if os.path.lexists(model) else model


def _absolute(path: Place) -> Place:
    return find_address(path) or Path(path).absolute()


def fingerprint(model: str) -> str:
    """Return a hash of the files of a model."""
    from deeplab import zoo

    path = zoo.locate_file(model).path
    parts = {path, *(path.with_suffix(suffix) for suffix in _MODEL_PARTS)}
    hashes = [part.suffix + hash_file(part) for part in sorted(parts) if part.is_file()]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _check_model(model: str, expected: str) -> None:
    if fingerprint(model) != expected:
        raise InputError(
            f"model: {model} is another file here than where the command runs; put it into a "
            "folder that all machines of the cluster share, or at an address."
        )


def _describe(kinds: Sequence[str], of_model: str, told: Mapping[str, Any]) -> dict[str, str]:
    """Return everything that the bytes of a result depend on, as text."""
    of_run = {"threads", "streams", "summaries"}
    found = {name: str(value) for name, value in sorted(told.items()) if name not in of_run}
    return {"deeplab": __version__, "model": of_model, "save": ",".join(sorted(kinds)), **found}


def _begin(
    output: Place, made_by: Mapping[str, str], *, overwrite: bool, there: bool
) -> tuple[str, bool]:
    """Look at what made the files that are there, and write down what makes those to come.

    Returns:
        The run's token, by which workers know the folder; and whether files are replaced.
    """
    before = _read_record(output)
    if not overwrite and there:
        again = "Add --overwrite to do all photos anew, or choose another folder with -o."
        if before is None:
            raise OutputError(
                f"output: {output} has results already, and nothing says that the same settings "
                f"made them. {again}"
            )
        other = [name for name in made_by if before["made_by"].get(name) != made_by[name]]
        if other:
            raise OutputError(
                f"output: the results in {output} were made with other settings "
                f"({', '.join(other)}). {again}"
            )
        if before["unfinished"]:
            raise OutputError(
                f"output: a run that replaced the files in {output} did not end; which of them are "
                f"new is not known. {again}"
            )
    token, unfinished = secrets.token_hex(8), overwrite and there
    _write_record(output, made_by, token=token, unfinished=unfinished)
    return token, unfinished


def _read_record(output: Place) -> dict[str, Any] | None:
    address = find_address(output / RECORD)
    try:
        data = store.read_bytes(address) if address else Path(output / RECORD).read_bytes()
        record = json.loads(data)
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(record, dict) and {"made_by", "unfinished", "token"} <= record.keys()
    return record if known else None


def _write_record(
    output: Place, made_by: Mapping[str, str], *, token: str, unfinished: bool
) -> None:
    content = {"made_by": dict(made_by), "unfinished": unfinished, "token": token}
    with replacing(output / RECORD) as partial:
        partial.write_text(json.dumps(content, indent=1), "utf-8")


# -- data sets -----------------------------------------------------------------------------------


def evaluate_pictures(
    dataset: Dataset,
    *,
    cluster: str,
    data: Path,
    model: str,
    told: Mapping[str, Any],
    trimap: Sequence[int],
    advance: Callable[[], None],
) -> Evaluation:
    """Score a network over a cluster; the counts of all workers are merged, exactly.

    Args:
        dataset: as it is here.
        cluster: see :func:`deeplab.integrations.ray_workers.connected`.
        data: where every machine of the cluster finds it.
        model: its name or path.
        told: what :func:`deeplab.evaluation.protocol.open_predictor` takes.
        trimap: widths of bands, in pixels.
        advance: called after each picture.

    Raises:
        InputError: there is no such cluster, or its machines see another model or data set.
        DeepLabError: what a worker raised; or a picture kills whoever looks at it.
    """
    from deeplab.integrations.ray_workers import Lost, Needs, connected, has_gpus, spread

    arguments = {
        "model": _find_model(model),
        "of_model": fingerprint(model),
        "data": _absolute(data),
        "split": dataset.split,
        "names": _hash_names(dataset.ids),
        "told": told,
        "trimap": tuple(trimap),
    }
    if len(dataset) == 0:
        raise DataError(f"data: the split '{dataset.split}' is empty; nothing to evaluate.")
    found: Evaluation | None = None
    with connected(cluster):
        gpus = told["file_device"] not in (None, "cpu") and has_gpus()
        needs = Needs(gpus=float(gpus))
        for index, part in spread(range(len(dataset)), open_evaluation, arguments, needs=needs):
            if isinstance(part, Lost):
                raise DeepLabError(f"data: {dataset.ids[index]}: {part.reason}.")
            if part is not None:  # what comes from Ray cannot be written to
                found = copy.deepcopy(part) if found is None else found.merge(part)
            advance()
    assert found is not None
    return found


def open_evaluation(
    *,
    model: str,
    of_model: str,
    data: Place,
    split: str,
    names: str,
    told: Mapping[str, Any],
    trimap: Sequence[int],
) -> Callable[[Sequence[int]], Sequence[Evaluation | None]]:
    """Open the model and the data set in a worker, and return what scores some pictures.

    What it returns comes as one part for all of them, with the first.

    Raises:
        InputError: this machine does not see the same model, or not the same data set.
        DeepLabError: they cannot be opened.
    """
    from deeplab.data import open_dataset
    from deeplab.evaluation.protocol import evaluate, open_predictor

    _check_model(model, of_model)
    dataset = open_dataset(data, split=split)
    if _hash_names(dataset.ids) != names:
        raise InputError(
            f"data: {data} has other pictures here than where the command runs; put it into a "
            "folder that all machines of the cluster share, or at an address."
        )
    predictor = open_predictor(model, **told)

    def do(indices: Sequence[int]) -> Sequence[Evaluation | None]:
        part = evaluate(predictor, dataset, trimap=trimap, indices=indices)
        return [part, *(None,) * (len(indices) - 1)]

    return do


def _hash_names(names: Iterable[str]) -> str:
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
