"""Label Studio's projects: their classes, what was corrected, and what was learnt of it."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.data.fields import UnreadableError
from deeplab.data.label_studio import paint_results, photo_address
from deeplab.data.label_studio_writer import LabelConfig
from deeplab.errors import DeepLabError, MissingExtraError
from deeplab.photo.images import Photo
from deeplab.segmenter import Segmenter
from deeplab.serve.label_studio_photos import LabelStudio
from deeplab.serve.refusal import Refusal

if TYPE_CHECKING:
    from deeplab.training.corrections import Correction, Learner

_MOST_CORRECTIONS = 160
"""Of a project; the oldest are forgotten. More hardly change a fit, see ``training/fit.py``."""

_log = logging.getLogger("deeplab.serve")


@dataclass
class _Labelled:
    """A task with its annotation: the address of its photo, and the results."""

    address: str
    results: list[dict[str, Any]]


@dataclass
class Project:
    """One project.

    Attributes:
        config: its classes and tags.
        segmenter: what predicts.
        version: of what predicts; another one after each fit.
        said: how the last fit went, in words.
    """

    config: LabelConfig
    segmenter: Segmenter
    version: str
    said: str = "nothing has been learnt yet"
    labelled: dict[str, _Labelled] = field(default_factory=dict)
    learner: Learner | None = None
    learnt: str = ""


def find_photo(task: Mapping[str, Any], config: LabelConfig) -> str:
    """Return the address of a task's photo.

    Raises:
        Refusal: 422, there is none.
    """
    data = task.get("data")
    try:
        return photo_address(data if isinstance(data, dict) else {}, config.key)
    except UnreadableError as error:
        raise Refusal(422, f"task {task.get('id')} {error}.") from None


class Projects:
    """All projects, and the one thread that learns.

    Args:
        model: name of the model at the start.
        segmenter: of it.
        studio: where photos and labelled tasks are.
    """

    def __init__(self, model: str, segmenter: Segmenter, studio: LabelStudio) -> None:
        self._model, self._segmenter, self._studio = model, segmenter, studio
        self._projects: dict[str, Project] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="deeplab-learn")
        self._waiting: set[str] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="deeplab-photos-")

    def find(self, key: str, config: LabelConfig | None) -> Project | None:
        """Return a project; with a configuration, it is made, or takes the new one.

        Where classes have changed, corrections are kept and learnt anew.
        """
        with self._lock:
            project = self._projects.get(key)
            if config is None or (project is not None and project.config == config):
                return project
            made = Project(config, self._segmenter, self._model)
            if project is not None:
                made.labelled = project.labelled
                if config.classes == project.config.classes:
                    made.segmenter, made.version = project.segmenter, project.version
                    made.learner, made.learnt, made.said = (
                        project.learner, project.learnt, project.said
                    )  # fmt: skip
                elif project.learner is not None:
                    project.learner.close()
            self._projects[key] = made
            return made

    def take(
        self, key: str, annotations: list[dict[str, Any]], tasks: list[dict[str, Any]]
    ) -> None:
        """Keep what somebody drew on the photos of tasks; of several annotations, the last.

        Raises:
            Refusal: 422, a task names no photo.
        """
        project = self._projects[key]
        by_id = {task.get("id"): task for task in tasks}
        for annotation in annotations:
            task = by_id.get(annotation.get("task")) or (tasks[0] if len(tasks) == 1 else None)
            results = annotation.get("result")
            if task is None or annotation.get("was_cancelled") or not isinstance(results, list):
                continue
            address = find_photo(task, project.config)
            drawn = [result for result in results if isinstance(result, dict)]
            with self._lock:
                name = str(task.get("id"))
                project.labelled.pop(name, None)
                project.labelled[name] = _Labelled(address, drawn)
                while len(project.labelled) > _MOST_CORRECTIONS:
                    del project.labelled[next(iter(project.labelled))]

    def forget(self, key: str, names: list[str] | None = None) -> None:
        """Forget corrections of tasks; all of them where none are named."""
        with self._lock:
            project = self._projects.get(key)
            if project is not None:
                for name in [*project.labelled] if names is None else names:
                    project.labelled.pop(name, None)

    def learn(self, key: str, *, export: bool = False) -> None:
        """Fit a project's last layer, soon; what comes until then is learnt with it.

        Args:
            key: of the project.
            export: first take all that is labelled from Label Studio itself.
        """
        with self._lock:
            if key in self._waiting and not export:
                return
            self._waiting.add(key)
        self._pool.submit(self._learn, key, export)

    def say(self) -> dict[str, str]:
        """Return what was learnt of each project, in words."""
        with self._lock:
            return {key: project.said for key, project in self._projects.items()}

    def close(self) -> None:
        """End the thread, and remove photos and networks from the disk."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for project in self._projects.values():
            if project.learner is not None:
                project.learner.close()
        self._folder.cleanup()

    def _learn(self, key: str, export: bool) -> None:
        project = self._projects[key]
        try:
            if export:
                self._export(key)
            with self._lock:
                self._waiting.discard(key)
                labelled = dict(project.labelled)
            self._fit(project, labelled)
        except Refusal as refusal:
            project.said = f"not learnt: {refusal.words}"
        except DeepLabError as error:
            project.said = f"not learnt: {error}"
        except Exception:
            project.said = "not learnt: an error of the server's own; its log has it"
            _log.exception("learning from project %s", key)
        _log.warning("project %s: %s", key, project.said)

    def _export(self, key: str) -> None:
        if not key.isdigit():
            raise Refusal(422, f"project: got the id '{key}', expected a whole number.")
        tasks = self._studio.export(int(key))
        self.forget(key)
        for task in tasks:
            annotations = task.get("annotations")
            self.take(key, annotations if isinstance(annotations, list) else [], [task])

    def _fit(self, project: Project, labelled: Mapping[str, _Labelled]) -> None:
        try:
            from deeplab.training.corrections import Learner
        except ImportError:
            raise MissingExtraError(
                "Learning from corrections", package="torch", extra="train"
            ) from None
        corrections, left_out = {}, []
        for name, one in labelled.items():
            try:
                digest, correction = self._paint(name, one, project.config)
            except (Refusal, DeepLabError) as error:
                left_out.append(getattr(error, "words", str(error)))
                continue
            corrections[digest] = correction
        for words in left_out:
            _log.warning("left out: %s", words)
        marks = json.dumps([project.config.classes, sorted(corrections)]).encode()
        state = hashlib.sha256(marks).hexdigest()[:8]
        if state == project.learnt:
            return
        if not corrections:
            project.segmenter, project.version = self._segmenter, self._model
            project.learnt, project.said = "", "nothing has been labelled that can be learnt"
            return
        if project.learner is None:
            known = project.config.match(self._segmenter.labels)
            project.learner = Learner(self._segmenter.path, project.config.labels, known=known)
        segmenter, report = project.learner.learn(corrections)
        project.segmenter = segmenter
        project.version = f"{self._model}+{len(corrections)}-{state}"
        project.learnt, project.said = state, str(report)
        if left_out:
            project.said += f" Left out: {len(left_out)} (the first: {left_out[0]})"

    def _paint(self, name: str, one: _Labelled, config: LabelConfig) -> tuple[str, Correction]:
        """Return a correction, and a name for its photo and label."""
        from deeplab.training.corrections import Correction

        path = Path(self._folder.name) / hashlib.sha256(one.address.encode()).hexdigest()
        if not path.is_file():
            path.write_bytes(self._studio.fetch(one.address, called=f"task {name}"))
        size = Photo(path).size
        painted = paint_results(one.results, size, config.ids, 0)
        if painted.lost:
            raise Refusal(422, f"task {name}: {painted.faults[0]}.")
        digest = hashlib.sha256(path.name.encode() + painted.label.tobytes()).hexdigest()
        return digest, Correction(path, painted.label)
