"""Videos in ``deeplab segment``: which are meant, the progress, and what is told of each."""

from __future__ import annotations

import importlib.util
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deeplab.cli.console import complain, stderr, stdout, swatch
from deeplab.cli.outputs import CLIP_SUFFIXES, SUFFIXES, Job
from deeplab.cli.photos import Found
from deeplab.errors import DeepLabError, InputError
from deeplab.photo.find import is_video
from deeplab.photo.formats import readable_suffixes
from deeplab.remote.address import find_address
from deeplab.video.library import import_av

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

    from deeplab.labels import LabelSet
    from deeplab.segmenter import Segmenter
    from deeplab.video.play import SegmentedFrame, Video

MODEL = "voc-fast"
"""For videos, where nobody says."""

_LEAST_SHARE = 0.0005
"""Of all pixels; classes with less are not told in the line of a video."""

_PREVIEW_COLUMNS = 80
_PREVIEW_SECONDS = 0.2


@dataclass(frozen=True)
class Clips:
    """What of the sources is moving.

    Attributes:
        paths: of the files, and what stands for the live sources.
        live: the live sources by what stands for them: "0" for "camera-0".
    """

    paths: frozenset[Path] = frozenset()
    live: dict[Path, str] = field(default_factory=dict)


def is_installed() -> bool:
    """Return whether videos can be read; where not, those in folders are passed over."""
    return importlib.util.find_spec("av") is not None


def split_live(sources: Sequence[str]) -> tuple[list[str], dict[Path, str]]:
    """Return the sources that are files, and the live ones by the name their results get."""
    from deeplab.video.live import is_live

    live = {}
    moving = [source for source in sources if is_live(source) and not _is_photo(source)]
    for source in moving:
        number = source.removeprefix("/dev/video")
        name = f"camera-{number}" if number.isdecimal() else _name_address(source)
        live[Path(name)] = source
    return [source for source in sources if source not in moving], live


def _is_photo(source: str) -> bool:
    """Return whether an address ends like a picture; FFmpeg would take half of one for a frame."""
    address = find_address(source)
    if address is None:
        return False
    return PurePosixPath(address.file_name).suffix.lower() in readable_suffixes()


def find_clips(found: Found, live: dict[Path, str]) -> Clips:
    """Return which of the photos and videos that were found are videos.

    Raises:
        MissingExtraError: there are some, and PyAV is not installed.
    """
    named = (path for path, _ in found if isinstance(path, Path) and is_video(path))
    paths = frozenset((*named, *live))
    if paths:
        import_av()
    return Clips(paths, live)


def check_kinds(kinds: Sequence[str], *, photos: int, clips: int) -> None:
    """Refuse what is not written of photos, or of videos, where there are some.

    Raises:
        InputError: the first kind that does not fit.
    """
    for count, ends, what in ((photos, SUFFIXES, "photos"), (clips, CLIP_SUFFIXES, "videos")):
        for kind in kinds if count else ():
            if kind not in ends:
                raise InputError(
                    f"--save: '{kind}' is not written of {what}, and there are {count}; give them "
                    f"in a run of their own. Of {what}: {', '.join(ends)}."
                )


@dataclass(frozen=True)
class ClipDone:
    """What became of one video.

    Attributes:
        job: with the files as they were written.
        summary: as JSON has it.
        notes: what was assumed, passed over or could not be kept.
        stopped: Ctrl-C ended it.
    """

    job: Job
    summary: dict[str, Any]
    notes: list[str]
    stopped: bool


@dataclass(kw_only=True)
class ClipWork:
    """Segments videos, one after another, and writes what was asked for.

    Attributes:
        segmenter: with the network for videos.
        live: the live sources, see :class:`Clips`.
        only: classes to keep; None keeps all.
        steady: smooth the masks over time.
        seconds: end each after so much.
        show: draw a preview into the terminal.
        workers: frames at the same time; None takes the cores.
    """

    segmenter: Segmenter
    live: dict[Path, str]
    only: Sequence[str] | None
    steady: bool
    seconds: float | None
    show: bool
    workers: int | None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, ClipDone | DeepLabError]]:
        """Give back what became of each video, in order. A bad one does not end the run.

        Raises:
            OutputError: a file cannot be written; the disk is full, say.
            KeyboardInterrupt: after what the last one gave by then was closed and told.
        """
        from deeplab.errors import ImageError

        for job in jobs:
            try:
                done = self._do(job)
            except ImageError as error:
                yield job, error
                continue
            yield job, done
            if done.stopped:
                raise KeyboardInterrupt

    def _do(self, job: Job) -> ClipDone:
        from deeplab.video.outputs import ClipOutputs

        begin = time.perf_counter()
        shares: dict[str, float] = {}
        end, frames = 0.0, 0
        stopped = False
        path = Path(job.photo)
        source = self.live.get(path, path)
        with self.segmenter.video(
            source,
            steady=self.steady,
            flicker=True,
            workers=self.workers,
            seconds=self.seconds,
        ) as video:
            labels = self.segmenter.labels
            files = {kind: Path(file) for kind, file in job.files.items()}
            outputs = ClipOutputs(files, video=video, labels=labels, only=self.only)
            try:
                with (
                    _signals_end() as asked,
                    outputs,
                    _Watch(video, job.photo.name, self.show) as watch,
                ):
                    for frame, made in video.map(outputs.prepare):
                        outputs.write(frame, made)
                        frames += 1
                        end = frame.time + float(frame.duration * video.info.time_base)
                        for name, share in frame.segmentation.shares.items():
                            shares[name] = shares.get(name, 0.0) + share
                        watch.tell(frame)
                        if asked:  # and what was raised then was lost in somebody's callback
                            raise KeyboardInterrupt
            except KeyboardInterrupt:
                stopped = True
        took = time.perf_counter() - begin
        summary = _summarise(video, shares, frames=frames, seconds=end, took=took)
        notes = [*video.info.notes, *outputs.notes]
        if counted := video.counts.in_words():
            notes.append(counted)
        if video.info.live and video.reader.finished:
            why = f" ({video.reader.lost})" if video.reader.lost else ""
            notes.append(f"the stream ended by itself after {end:.1f} s{why}")
        if stopped:
            written = "its files were closed and play" if job.files and frames else "no file"
            notes.append(f"stopped after {end:.1f} s; {written}")
        kept = job.files if frames else {}
        return ClipDone(Job(job.photo, kept), summary, notes, stopped)


