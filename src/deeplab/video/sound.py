"""A sound track beside new pictures: its packets as they are, or encoded where they do not fit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from deeplab.video.library import import_av

_OTHERWISE = {"webm": ("libopus", 48_000)}
"""What a container takes where it does not take the source's codec, and the rate; else AAC."""


class SoundTrack:
    """A stream of sound in a file that is written.

    Args:
        container: PyAV's, open for writing.
        source: the stream that the packets come from.
        start: seconds of the source's clock at which the pictures begin.

    Attributes:
        index: of the source's stream.
        copies: packets are written as they are.
        codec: of what is written.
    """

    def __init__(self, container: Any, source: Any, *, start: Fraction) -> None:
        av = import_av()
        self.index: int = source.index
        self._start = start
        codec = source.codec_context.codec.canonical_name
        self.copies = codec in container.supported_codecs
        self.codec = codec
        if self.copies:
            self._stream = container.add_stream_from_template(source)
            return
        self.codec, rate = _OTHERWISE.get(container.format.name, ("aac", source.rate))
        layout = source.layout.name
        self._decoder = av.CodecContext.create(source.codec_context.name, "r")
        self._decoder.extradata = source.codec_context.extradata
        self._decoder.sample_rate, self._decoder.layout = source.rate, layout
        self._stream = container.add_stream(self.codec, rate=rate, layout=layout)
        context = self._stream.codec_context
        context.open()
        self._resampler = av.AudioResampler(
            format=context.format, layout=layout, rate=rate, frame_size=context.frame_size
        )
        self._errors = (av.FFmpegError, OSError, ValueError)

    def time_of(self, packet: Any) -> Fraction:
        """Return when a packet is heard, in seconds of the pictures."""
        return Fraction(packet.dts * packet.time_base - self._start)

    def take(self, packet: Any) -> list[Any]:
        """Return the packets to write for one of the source's."""
        av = import_av()
        shift = round(self._start / packet.time_base)
        copy = av.Packet(bytes(packet))
        copy.time_base = packet.time_base
        copy.pts = None if packet.pts is None else packet.pts - shift
        copy.dts = None if packet.dts is None else packet.dts - shift
        copy.duration = packet.duration
        if not self.copies:
            return self._encode(copy)
        for data in packet.iter_sidedata():
            copy.set_sidedata(data)
        copy.is_keyframe = packet.is_keyframe
        copy.stream = self._stream
        return [copy]

    def finish(self) -> list[Any]:
        """Return the last packets."""
        return [] if self.copies else [*self._encode(None), *self._stream.encode(None)]

    def _encode(self, packet: Any) -> list[Any]:
        try:
            frames = self._decoder.decode(packet)
        except self._errors:  # damaged sound is left out
            return []
        packets = []
        for frame in frames:
            if frame.pts is not None and frame.pts < 0:  # what the first encoder began with
                continue
            for piece in self._resampler.resample(frame):
                packets += self._stream.encode(piece)
        if packet is None:
            for piece in self._resampler.resample(None):
                packets += self._stream.encode(piece)
        return packets
