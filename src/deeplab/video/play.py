"""Frames through a network, in order, while others are decoded, drawn and encoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from deeplab.photo.memory import default_budget
from deeplab.photo.results import Segmentation
from deeplab.video.flicker import FlickerMeter, reduced_size, sample
from deeplab.video.read import Counts, Frame, VideoReader
from deeplab.video.steady import Steadier

_BYTES_PER_PIXEL = 16
"""Of a frame at work: stored, as RGB, its mask, what is drawn and what is encoded."""

_MEASURED = 4
"""One pair of frames in so many is looked at for the flicker score."""

_WAITING_LIVE = 2
"""Frames of a live source that wait; older ones are dropped."""

UInt8 = npt.NDArray[np.uint8]
_T = TypeVar("_T")


class Look(Protocol):
    """A frame with a network's answer, before there is a mask."""

    frame: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32] | None
    softmaxed: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentedFrame:
    """A frame and what is in it.

    Attributes:
        index: 0 for the first.
        pts: its time in units of the video's ``time_base``.
        time: the same in seconds from the video's start.
        duration: until the next, in units of ``time_base``; 0 where nothing says.
        segmentation: as of a photo.
    """

    index: int
    pts: int
    time: float
    duration: int
    segmentation: Segmentation


@dataclass(frozen=True)
class _Done(Generic[_T]):
    """A frame that is done, what was made of it, and it as the flicker meter sees it."""

    frame: SegmentedFrame
    made: _T
    reduced: tuple[UInt8, UInt8] | None


class Video:
    """A video on its way through a network: iterate over it once; close it, or use ``with``.

    Args:
        reader: the video.
        look: runs the network on a frame; called from several threads.
        finish: makes the mask of it, likewise.
        steady: smooth the masks over time.
        flicker: measure how much they flicker.
        workers: frames at work at the same time.
        seconds: end after so much of the video.

    Attributes:
        reader: the video.
        info: what the video says of itself.
    """

    def __init__(
        self,
        reader: VideoReader,
        *,
        look: Callable[[Frame], Look],
        finish: Callable[[Frame, Any], Segmentation],
        steady: bool,
        flicker: bool,
        workers: int,
        seconds: float | None,
    ) -> None:
        self.reader, self.info = reader, reader.info
        self._look, self._finish = look, finish
        self._steadier = Steadier() if steady else None
        self._meter = FlickerMeter(every=_MEASURED) if flicker else None
        pixels = self.info.height * self.info.width
        room = default_budget() // (_BYTES_PER_PIXEL * pixels)
        self._workers = max(1, min(workers, room // 3))
        self._seconds = seconds

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or the camera."""
        self.reader.close()

    @property
    def counts(self) -> Counts:
        """What happened so far while the video was read."""
        return self.reader.counts

    @property
    def flicker(self) -> float | None:
        """The flicker score so far, see :mod:`deeplab.video.flicker`; None where not measured."""
        return self._meter.score if self._meter is not None else None

    def __iter__(self) -> Iterator[SegmentedFrame]:
        """Give every frame in order."""
        return (frame for frame, _ in self.map(lambda frame: None))

    def map(self, function: Callable[[SegmentedFrame], _T]) -> Iterator[tuple[SegmentedFrame, _T]]:
        """Give every frame in order, with what ``function`` made of it in another thread."""

        def finish(frame: Frame, look: Look) -> _Done[_T]:
            segmentation = self._finish(frame, look)
            done = SegmentedFrame(
                index=frame.index,
                pts=frame.pts,
                time=frame.time,
                duration=frame.duration,
                segmentation=segmentation,
            )
            return _Done(done, function(done), self._for_meter(frame, segmentation))

        seen: deque[tuple[Frame, Future[Look]]] = deque()
        done: deque[Future[_Done[_T]]] = deque()
        frames = self._frames()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="deeplab") as pool:
            try:
                more = True
                while more or seen:
                    while more and len(seen) <= self._workers:
                        frame = next(frames, None)
                        if frame is None:
                            more = False
                            break
                        seen.append((frame, pool.submit(self._look, frame)))
                        if self.info.live:
                            break
                    if not seen:
                        break
                    frame, future = seen.popleft()
                    done.append(pool.submit(finish, frame, self._steady(future.result())))
                    while len(done) > (0 if self.info.live else self._workers):
                        yield self._measured(done.popleft().result())
                while done:
                    yield self._measured(done.popleft().result())
            finally:
                for _, waiting in seen:
                    waiting.cancel()
                for finishing in done:
                    finishing.cancel()
                frames.close()

    def _for_meter(self, frame: Frame, result: Segmentation) -> tuple[UInt8, UInt8] | None:
        if self._meter is None or not self._meter.wants(frame.index):
            return None
        size = reduced_size(*result.mask.shape)
        return frame.photo.luma(size), sample(result.mask, size)

    def _measured(self, done: _Done[_T]) -> tuple[SegmentedFrame, _T]:
        if self._meter is not None and done.reduced is not None:
            self._meter.add(done.frame.index, *done.reduced)
        return done.frame, done.made

    def _steady(self, look: Look) -> Look:
        if self._steadier is not None and look.logits is not None:
            look.logits = self._steadier.smooth(look.logits, look.frame, softmaxed=look.softmaxed)
        return look

    def _frames(self) -> Any:
        frames = _latest(self.reader) if self.info.live else iter(self.reader)
        for frame in frames:
            if self._seconds is not None and frame.time >= self._seconds:
                break
            yield frame


def _latest(reader: VideoReader) -> Iterator[Frame]:
    """Give the frames of a live source as they come; those that come too fast are dropped."""
    waiting: deque[Frame | BaseException | None] = deque()
    changed = threading.Condition()
    ended = False

    def read() -> None:
        last: BaseException | None = None
        try:
            for frame in reader:
                with changed:
                    if ended:
                        return
                    if len(waiting) >= _WAITING_LIVE:
                        waiting.popleft()
                        reader.counts.dropped += 1
                    waiting.append(frame)
                    changed.notify()
        except BaseException as error:
            last = error
        with changed:
            waiting.append(last)
            changed.notify()

    thread = threading.Thread(target=read, name="deeplab-reader", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                # With a limit, so that Ctrl-C is heard.
                while not changed.wait_for(lambda: waiting, timeout=0.2):
                    pass
                item = waiting.popleft()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended = True
        thread.join(timeout=2)
