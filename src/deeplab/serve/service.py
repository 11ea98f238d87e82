"""The way of the photos of one request, whichever API it came by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from deeplab.errors import ImageSizeError, near_matches
from deeplab.photo.band_pictures import read_size
from deeplab.photo.images import InputSpec, Photo
from deeplab.photo.results import Segmentation
from deeplab.segmenter import Segmenter
from deeplab.serve.body import NamedPhoto, Upload, Uploads
from deeplab.serve.edge import note
from deeplab.serve.limits import Limits
from deeplab.serve.metrics import Metrics
from deeplab.serve.refusal import Refusal, refusing
from deeplab.serve.work import Job, Workers

T = TypeVar("T")

_RGB = 3
"""Bytes of a photo's pixel."""


class Service:
    """The models and what works on photos, for all APIs of a server.

    Attributes:
        segmenters: name → what runs it; the first is the default.
        limits: what is refused.
        workers: the threads.
        uploads: reads bodies.
        metrics: counts.
        draining: it is about to end.
        closing: called when it has ended.
    """

    def __init__(
        self, segmenters: Mapping[str, Segmenter], limits: Limits, metrics: Metrics
    ) -> None:
        self.segmenters, self.limits, self.metrics = segmenters, limits, metrics
        self.workers, self.uploads = Workers(limits), Uploads(limits)
        self.draining = False
        self.closing: list[Callable[[], None]] = []

    def find(self, model: str | None) -> tuple[str, Segmenter]:
        """Return the name and the segmenter of a model; the default where none is named.

        Raises:
            Refusal: 404, there is no such model.
        """
        name = next(iter(self.segmenters)) if model is None else model
        if name not in self.segmenters:
            raise Refusal(
                404,
                f"model: there is no '{name[:100]}' here.{near_matches(name, self.segmenters)} "
                f"There is: {', '.join(self.segmenters)}.",
            )
        return name, self.segmenters[name]

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return what is going on now: name → (what it is, value)."""
        return {
            "deeplab_photos_pending": ("Waiting or at work.", float(self.workers.pending)),
            "deeplab_uploads_held_bytes": ("Of photos in memory.", float(self.uploads.held)),
        }

    async def check(
        self, photos: Sequence[NamedPhoto], *, spec: InputSpec | None = None
    ) -> list[int]:
        """Return how many pixels photos have, by their headers, before they wait for anything.

        Args:
            photos: of one request.
            spec: of the network that they are for; None, where they are for none.

        Raises:
            Refusal: one is too large (413), or is no picture (415, 422).
        """
        return await asyncio.to_thread(lambda: [self._measure(photo, spec) for photo in photos])

    async def check_any(self, photos: Sequence[NamedPhoto], *, spec: InputSpec) -> None:
        """Find out whether one of the photos can be read, as far as headers tell.

        Args:
            photos: of one request.
            spec: of the network that they are for.

        Raises:
            Refusal: of the first, where all are too large (413), or no pictures (415, 422).
        """
        refusals: list[Refusal] = []
        for photo in photos:
            try:
                await self.check([photo], spec=spec)
                return
            except Refusal as refusal:
                refusals.append(refusal)
        raise refusals[0]

    async def segment(
        self,
        request: Request,
        upload: Upload,
        photos: Sequence[NamedPhoto],
        *,
        model: str,
        make: Callable[[Segmentation, NamedPhoto], T],
        room_for: Callable[[int], int] = lambda pixels: pixels,
        refused: Callable[[Refusal, NamedPhoto], T] | None = None,
    ) -> tuple[list[T], dict[str, float]]:
        """Segment photos one after the other, as soon as a thread is free.

        Args:
            request: ends the work when its sender leaves.
            upload: released when the work is over, however it ends.
            photos: checked before.
            model: a name that is there.
            make: of each result, in the thread.
            room_for: pixels of a photo → how many pixels' memory it takes.
            refused: what stands for a photo that cannot be read; None refuses them all.

        Returns:
            What ``make`` or ``refused`` returned, and the milliseconds of all photos together by
            stage.

        Raises:
            Refusal: the queue is full or the time is over (503); a photo is damaged (422).
            ClientDisconnect: nobody waits for the result any more.
        """
        segmenter = self.segmenters[model]
        timings: dict[str, float] = {}
        arrived = time.perf_counter()

        def work(job: Job) -> list[T]:
            made: list[T] = []
            self.metrics.count_wait(model, time.perf_counter() - arrived)
            for photo in photos:
                start = time.perf_counter()
                try:
                    with refusing(photo.title, max_pixels=self.limits.max_pixels):
                        room = room_for(self._measure(photo, segmenter.spec))
                        with job.holding(min(room, self.limits.max_pixels_at_work)):
                            result = segmenter(photo.data)
                            made.append(make(result, photo))
                except Refusal as refusal:
                    if refused is None:
                        raise
                    made.append(refused(refusal, photo))
                    continue
                for stage, ms in result.timings.items():
                    timings[stage] = timings.get(stage, 0.0) + ms
                seconds = time.perf_counter() - start
                self.metrics.count_photo(model, result.timings, seconds=seconds)
            return made

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        note(request.scope, model=model, photos=len(photos))
        done = await self.workers.run(work, gone=gone, after=upload.release)
        return done, timings

    def _measure(self, photo: NamedPhoto, spec: InputSpec | None) -> int:
        """Return a photo's pixels by its header; of more channels, as many as take their room."""
        most = self.limits.max_pixels
        with refusing(photo.title, max_pixels=most):
            if spec is None or spec.bands is None:
                read = Photo(photo.data, max_pixels=most)
                height, width, bytes_each = read.height, read.width, _RGB
            else:
                height, width = _size_of(photo.data)
                bytes_each = spec.channels * np.dtype(spec.bands.kind).itemsize
            if height * width > most:
                raise ImageSizeError
            return height * width * max(1, -(-bytes_each // _RGB))


def _size_of(data: bytes | npt.NDArray[Any]) -> tuple[int, int]:
    return read_size(data, "the bytes") if isinstance(data, bytes) else data.shape[:2]
