"""Other places that keep the numbers of a training: Weights & Biases, MLflow."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from deeplab.errors import InputError
from deeplab.files import replacing

_PACKAGES = {"wandb": ("wandb", "wandb"), "mlflow": ("mlflow", "mlflow")}
_NOTES = "trackers.json"


class Tracker(Protocol):
    """Who keeps numbers."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of a step."""

    def close(self) -> None:
        """End, for now: the same training may go on."""


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        InputError: says how to get one.
    """
    for name in names:
        package, extra = _PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(f"run.track: {name} is not installed: pip install 'deeplab[{extra}]'.")


def open_trackers(
    names: tuple[str, ...], folder: Path, *, name: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Open trackers for the training in ``folder``, or those that it had before.

    Without ``WANDB_MODE`` nothing leaves the machine: ``wandb sync`` sends what lies in the folder.
    Without ``MLFLOW_TRACKING_URI`` MLflow's files lie in ``folder/mlruns``.
    """
    path = folder / _NOTES
    notes: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    makers: dict[str, Callable[..., tuple[Tracker, str]]] = {"wandb": _wandb, "mlflow": _mlflow}
    found = []
    for one in names:
        tracker, notes[one] = makers[one](folder, name, settings, notes.get(one))
        found.append(tracker)
    if found:
        with replacing(path) as partial:
            partial.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    return found


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run

    def add(self, step: int, values: Mapping[str, float]) -> None:
        # Its own step may not go back, which a training that goes on does.
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


def _wandb(
    folder: Path, name: str, settings: Mapping[str, Any], known: str | None
) -> tuple[Tracker, str]:
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    if mode == "offline":  # it would send reports of its own errors all the same
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "deeplab"),
        name=name,
        dir=str(folder),
        config=dict(settings),
        mode=mode,
        id=known,
        resume="allow",
        settings=wandb.Settings(silent=True),
    )
    run.define_metric("*", step_metric="step")
    return _Wandb(run), str(run.id)


class _Mlflow:
    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name.replace(":", "_"), value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _mlflow(
    folder: Path, name: str, settings: Mapping[str, Any], known: str | None
) -> tuple[Tracker, str]:
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # asked for since version 3
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    place = os.environ.get("MLFLOW_TRACKING_URI", (folder / "mlruns").resolve().as_uri())
    client = MlflowClient(tracking_uri=place)
    if known is None:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "deeplab")
        experiment = client.get_experiment_by_name(title)
        number = client.create_experiment(title) if experiment is None else experiment.experiment_id
        known = client.create_run(number, run_name=name).info.run_id
        for table, values in settings.items():
            parts = values.items() if isinstance(values, Mapping) else [("", values)]
            for key, value in parts:
                client.log_param(known, f"{table}.{key}".strip("."), str(value)[:500])
    else:
        client.update_run(known, status="RUNNING")
    return _Mlflow(client, known), known
