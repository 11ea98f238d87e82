"""Many photos at once: each is segmented and written by one thread, as memory allows."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from deeplab.cli.console import complain
from deeplab.cli.outputs import Job, Writer, name_photo, summarise
from deeplab.errors import DeepLabError, ImageError
from deeplab.photo import memory
from deeplab.photo.band_pictures import open_photo
from deeplab.photo.images import fetch
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.remote.address import Place

if TYPE_CHECKING:
    from deeplab.labels import LabelSet
    from deeplab.photo.draw import LegendEntry
    from deeplab.photo.results import Segmentation
    from deeplab.segmenter import Segmenter
    from deeplab.tiles import Tiles

_NETWORKS_SHARE = 0.25
"""Of the budget that networks beyond the first may take; the rest is for photos."""


@dataclass(frozen=True)
class Done:
    """What is told of a photo when its files are written; the mask is gone by then.

    Attributes:
        job: with the files as they were written.
        size: (height, width) of the photo.
        entries: its classes, as the legend has them.
        summary: the same for JSON, where it was asked for.
        timings: milliseconds by stage.
        labels: of its mask.
        encoded: its annotation, by the tool whose data set it goes into.
    """

    job: Job
    size: tuple[int, int]
    entries: Sequence[LegendEntry]
    summary: dict[str, Any]
    timings: dict[str, float]
    labels: LabelSet | None = None
    encoded: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


Outcome: TypeAlias = "Done | DeepLabError"

Encoder: TypeAlias = "Callable[[Segmentation, str], bytes]"
"""Turns a result, and its photo's name in a data set, into a tool's annotation."""


class Work:
    """Segments photos and writes what was asked for.

    Args:
        segmenter: with as many streams as ``workers``.
        workers: photos at the same time, at most.
        budget: bytes that they may take together, networks included.
        before: bytes that this process took before the segmenter was opened.
        only: classes to keep; None keeps all.
        crf: refine the edges.
        overwrite: files that exist may be replaced.
        summaries: tell everything, for JSON; it takes a while.
        unknown: pixels of which the network is less sure become unknown; None leaves them.
        windows: look at photos in windows, as :meth:`deeplab.Segmenter.tiles` does with these
            arguments; None shows them whole.
        large: the photos that are read by region.
        encoders: of data sets that the photos go into, by tool.

    Attributes:
        progress: called with "windows", those that are done and all of them, of each photo.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        workers: int,
        budget: int,
        before: int | None,
        only: Sequence[str] | None,
        crf: bool,
        overwrite: bool,
        summaries: bool,
        windows: Mapping[str, Any] | None = None,
        large: Container[Path] = (),
        unknown: float | None = None,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        self._segmenter, self._workers, self._before = segmenter, workers, before
        self._budget = memory.Budget(budget)
        self._only, self._crf, self._unknown = only, crf, unknown
        self._overwrite, self._summaries = overwrite, summaries
        self._windows, self._large = windows, large
        self._encoders = encoders or {}
        self.progress: Callable[[str, int, int], None] | None = None
        self._refining = threading.Lock()  # numba's threads do not like company

    def run(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Outcome], None, None]:
        """Give back what became of each photo, in order. A bad photo does not end the run.

        Raises:
            OutputError: a file cannot be written; the disk is full, say.
        """
        yield jobs[0], self._do(jobs[0])
        workers = self._fit_networks(min(self._workers, max(1, len(jobs) - 1)))
        waiting: deque[tuple[Job, Future[Outcome]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="deeplab") as pool:
            try:
                for job in jobs[1:]:
                    waiting.append((job, pool.submit(self._do, job)))
                    if len(waiting) > 2 * workers:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                for _, future in waiting:
                    future.cancel()

    def _fit_networks(self, wanted: int) -> int:
        """Return how many networks there is memory for, and leave the rest to the photos.

        What one takes shows when it has been at work.
        """
        now = memory.resident_bytes()
        if self._before is None or now is None or now <= self._before:
            return wanted
        each, size = now - self._before, self._budget.size
        count = min(wanted, 1 + int(_NETWORKS_SHARE * size / each))
        self._budget = memory.Budget(size, taken=count * each)
        return count

    def _do(self, job: Job) -> Outcome:
        try:
            if isinstance(job.photo, Path) and job.photo in self._large:
                return self._do_large(job, job.photo)
            photo = job.photo if isinstance(job.photo, Path) else fetch(job.photo)
            with self._budget.holding(self._needed(job, photo), name=job.photo):
                return self._finish(job, self._segment(photo, name=str(job.photo)))
        except MemoryError:
            return ImageError(f"{job.photo}: there is not enough memory for this photo.")
        except ImageError as error:
            return error
        except OSError as error:
            if isinstance(error, DeepLabError):  # the results cannot be written
                raise
            return ImageError(f"{job.photo}: cannot be read: {error.strerror or error}.")

    def _needed(self, job: Job, photo: Path | bytes) -> int:
        """Return how much memory a photo takes at most."""
        classes = len(self._only or self._segmenter.labels)
        needed = memory.estimate(photo, kinds=tuple(job.files), classes=classes)
        if self._crf:
            needed = max(needed, memory.estimate(photo, classes=0) * memory.CRF // 8)
        return needed

    def _open_tiles(self, photo: Path | bytes, *, name: str, share: int | None = None) -> Tiles:
        assert self._windows is not None
        tiles = self._segmenter.tiles(photo, memory=share, **self._windows)
        for note in tiles.picture.notes:
            complain(f"note: {name}: {note}.")
        return tiles

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress("windows", done, total)

    def _do_large(self, job: Job, photo: Path) -> Done:
        """Segment a picture that is read by region; its mask is never there as a whole."""
        start = time.perf_counter()
        if self._crf:
            raise ImageError(f"{job.photo}: is read by region; --crf needs the whole at once.")
        tiles = self._open_tiles(photo, name=str(photo), share=self._budget.size // self._workers)
        with self._budget.holding(tiles.memory, name=job.photo):
            found = tiles.save(
                mask=_local(job.files.get("mask")),
                overlay=_local(job.files.get("overlay")),
                only=self._only,
                progress=self._tell,
            )
        timings = {"network": 1e3 * (time.perf_counter() - start)}
        return Done(
            job=job,
            size=found.size,
            entries=found.entries,
            summary={**found.to_dict(photo), "timings_ms": timings} if self._summaries else {},
            timings=timings,
        )

    def _segment(self, photo: Path | bytes, *, name: str) -> Segmentation:
        if self._windows is None:
            result = self._segmenter(open_photo(photo, self._segmenter.spec, name=name))
        else:
            result = self._open_tiles(photo, name=name).segmentation(progress=self._tell)
        if self._crf:
            from deeplab.crf import refine_segmentation

            with self._refining:
                result = refine_segmentation(result)
        return result if self._unknown is None else result.with_unknown(self._unknown)

    def _finish(self, job: Job, result: Segmentation) -> Done:
        from deeplab.photo.draw import keep_only, legend_entries

        start = time.perf_counter()
        if self._only:
            mask, labels = keep_only(result.mask, self._only, labels=result.labels)
            result = dataclasses.replace(result, mask=mask, labels=labels)
        files = Writer(result, only=self._only, overwrite=self._overwrite).write(job.files)
        name = name_photo(job)
        encoded = {tool: encode(result, name) for tool, encode in self._encoders.items()}
        drawn = 1e3 * (time.perf_counter() - start)
        result = dataclasses.replace(result, timings={**result.timings, "draw": drawn})
        return Done(
            job=Job(job.photo, files, job.base),
            size=(result.mask.shape[0], result.mask.shape[1]),
            entries=result.legend
            if isinstance(result, OverlappingSegmentation)
            else legend_entries(result.mask, result.labels),
            summary=summarise(result) if self._summaries else {},
            timings=dict(result.timings),
            labels=result.labels,
            encoded=encoded,
        )


def _local(file: Place | None) -> Path | None:
    return None if file is None else Path(file)
