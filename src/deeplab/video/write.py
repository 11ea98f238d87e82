"""Write a video whose frames lie, last and sound as another's: H.264, VP9 with alpha, class ids.

A file is made under a temporary name and takes its own when it is whole, so that nothing that is
cut off looks like a result. Ctrl-C is no damage: what was written by then is closed and kept.
"""

from __future__ import annotations

import errno
from collections import deque
from contextlib import ExitStack, suppress
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError
from deeplab.files import replacing
from deeplab.video.library import import_av, in_words
from deeplab.video.sound import SoundTrack

if TYPE_CHECKING:
    import av

    from deeplab.video.play import SegmentedFrame, Video
    from deeplab.video.read import Frame, VideoReader

UInt8 = npt.NDArray[np.uint8]
Content = Literal["picture", "cutout", "mask"]

_CODECS = {"picture": "libx264", "cutout": "libvpx-vp9", "mask": "ffv1"}
_STORED = {"picture": "yuv420p", "cutout": "yuva420p", "mask": "gray"}
_GIVEN = {"picture": "RGB", "cutout": "RGBA", "mask": "L"}
_SUFFIXES = {
    "picture": (".mp4", ".mov", ".m4v", ".mkv"),
    "cutout": (".webm",),
    "mask": (".mkv",),
}
_OPTIONS = {
    # Without B-frames the last frame of a variable rate stays as long as it should.
    "picture": {"preset": "veryfast", "crf": "20", "bf": "0"},
    # The alternative reference frame knows no alpha.
    "cutout": {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "28", "b": "0",
               "auto-alt-ref": "0"},
    "mask": {"level": "3", "slices": "4", "coder": "1", "context": "1"},
}  # fmt: skip

_LEAST_SLICED = 64
"""Pixels per side; FFV1 does not cut smaller frames into slices."""

_KEEPS_ROTATION = (".mp4", ".mov", ".m4v")
_FULL_RANGE = 2

_FRAME_DURATION = 1 << 8
"""AV_CODEC_FLAG_FRAME_DURATION: of a variable rate, how long the last frame stays is kept."""


