"""What is written of a video, frame by frame: pictures, masks, lines of JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from deeplab.errors import OutputError
from deeplab.files import name_partial, replacing, sweep
from deeplab.photo import draw
from deeplab.photo.palette_png import encode_palette_png
from deeplab.video.write import VideoWriter

if TYPE_CHECKING:
    from deeplab.labels import LabelSet
    from deeplab.photo.results import Segmentation
    from deeplab.video.play import SegmentedFrame, Video

_DRAWN: dict[str, Callable[..., Image.Image]] = {
    "overlay": draw.overlay,
    "contour": draw.contour,
    "blur": draw.blur_background,
    "cutout": draw.cutout,
}


class _Output(Protocol):
    def prepare(self, picture: Any) -> Any: ...
    def write(self, picture: Any, frame: SegmentedFrame) -> None: ...


class ClipOutputs:
    """The files of one video in the making; a context manager.

    Each takes its name when it is whole. Ctrl-C closes them, so that they play.

    Args:
        files: "overlay", "contour", "blur" (.mp4), "cutout" (.webm), "mask" (.mkv), "json"
            (lines) and "mask-pngs" (a folder), each by its path.
        video: what they are made from; no frame may have been taken from it yet.
        labels: its classes.
        only: the classes to keep; None keeps all.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        video: Video,
        labels: LabelSet,
        only: Sequence[str] | None = None,
    ) -> None:
        self._only = only
        self._stack = ExitStack()
        self._outputs: dict[str, _Output] = {}
        self._writers: list[VideoWriter] = []
        try:
            for kind, path in files.items():
                self._outputs[kind] = self._open(kind, path, video, labels)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise

    def __enter__(self) -> ClipOutputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def notes(self) -> list[str]:
        """What could not be kept, in words."""
        return list(dict.fromkeys(note for writer in self._writers for note in writer.notes))

    def prepare(self, frame: SegmentedFrame) -> dict[str, Any]:
        """Draw and convert what is written of a frame; may run in any thread."""
        result = frame.segmentation
        if self._only:
            mask, labels = draw.keep_only(result.mask, self._only, labels=result.labels)
            result = dataclasses.replace(result, mask=mask, labels=labels)
        photo = result.photo.decode() if {*self._outputs} & {*_DRAWN} else None
        made: dict[str, Any] = {}
        for kind, output in self._outputs.items():
            if kind in _DRAWN:
                assert photo is not None
                made[kind] = output.prepare(_DRAWN[kind](photo, result.mask, labels=result.labels))
            elif kind == "json":
                made[kind] = output.prepare((frame, result))
            else:
                made[kind] = output.prepare(result.mask)
        return made

    def write(self, frame: SegmentedFrame, prepared: Mapping[str, Any]) -> None:
        """Add a frame to every file.

        Raises:
            OutputError: the disk is full, say.
        """
        for kind, output in self._outputs.items():
            output.write(prepared[kind], frame)

    def _open(self, kind: str, path: Path, video: Video, labels: LabelSet) -> _Output:
        if kind == "json":
            return self._stack.enter_context(_json_lines(path))
        if kind == "mask-pngs":
            return self._stack.enter_context(_mask_folder(path, labels))
        comment = None
        if kind == "mask":
            names = ", ".join(f"{index} {name}" for index, name in enumerate(labels.names))
            comment = f"class ids as grey values: {names}"
        writer = VideoWriter(path, like=video, comment=comment)
        self._writers.append(writer)
        return self._stack.enter_context(writer)


class _JsonLines:
    """One line of JSON for each frame, as a photo's."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def prepare(self, picture: tuple[SegmentedFrame, Segmentation]) -> str:
        frame, result = picture
        content = result.to_dict()
        del content["timings_ms"], content["photo"]  # equal runs write equal files
        content = {"frame": frame.index, "time": round(frame.time, 6), **content}
        return json.dumps(content, ensure_ascii=False) + "\n"

    def write(self, picture: str, frame: SegmentedFrame) -> None:
        self._file.write(picture)


class _MaskFolder:
    """One palette PNG for each frame, numbered from 000000."""

    def __init__(self, folder: Path, labels: LabelSet) -> None:
        self._folder, self._palette = folder, labels.palette

    def prepare(self, picture: Any) -> bytes:
        return encode_palette_png(picture, self._palette)

    def write(self, picture: bytes, frame: SegmentedFrame) -> None:
        (self._folder / f"{frame.index:06}.png").write_bytes(picture)


@contextmanager
def _json_lines(path: Path) -> Iterator[_JsonLines]:
    with (
        _interrupt_outside() as stopped,
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="replace") as file,
        stopped(),
    ):
        yield _JsonLines(file)


@contextmanager
def _mask_folder(path: Path, labels: LabelSet) -> Iterator[_MaskFolder]:
    partial = name_partial(path)
    sweep(path.parent)
    try:
        partial.mkdir()
        with _interrupt_outside() as stopped:
            with stopped():
                yield _MaskFolder(partial, labels)
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"output: cannot write {path}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _interrupt_outside() -> Iterator[Callable[[], Any]]:
    """Hold Ctrl-C back, from the inner block that is given until this one has ended well."""
    held: list[KeyboardInterrupt] = []

    @contextmanager
    def inner() -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:
            held.append(error)

    yield inner
    if held:
        raise held[0]
