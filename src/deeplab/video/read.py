"""Read a video: its frames upright, with their exact times, and its sound as it is stored.

Damage is passed over and counted; what cannot be read at all is refused in words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import ImageError, ImageSizeError
from deeplab.photo.formats import MAX_PIXELS
from deeplab.photo.images import REDUCED_MARGIN, Photo
from deeplab.video.library import import_av, in_words
from deeplab.video.live import (
    TIMEOUT_SECONDS,
    explain,
    find_camera,
    hide_password,
    is_address,
    is_live,
)
from deeplab.video.orientation import Orientation

if TYPE_CHECKING:
    import av

_UNKNOWN = 2
"""FFmpeg's number for a colour space, a transfer or primaries that nobody named."""

_LONGER_SOUND = 1.0
"""Seconds by which sound often ends after the pictures; so much is no sign of a cut."""

_HD_ROWS = 720
"""From here on, colours whose space is not named are BT.709's, as players take them."""


@dataclass(frozen=True, kw_only=True)
class Colour:
    """FFmpeg's numbers for how a video's colours are coded; 0 and 2 stand for "not said"."""

    space: int
    range: int
    transfer: int
    primaries: int

    @property
    def is_hdr(self) -> bool:
        """Brightness is coded for HDR screens (PQ or HLG)."""
        return self.transfer in (16, 18)

    def matrix(self, height: int) -> int:
        """Return swscale's number of the YUV matrix for frames of ``height`` stored rows."""
        if self.space in (0, _UNKNOWN) or self.space > 10:
            return 1 if height >= _HD_ROWS else 5
        return {6: 5, 10: 9}.get(self.space, self.space)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video says of itself.

    Attributes:
        name: its path or address.
        height: rows of the upright frame.
        width: columns of the upright frame.
        orientation: how its frames are stored.
        rate: frames per second on average; None where nothing says.
        time_base: the unit of its frames' times, seconds.
        frames: how many there are; None where nothing says.
        seconds: how long it is; None where nothing says.
        colour: how its colours are coded.
        pixel_aspect: width of a pixel over its height.
        codec: of its pictures.
        sound: codecs of its sound tracks.
        live: it is a camera or a stream without an end.
        notes: what was assumed, in words.
    """

    name: str
    height: int
    width: int
    orientation: Orientation
    rate: Fraction | None
    time_base: Fraction
    frames: int | None
    seconds: float | None
    colour: Colour
    pixel_aspect: Fraction
    codec: str
    sound: tuple[str, ...]
    live: bool
    notes: tuple[str, ...]


@dataclass(kw_only=True)
class Counts:
    """What happened while a video was read.

    Attributes:
        frames: given out.
        broken: packets that could not be decoded, and frames that the decoder calls damaged.
        retimed: frames whose time was missing or ran backwards.
        dropped: frames of a live source that came while all were busy.
        missing: frames that a file promised and did not have.
    """

    frames: int = 0
    broken: int = 0
    retimed: int = 0
    dropped: int = 0
    missing: int = 0

    def in_words(self) -> str:
        """Return "3 damaged frames, 270 frames missing at the end", or an empty text."""
        told = {
            "damaged": self.broken,
            "missing (the file is cut off)": self.missing,
            "without a usable time": self.retimed,
            "dropped to keep up": self.dropped,
        }
        return ", ".join(f"{count} frames {what}" for what, count in told.items() if count)


class FramePhoto(Photo):
    """A frame as a photo: upright, converted to RGB when it is wanted."""

    def __init__(
        self, frame: av.VideoFrame, *, name: str, orientation: Orientation, colour: Colour
    ) -> None:
        self.name = name
        self._frame, self._turn, self._colour = frame, orientation, colour
        sides = frame.height, frame.width
        self.height, self.width = sides[::-1] if orientation.swaps_sides else sides

    @property
    def orientation(self) -> int:
        """1: frames come upright."""
        return 1

    def decode(self, *, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Return the upright RGB picture; reduced where ``at_least`` allows, as JPEGs are."""
        factor = 1
        while (
            at_least is not None
            and factor < 8
            and all(
                side // (2 * factor) >= REDUCED_MARGIN * wanted
                for side, wanted in zip(self.size, at_least, strict=True)
            )
        ):
            factor *= 2
        frame = self._frame.reformat(
            width=max(1, self._frame.width // factor),
            height=max(1, self._frame.height // factor),
            format="rgb24",
            src_colorspace=self._colour.matrix(self._frame.height),
            src_color_range=self._colour.range,
            interpolation="AREA" if factor > 1 else "BILINEAR",
            threads=1,
        )
        return Image.fromarray(np.ascontiguousarray(self._turn.turn_upright(frame.to_ndarray())))

    def luma(self, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return the upright picture's brightness, (height, width) uint8, averaged to ``size``."""
        height, width = size[::-1] if self._turn.swaps_sides else size
        grey = self._frame.reformat(
            width=width, height=height, format="gray", interpolation="AREA", threads=1
        )
        return self._turn.turn_upright(grey.to_ndarray())


@dataclass(eq=False, kw_only=True)
class Frame:
    """One frame.

    Attributes:
        index: 0 for the first.
        pts: its time in units of the video's ``time_base``, beginning at the video's start.
        time: the same in seconds.
        duration: until the next, in units of ``time_base``; 0 where nothing says.
        photo: the picture.
    """

    index: int
    pts: int
    time: float
    duration: int
    photo: FramePhoto


@dataclass
class _Clock:
    """Gives every frame a time later than the one before."""

    time_base: Fraction
    step: int
    start: int = 0
    last: int | None = None
    retimed: int = 0
    _shift: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)

    def tell(self, pts: int | None) -> int:
        """Return the frame's time, counted from the start."""
        due = 0 if self.last is None else self.last + self.step
        if pts is not None and not self._begun:
            # The first frames of a stream have no time yet; those that have come after them.
            self._begun = True
            if self.last is not None:
                self._shift = max(0, due - (pts - self.start))
        now = due if pts is None else pts - self.start + self._shift
        if pts is None or (self.last is not None and now <= self.last):
            self.retimed += 1
            # A clock that was set back stays behind by as much; one frame out of order does not.
            if pts is not None and due - now > Fraction(1) / self.time_base:
                self._shift += due - now
            now = due
        self.last = now
        return now


class VideoReader:
    """A video, opened: what it says of itself, then its frames, once.

    Args:
        source: a file's path, a camera ("0", "/dev/video0") or an address ("rtsp://…").
        threads: that the decoder may use; None leaves it to FFmpeg.

    Attributes:
        info: what the video says of itself.
        counts: what happened so far.
        sound: PyAV's streams of sound, the patterns for those of a file that takes the packets.
        metadata: title, date and the like.
        finished: all of its frames were given.
        lost: why a live source gave no more, in words; "" where it closed as usual.

    Raises:
        ImageError: it cannot be read, has no pictures, is encrypted or empty.
        ImageSizeError: its frames have too many pixels.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        threads: int | None = None,
    ) -> None:
        self._av = import_av()
        self.counts = Counts()
        self.finished, self.lost = False, ""
        self._listeners: list[Callable[[av.Packet[Any]], object]] = []
        self._early: list[av.Packet[Any]] | None = []  # sound that lies before the first frame
        self._source = os.fspath(source)
        self._name = hide_password(self._source)
        self._live = is_live(source)
        self._container = self._open()
        try:
            self._stream = self._choose_stream()
            if threads is not None:
                self._stream.codec_context.thread_count = threads
            self._stream.codec_context.thread_type = "FRAME" if not self._live else "SLICE"
            self.sound: list[Any] = [] if self._live else list(self._container.streams.audio)
            self.sound = [stream for stream in self.sound if stream.codec_context is not None]
            self.metadata: dict[str, str] = dict(self._container.metadata)
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise ImageError(f"{self._name}: none of its frames can be decoded.")
            self._first: av.VideoFrame | None = first
            self.info = self._describe(first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or the camera."""
        self._frames.close()
        self._container.close()

    def listen(self, listener: Callable[[av.Packet[Any]], object]) -> None:
        """Have each packet of sound passed to ``listener``, in the thread that takes frames."""
        self._listeners.append(listener)

    def _pass_on(self, packet: av.Packet[Any]) -> None:
        if self._early is not None:
            self._early.append(packet)
            return
        for listener in self._listeners:
            listener(packet)

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames that are left, in order of time."""
        early, self._early = self._early, None
        for packet in early or ():
            self._pass_on(packet)
        info = self.info
        step = max(1, round(1 / (info.rate * info.time_base))) if info.rate else 1
        clock = _Clock(info.time_base, step, start=self._start())
        waiting: Frame | None = None
        while True:
            frame, self._first = self._first or next(self._frames, None), None
            if frame is None:
                break
            if frame.is_corrupt:
                self.counts.broken += 1
            pts = clock.tell(frame.pts)
            self.counts.retimed = clock.retimed
            index, self.counts.frames = self.counts.frames, self.counts.frames + 1
            now = Frame(
                index=index,
                pts=pts,
                time=float(pts * info.time_base),
                duration=frame.duration or 0,
                photo=FramePhoto(
                    frame,
                    name=f"{info.name}, frame {index}",
                    orientation=info.orientation,
                    colour=info.colour,
                ),
            )
            if self._live:  # nobody waits for the next picture to see this one
                yield now
                continue
            if waiting is not None:
                waiting.duration = now.pts - waiting.pts
                yield waiting
            waiting = now
        if waiting is not None:
            waiting.duration = self._last_duration(waiting, clock.start)
            yield waiting
        self.finished = True
        told = self._stream.frames if not self._live else 0
        if not told and not self._live:
            told = self.counts.frames + self._missing_by_time(waiting)
        self.counts.missing = max(0, told - self.counts.frames - self.counts.broken)

    def _missing_by_time(self, last: Frame | None) -> int:
        """Return how many frames there would be up to the track's end; Matroska tells no number."""
        rate, end = self.info.rate, self._promised_end()
        if not rate or last is None or end is None:
            return 0
        stays = max(float(last.duration * self.info.time_base), 1 / float(rate))
        gap = (end - last.time - stays) * float(rate)
        return round(gap) if gap > 0.5 else 0

    def _promised_end(self) -> float | None:
        """Return when the track ends, in seconds, by what a Matroska file says; None: unknown."""
        text = self._stream.metadata.get("DURATION", "")
        found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip("\0 "))
        if found is not None:
            return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
        if "matroska" not in self._container.format.name or self._container.duration is None:
            return None
        # Tags may lie at the end, and be cut off. The file's own duration is its longest track's.
        return float(self._container.duration / 1e6) - _LONGER_SOUND * bool(self.sound)

    def _last_duration(self, frame: Frame, start: int) -> int:
        """Return how long the last frame stays: until the stream ends, where that can be."""
        if self._stream.duration is None or self._stream.time_base != self.info.time_base:
            return frame.duration
        end = (self._stream.start_time or 0) + self._stream.duration - start
        return int(end - frame.pts) if end > frame.pts else frame.duration

    # --- opening ------------------------------------------------------------------------------

    def _open(self) -> Any:
        name, options, form = self._source, {}, None
        timeout = None
        if self._live:
            timeout = TIMEOUT_SECONDS
            if not is_address(name):
                name, form = find_camera(name)
            elif name.lower().startswith("rtsp"):
                options = {"rtsp_transport": "tcp"}  # pictures lost on UDP come as grey blocks
        else:
            _check_file(Path(name))
        try:
            return self._av.open(name, format=form, options=options, timeout=timeout)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise ImageError(self._why_not(error)) from None

    def _why_not(self, error: Exception) -> str:
        words = f"{self._name}: cannot be opened: {in_words(error)}."
        if self._live:
            return explain(self._source, in_words(error))
        if isinstance(error, self._av.error.InvalidDataError):
            return (
                f"{self._name}: is no video that can be read, or is cut off: an MP4 or MOV whose "
                "end is missing has lost its index. Copy it again."
            )
        return words

    def _choose_stream(self) -> Any:
        moving = [
            stream
            for stream in self._container.streams.video
            if not stream.disposition & self._av.stream.Disposition.attached_pic
        ]
        if not moving:
            sound = [stream.codec_context.name for stream in self._container.streams.audio]
            there = f"only sound ({', '.join(sound)})" if sound else "no pictures"
            raise ImageError(f"{self._name}: has no video in it, {there}.")
        stream = moving[0]
        if stream.codec_context is None:
            raise ImageError(f"{self._name}: its video is in a codec that is not known here.")
        return stream

    def _describe(self, first: av.VideoFrame) -> VideoInfo:
        height, width = first.height, first.width
        if height * width > MAX_PIXELS:
            raise ImageSizeError(
                f"{self._name}: its frames have {height * width / 1e6:,.0f} megapixels, the limit "
                f"is {MAX_PIXELS / 1e6:,.0f}."
            )
        side_data: Any = first.side_data
        matrix = next((data for data in side_data if data.type.name == "DISPLAYMATRIX"), None)
        orientation = Orientation.read(bytes(matrix) if matrix is not None else None)
        if orientation.swaps_sides:
            height, width = width, height
        colour = Colour(
            space=int(first.colorspace),
            range=2 if first.format.name.startswith("yuvj") else int(first.color_range),
            transfer=int(first.color_trc),
            primaries=int(first.color_primaries),
        )
        notes = []
        if orientation.is_slanted:
            notes.append("its rotation is no quarter of a turn and was left alone")
        if colour.is_hdr:
            notes.append("HDR brightness was taken as it is stored, which looks pale to a network")
        stream = self._stream
        base = first.time_base or stream.time_base
        return VideoInfo(
            name=self._name,
            height=height,
            width=width,
            orientation=orientation,
            rate=stream.average_rate or stream.guessed_rate,
            time_base=base,
            frames=stream.frames or None,
            seconds=self._seconds(),
            colour=colour,
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
            codec=stream.codec_context.name,
            sound=tuple(track.codec_context.name for track in self.sound),
            live=self._live,
            notes=tuple(notes),
        )

    def _seconds(self) -> float | None:
        if self._live:
            return None
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        whole = self._container.duration
        return None if whole is None else whole / 1e6

    def _start(self) -> int:
        """Return what every time begins at, where a format's clock does not begin at 0."""
        flags = self._container.format.flags
        if not (self._live or flags & self._av.format.Flags.ts_discont.value):
            return 0
        tracks = [self._stream, *self.sound]
        starts = [s.start_time * s.time_base for s in tracks if s.start_time is not None]
        return int(min(starts) / self.info.time_base) if starts else 0

    @property
    def start_seconds(self) -> Fraction:
        """What is to be taken from the sound's times so that they agree with the frames'."""
        return self._start() * self.info.time_base

    # --- decoding -----------------------------------------------------------------------------

    def _decode(self) -> Generator[Any, None, None]:
        """Give frames as they are decoded; damage is counted."""
        errors = (self._av.FFmpegError, OSError, ValueError)
        packets = self._container.demux(self._stream, *self.sound)
        while True:
            try:
                packet = next(packets, None)
            except errors as error:
                if self._live and self.counts.frames == 0:
                    raise ImageError(self._why_not(error)) from None
                if self._live:
                    self.lost = in_words(error)
                else:
                    self.counts.broken += 1
                packet = None
            if packet is None:
                break
            if packet.stream is not self._stream:
                if packet.dts is not None:
                    self._pass_on(packet)
                continue
            if packet.dts is None and packet.size == 0:  # the demuxer's own end
                continue
            if packet.has_sidedata("encryption_info"):
                raise ImageError(
                    f"{self._name}: is encrypted (DRM); its frames cannot be read without the key."
                )
            try:
                yield from packet.decode()
            except errors:
                self.counts.broken += 1
        try:
            yield from self._stream.codec_context.decode(None)
        except errors:
            self.counts.broken += 1


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise ImageError(f"{path}: {reason}.") from None
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, expected a video.")
    if size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes).")
