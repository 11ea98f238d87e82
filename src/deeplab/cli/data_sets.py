"""``deeplab segment --save coco,…``: what was found in all photos, as one data set per tool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from deeplab.cli.console import check_choices
from deeplab.cli.outputs import Job, name_photo
from deeplab.cli.work import Done, Encoder, Outcome
from deeplab.errors import ImageError, InputError
from deeplab.photo.images import fetch
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.remote.address import Place

if TYPE_CHECKING:  # most runs make no data set, and these take a while
    from deeplab.data.writing import DataSet, Shapes, Style, Writer
    from deeplab.labels import LabelSet
    from deeplab.photo.results import Segmentation


def plan_data_sets(
    folder: Place | None, tools: Sequence[str], *, shapes: str, tolerance: float
) -> DataSets:
    """Return the data sets to make in a folder; none where no tools are named.

    Raises:
        InputError: there are no such shapes, they are for nothing, or the folder is elsewhere.
    """
    if not tools:
        if shapes != "masks":
            raise InputError(f"--shapes: {shapes}: is for data sets; name one with --save coco.")
        return DataSets(Path(), (), None)
    from deeplab.data.writing import Shapes, Style

    check_choices("--shapes", [shapes], get_args(Shapes))
    if not isinstance(folder, Path):
        raise InputError(
            f"output: data sets ({', '.join(tools)}) are written into a folder of this machine, "
            f"not {folder}; copy them there afterwards."
        )
    return DataSets(folder, tools, Style(shapes=cast("Shapes", shapes), tolerance=tolerance))


class DataSets(contextlib.ExitStack):
    """The data sets of one run; leaving the block without :meth:`finish` leaves nothing of them.

    Args:
        folder: in which each gets a folder of its tool's name.
        tools: names of the tools.
        style: of the objects; None where no tools are named.
    """

    def __init__(self, folder: Path, tools: Sequence[str], style: Style | None) -> None:
        super().__init__()
        self._folder, self._tools, self._style = folder, tools, style
        self._sets: dict[str, tuple[DataSet, Writer]] = {}
        self._labels: LabelSet | None = None

    def check(self, jobs: Sequence[Job], *, others: int) -> None:
        """Find out before the work whether all of them can be made.

        Args:
            jobs: the photos.
            others: how many videos and pictures that are read by region are among them.

        Raises:
            InputError: there are others, or two photos would have one name.
            OutputError: a data set is there already.
        """
        if not self._tools:
            return
        if others:
            raise InputError(
                f"--save: {', '.join(self._tools)}: of videos and of pictures that are read by "
                f"region no data set is made, and there are {others}; give them in a run of their "
                "own."
            )
        names: dict[str, Job] = {}
        for job in jobs:
            other = names.setdefault(job.base.as_posix(), job)
            if other is not job:
                raise InputError(
                    f"photos: {other.photo} and {job.photo} would have one name in the data set; "
                    "give them in two runs, or the folder above both."
                )
        from deeplab.data.writing import check_free

        for tool in self._tools:
            check_free(self._folder / tool)

    def __enter__(self) -> DataSets:
        super().__enter__()
        if self._style is None:
            return self
        from deeplab.data.writers import open_writer
        from deeplab.data.writing import DataSet

        for tool in self._tools:
            made = self.enter_context(DataSet(self._folder / tool))
            self._sets[tool] = made, open_writer(tool, made.building, self._style)
        return self

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """What turns a result into a tool's bytes; for any thread."""
        return {tool: _encoder(writer) for tool, (_, writer) in self._sets.items()}

    def keep(self, done: Iterable[tuple[Job, Outcome]]) -> Iterator[tuple[Job, Outcome]]:
        """Pass on what became of photos, and add those that were done.

        Raises:
            OutputError: a data set cannot be written.
        """
        for job, outcome in done:
            if isinstance(outcome, Done) and self._sets:
                try:
                    self._add(job, outcome)
                except ImageError as error:  # it came from elsewhere, and comes no more
                    yield job, error
                    continue
            yield job, outcome

    def _add(self, job: Job, done: Done) -> None:
        photo = job.photo if isinstance(job.photo, Path) else fetch(job.photo)
        self._labels = done.labels
        for tool, (made, writer) in self._sets.items():
            name = name_photo(job)
            made.add(writer, name, photo, size=done.size, encoded=done.encoded[tool])

    def finish(self) -> list[str]:
        """Give the data sets their names, and return what is to be said of them."""
        said = []
        for made, writer in self._sets.values():
            if self._labels is None:  # no photo could be read
                continue
            made.finish(writer, self._labels)
            said.append(f"written to {made.folder}: {made.count} photos with annotations")
        return said


def _encoder(writer: Writer) -> Encoder:
    def encode(result: Segmentation, name: str) -> bytes:
        masks = result.mask
        if isinstance(result, OverlappingSegmentation):
            masks = result.masks.view(np.uint8)
        return writer.encode(masks, result.labels, name)

    return encode