def tell(done: ClipDone, *, labels: LabelSet, quiet: bool = False) -> None:
    """Print what became of one video: one line, and what was assumed or passed over."""
    for note in done.notes:
        complain(f"{done.job.photo.name}: {note}")
    if not quiet:
        stdout().print(_line(done, labels))


def _line(done: ClipDone, labels: LabelSet) -> Any:
    from rich.text import Text

    told = done.summary
    line = Text(
        f"{done.job.photo.name}: {told['frames']} frames, {told['seconds']:.1f} s, "
        f"{told['width']}×{told['height']}, {told['frames_per_second']:.1f} frames/s"
    )
    if told["flicker"] is not None:
        line.append(f", flicker {told['flicker']:.2%}")
    for found in told["classes"]:
        index = labels.names.index(found["name"])
        if index != labels.background and found["share"] >= _LEAST_SHARE:
            line.append(", ").append_text(swatch(labels.colours[index]))
            line.append(f" {found['name']} {found['share']:.1%}")
    return line


def _summarise(
    video: Video, shares: dict[str, float], *, frames: int, seconds: float, took: float
) -> dict[str, Any]:
    return {
        "video": video.info.name,
        "height": video.info.height,
        "width": video.info.width,
        "frames": frames,
        "seconds": round(seconds, 6),
        "frames_per_second": round(frames / took, 3),
        "flicker": video.flicker,
        "damaged_frames": video.counts.broken,
        "missing_frames": video.counts.missing,
        "retimed_frames": video.counts.retimed,
        "dropped_frames": video.counts.dropped,
        "classes": sorted(
            ({"name": name, "share": share / max(1, frames)} for name, share in shares.items()),
            key=lambda found: -float(found["share"]),
        ),
    }


def _name_address(address: str) -> str:
    """Return "cam-example-stream1" for "rtsp://user:word@cam.example/stream1?x": no secrets."""
    rest = address.partition("://")[2].partition("?")[0].rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", rest).strip("-") or "stream"


@contextmanager
def _signals_end() -> Iterator[list[int]]:
    """Let a service manager's "end now" close the files as Ctrl-C does.

    Gives the signals that came. Each raises KeyboardInterrupt where the program just is, which may
    be inside of code that drops exceptions, such as a library's callback: look at the list, too.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def interrupt(number: int, _: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    before = {}
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) != signal.SIG_IGN:  # as a shell has it for jobs in the background
            before[one] = signal.signal(one, interrupt)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watch:
    """The progress bar of one video, with a preview above it where that is wanted."""

    def __init__(self, video: Video, name: str, show: bool) -> None:
        from rich.live import Live

        console = stderr()
        info = video.info
        self._total = info.frames
        if self._total is None and info.seconds and info.rate:
            self._total = round(info.seconds * float(info.rate))
        self._show = show
        self._shown_at = 0.0
        self._progress = _progress()
        self._task = self._progress.add_task(name, total=self._total)
        self._live = (
            Live(self._progress, console=console, transient=True, auto_refresh=False)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> _Watch:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, frame: SegmentedFrame) -> None:
        """Count a frame."""
        self._progress.advance(self._task)
        now = time.perf_counter()
        if self._live is None or now - self._shown_at < _PREVIEW_SECONDS:
            return
        self._shown_at = now
        shown: RenderableType = self._progress
        if self._show:
            from rich.console import Group

            shown = Group(_preview(frame), self._progress)
        self._live.update(shown, refresh=True)


def _progress() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0:.1f} frames/s")

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )


def _preview(frame: SegmentedFrame) -> Any:
    """Return a frame's overlay as coloured half blocks, two pixels to a letter."""
    import numpy as np
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    from deeplab.photo.draw import overlay
    from deeplab.video.flicker import sample

    result = frame.segmentation
    height, width = result.mask.shape
    size = max(2, 2 * round(_PREVIEW_COLUMNS * height / width / 2)), _PREVIEW_COLUMNS
    photo = result.photo.decode(at_least=size).resize((size[1], size[0]))
    drawn = overlay(photo, sample(result.mask, size), labels=result.labels, legend=False)
    pixels = np.asarray(drawn).tolist()
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text
