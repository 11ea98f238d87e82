"""Scores of clips with labelled frames: how right the masks are, and how much they flicker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.data.clips import Clip, ClipSet, open_clips
from deeplab.data.masks import MaskEncoding, read_mask
from deeplab.errors import DataError
from deeplab.evaluation.protocol import Evaluation, FilePredictor, begin
from deeplab.evaluation.report import to_dict
from deeplab.segmenter import Segmenter
from deeplab.video.library import import_av
from deeplab.video.play import SegmentedFrame, Video
from deeplab.weights.release import find_pair

UInt8 = npt.NDArray[np.uint8]

Each = Callable[[Clip, Video], None]
"""Called after each frame, with what is playing."""


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """What was found in one clip.

    Attributes:
        clip: its name.
        frames: that were played.
        labelled: those with a mask.
        miou: over its labelled frames; NaN where nothing in them counts.
        flicker: share of pixels per frame, see :mod:`deeplab.video.flicker`; None of one frame.
        notes: what was assumed or is missing, in words.
    """

    clip: str
    frames: int
    labelled: int
    miou: float
    flicker: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipScores:
    """How good a network is on clips.

    Attributes:
        evaluation: the counts over the labelled frames of all clips; its pictures are the clips.
        clips: each by itself.
        steady: the masks were smoothed over time.
        passed_over: what else the folder holds, by suffix or kind.
    """

    evaluation: Evaluation
    clips: tuple[ClipScore, ...]
    steady: bool
    passed_over: Mapping[str, int]

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the labelled frames."""
        return self.evaluation.miou

    @property
    def flicker(self) -> float | None:
        """Mean over the clips, each counting by its frames; None where none has two frames."""
        measured = [(one.flicker, one.frames) for one in self.clips if one.flicker is not None]
        frames = sum(count for _, count in measured)
        return sum(score * count for score, count in measured) / frames if frames else None

    def to_dict(self, *, classes: Sequence[int] | None = None) -> dict[str, Any]:
        """Return scores, counts and protocol as JSON knows them; None stands for n/a.

        Args:
            classes: class ids over which to average as well, beside all.
        """
        told = to_dict(self.evaluation, classes=classes)
        del told["ms_per_picture"]  # frames overlap while they are worked on
        clips = [asdict(one) for one in self.clips]
        for one in clips:
            one["miou"] = None if np.isnan(one["miou"]) else one["miou"]
        return {
            **told,
            "flicker": self.flicker,
            "steady": self.steady,
            "clips": clips,
            "passed_over": dict(self.passed_over),
        }


def evaluate_clips(
    model: str | PathLike[str] | Segmenter,
    clips: str | PathLike[str] | ClipSet,
    *,
    name: str | None = None,
    steady: bool = True,
    trimap: Sequence[int] = (),
    workers: int | None = None,
    each: Each | None = None,
) -> ClipScores:
    """Play clips as ``deeplab segment`` does, and score the frames that are labelled.

    >>> evaluate_clips("voc-fast", "clips", steady=False).flicker

    Args:
        model: what :class:`deeplab.Segmenter` takes, or one.
        clips: folder of clips, see :mod:`deeplab.data.clips`.
        name: of the model, for the protocol; None takes what was given.
        steady: smooth the masks over time; what a network with a label map alone gives cannot be.
        trimap: widths, in pixels, of bands around label borders to score by themselves.
        workers: frames worked on at the same time; None takes the cores.
        each: called after each frame, to show progress.

    Raises:
        DataError: clips or masks are not there, do not belong together, or are damaged.
        ImageError: a clip cannot be read.
        InputError: network and data share no class.
        MissingExtraError: the extra ``video`` is not installed.
    """
    import_av()
    if not isinstance(clips, ClipSet):
        clips = open_clips(clips)
    segmenter = model if isinstance(model, Segmenter) else _open(fspath(model))
    steady = steady and segmenter.network.output == "logits"
    protocol = {
        **FilePredictor(segmenter, name or str(model)).describe(),
        "clips": len(clips.clips),
        "labelled frames": sum(len(clip.masks) for clip in clips.clips),
        "steady": steady,
    }
    translate, counted = begin(segmenter.labels, clips.labels, protocol=protocol, trimap=trimap)
    counted.protocol["size of truth"] = "the upright frame's own"
    scores = []
    for index, clip in enumerate(clips.clips):
        with segmenter.video(clip.path, steady=steady, flicker=True, workers=workers) as video:
            for label, mask in _labelled_frames(video, clip, clips.encoding, each):
                counted.add(index, clip.name, label, translate[mask])
        scores.append(_score(video, clip, counted, index))
    return ClipScores(
        evaluation=counted, clips=tuple(scores), steady=steady, passed_over=clips.passed_over
    )


def _open(model: str) -> Segmenter:
    return Segmenter(find_pair(model) or model)


def _labelled_frames(
    video: Video, clip: Clip, encoding: MaskEncoding, each: Each | None
) -> Iterator[tuple[UInt8, UInt8]]:
    """Play a clip to its end, and give (truth, mask) of the frames that are labelled.

    Raises:
        DataError: a mask is damaged or of another size than its frame.
    """

    def read_truth(frame: SegmentedFrame) -> UInt8 | None:
        path = clip.masks.get(frame.index)
        if path is None:
            return None
        label, size = read_mask(path, encoding), frame.segmentation.mask.shape
        if label.shape != size:
            raise DataError(
                f"{path}: the mask has {label.shape[0]}×{label.shape[1]} pixels, its frame of "
                f"{clip.path.name}, upright, {size[0]}×{size[1]} (height × width). They must be "
                "equal."
            )
        return label

    for frame, label in video.map(read_truth):
        if label is not None:
            yield label, frame.segmentation.mask
        if each is not None:
            each(clip, video)


def _score(video: Video, clip: Clip, counted: Evaluation, index: int) -> ClipScore:
    """Return what was found in a clip that was played to its end.

    Raises:
        DataError: there is no frame for a mask, or damage makes the frames' numbers doubtful.
    """
    counts = video.counts
    if counts.broken:
        # A frame that is lost shifts all that follow: their masks would meet other frames.
        raise DataError(
            f"{clip.path}: {counts.broken} of its frames are damaged, so that nobody can say which "
            "frame a mask is of. Encode the clip anew, and check its masks."
        )
    beyond = [path.name for number, path in clip.masks.items() if number >= counts.frames]
    if beyond:
        some = ", ".join(beyond[:4]) + (", …" if len(beyond) > 4 else "")
        raise DataError(
            f"{clip.path}: has {counts.frames} frames, 0 to {counts.frames - 1}, and none for the "
            f"masks {some}. Frames count from 0; what ffmpeg writes begins at 1, unless told "
            "-start_number 0."
        )
    notes = video.info.notes
    if told := counts.in_words():
        notes = (*notes, told)
    return ClipScore(
        clip=clip.name,
        frames=counts.frames,
        labelled=len(clip.masks),
        miou=float(counted.pictures[index][1].mean_iou(counted.shared)),
        flicker=video.flicker,
        notes=notes,
    )