class VideoWriter:
    """A video in the making; a context manager.

    What is written lies upright for those who see it: MP4 and MOV keep the source's rotation,
    other files hold upright frames. Frame times are the source's, in its own unit; Matroska and
    WebM round them to milliseconds. Sound is copied packet by packet, and only where the
    container does not take its codec it is encoded anew (AAC, Opus).

    Args:
        path: ``.mp4`` or ``.mov`` for pictures (H.264), ``.webm`` for cut-outs (VP9 with alpha),
            ``.mkv`` for masks (FFV1, lossless; the grey value is the class id).
        like: the video that it is made from, or its reader; open the writer before frames are
            taken from it.
        content: "picture", "cutout" or "mask"; None takes what the suffix stands for.
        comment: kept in the file's metadata.

    Attributes:
        path: of the file.
        frames: written so far.
        notes: what could not be kept, in words.

    Raises:
        InputError: the suffix does not fit.
        OutputError: the file cannot be written; the disk is full, say.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        like: VideoReader | Video,
        content: Content | None = None,
        comment: str | None = None,
    ) -> None:
        self._av = import_av()
        self.path = Path(path)
        self._content = _choose_content(self.path, content)
        self._like: VideoReader = like.reader if hasattr(like, "reader") else like
        self.info = like.info
        self.frames = 0
        self.notes: list[str] = []
        self._closed = False
        self._last_pts: int | None = None
        self._end = Fraction(0)
        self._keeps_rotation = self.path.suffix.lower() in _KEEPS_ROTATION
        self._stack = ExitStack()
        partial = self._stack.enter_context(replacing(self.path))
        try:
            options = {"fflags": "+bitexact"}  # equal runs write equal files
            if self._keeps_rotation:
                options["movflags"] = "+faststart"
            self._container = self._av.open(str(partial), "w", options=options)
            self._stack.push(self._close_container)
            self._stream = self._add_stream()
            if comment:
                self._container.metadata["comment"] = comment
            for name in ("title", "creation_time", "date", "location"):
                if name in self._like.metadata:
                    self._container.metadata[name] = self._like.metadata[name]
            self._sound = self._add_sound()
            self._container.start_encoding()
        except BaseException as error:
            self._leave(self._translated(error))
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close()
        else:
            self.abort()

    def prepare(self, picture: Image.Image | UInt8) -> av.VideoFrame:
        """Return an upright picture as it is encoded; may run in any thread.

        Args:
            picture: RGB for pictures, RGBA for cut-outs, (H, W) uint8 class ids for masks.

        Raises:
            InputError: it has another size or kind.
        """
        array = np.asarray(picture)
        info = self.info
        channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[_GIVEN[self._content]]
        if array.dtype != np.uint8 or array.shape[2:] != channels or array.ndim < 2:
            raise InputError(
                f"picture: got {array.dtype} of shape {array.shape}, expected "
                f"{_GIVEN[self._content]} of {info.height}×{info.width}."
            )
        if array.shape[:2] != (info.height, info.width):  # a stream may change its size
            mode = Image.Resampling.NEAREST if not channels else Image.Resampling.BILINEAR
            resized = Image.fromarray(array).resize((info.width, info.height), mode)
            array = np.asarray(resized)
        if self._keeps_rotation:
            array = info.orientation.turn_back(array)
        if self._content == "picture":
            array = _make_even(array)
        form = {"RGB": "rgb24", "RGBA": "rgba", "L": "gray"}[_GIVEN[self._content]]
        frame: av.VideoFrame = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(array), format=form
        )
        if self._content == "mask":
            frame.color_range = _FULL_RANGE
            return frame
        stored: av.VideoFrame = frame.reformat(
            format=_STORED[self._content],
            dst_colorspace=info.colour.matrix(array.shape[0]),
            dst_color_range=self._range,
            threads=1,
        )
        return stored

    def write(
        self, picture: Image.Image | UInt8 | av.VideoFrame, frame: Frame | SegmentedFrame
    ) -> None:
        """Add a picture at the time of ``frame``, and the sound that was read by then.

        Args:
            picture: what :meth:`prepare` takes, or gives.
            frame: where in time; each later than the one before.

        Raises:
            OutputError: the disk is full, say.
            InputError: the picture does not fit, or the time is not later.
        """
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise InputError(f"frame: its time {frame.pts} is not after {self._last_pts}.")
        if isinstance(picture, (Image.Image, np.ndarray)):
            picture = self.prepare(picture)
        self._last_pts = frame.pts
        picture.pts, picture.time_base = frame.pts, self.info.time_base
        if frame.duration:
            picture.duration = frame.duration
        picture.pict_type = 0
        self._try(lambda: self._container.mux(self._stream.encode(picture)))
        self.frames += 1
        self._end = (frame.pts + frame.duration) * self.info.time_base
        self._write_sound(self._end)

    def close(self) -> None:
        """Finish the file and give it its name; without a single frame, leave nothing.

        Raises:
            OutputError: the disk is full, say; nothing is left then.
        """
        if self._closed:
            return
        self._closed = True
        if not self.frames:  # a file without a picture plays nowhere
            self.abort()
            return
        self._try(lambda: self._container.mux(self._stream.encode(None)))
        self._write_sound(None if self._like.finished else self._end)
        for track in self._sound:
            self._try(lambda: self._container.mux(track.finish()))  # noqa: B023
        self._try(self._container.close)
        self._stack.close()

    def abort(self) -> None:
        """Leave nothing of the file."""
        self._leave(_Aborted())

    # --- inside -------------------------------------------------------------------------------

    def _add_stream(self) -> Any:
        info = self.info
        height, width = info.height, info.width
        if self._keeps_rotation and info.orientation.swaps_sides:
            height, width = width, height
        if self._content == "picture":
            if height % 2 or width % 2:
                self.notes.append("its sides were odd; H.264 got one more row or column")
            height, width = height + height % 2, width + width % 2
        rate = info.rate or Fraction(25)
        options = dict(_OPTIONS[self._content])
        if self._content == "mask" and min(height, width) < _LEAST_SLICED:
            options = {"level": "1"}
        stream: Any = self._container.add_stream(_CODECS[self._content], rate=rate, options=options)
        context = stream.codec_context
        stream.width, stream.height = width, height
        stream.pix_fmt = _STORED[self._content]
        stream.time_base = context.time_base = info.time_base
        context.flags |= _FRAME_DURATION
        context.thread_count = 0 if self._content == "picture" else 2
        aspect = info.pixel_aspect
        turned = info.orientation.swaps_sides and not self._keeps_rotation
        context.sample_aspect_ratio = 1 / aspect if turned else aspect
        colour = info.colour
        if self._content == "mask":
            self._range = context.color_range = _FULL_RANGE
            return stream
        self._range = colour.range or 1
        context.color_range = colour.range
        context.colorspace = 2 if colour.space in (0, 8) else colour.space
        context.color_trc, context.color_primaries = colour.transfer, colour.primaries
        if self._content == "cutout":
            stream.metadata["alpha_mode"] = "1"
        if self._keeps_rotation and not info.orientation.is_identity:
            stream.set_display_matrix(info.orientation.matrix)
        return stream

    def _add_sound(self) -> list[SoundTrack]:
        if self._content == "mask":
            return []
        tracks = []
        for source in self._like.sound:
            try:
                track = SoundTrack(self._container, source, start=self._like.start_seconds)
            except (self._av.FFmpegError, OSError, ValueError) as error:
                name = source.codec_context.name
                self.notes.append(f"its sound ({name}) was left out: {in_words(error)}")
                continue
            if not track.copies:
                self.notes.append(
                    f"its sound was encoded as {track.codec}: {self.path.suffix} takes no "
                    f"{source.codec_context.name}"
                )
            tracks.append(track)
        waiting = {track.index: track for track in tracks}
        self._queue: deque[Any] = deque()
        if tracks:

            def keep(packet: Any) -> None:
                if packet.stream.index in waiting:
                    self._queue.append(packet)

            self._like.listen(keep)
        return tracks

    def _write_sound(self, until: Fraction | None = None) -> None:
        """Write the sound that was read, up to a time of the pictures; None writes all of it."""
        tracks = {track.index: track for track in self._sound}
        while tracks and self._queue:
            packet = self._queue[0]
            track = tracks[packet.stream.index]
            if until is not None and track.time_of(packet) > until:
                break
            self._queue.popleft()
            self._try(lambda: self._container.mux(track.take(packet)))  # noqa: B023

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            translated = self._translated(error)
            self._leave(translated)
            raise translated from error

    def _translated(self, error: BaseException) -> BaseException:
        """Return FFmpeg's error as the system's, for ``replacing`` to put into words."""
        if isinstance(error, self._av.FFmpegError):
            return OSError(getattr(error, "errno", None) or errno.EIO, in_words(error))
        return error

    def _close_container(self, kind: Any, *_: object) -> None:
        if kind is not None:
            with suppress(self._av.FFmpegError, OSError, ValueError):
                self._container.close()

    def _leave(self, error: BaseException) -> None:
        """Remove the file in the making, and raise what became of ``error`` where it is told."""
        self._stack.pop_all().__exit__(type(error), error, error.__traceback__)


class _Aborted(Exception):  # noqa: N818 - nobody sees it
    """What ends the making of a file that is not wanted."""


def _choose_content(path: Path, content: Content | None) -> Content:
    suffix = path.suffix.lower()
    if content is None:
        found = next((kind for kind, ends in _SUFFIXES.items() if suffix in ends), None)
        content = "mask" if suffix == ".mkv" else found  # type: ignore[assignment]
    if content is None or suffix not in _SUFFIXES[content]:
        known = "; ".join(f"{', '.join(ends)} for a {kind}" for kind, ends in _SUFFIXES.items())
        raise InputError(f"output: {path} cannot hold this; expected {known}.")
    return content


def _make_even(array: UInt8) -> UInt8:
    """Return the picture with its last row and column repeated where there is an odd number."""
    rows, columns = array.shape[0] % 2, array.shape[1] % 2
    if not (rows or columns):
        return array
    return np.pad(array, ((0, rows), (0, columns), (0, 0)), mode="edge")
