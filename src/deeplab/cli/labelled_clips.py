"""``deeplab evaluate --video``: a model and a folder of clips with labelled frames, to scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import MofNCompleteColumn, Progress, TaskID

from deeplab.cli import model_options
from deeplab.cli.console import complain, split_names, stderr, stdout
from deeplab.errors import InputError

if TYPE_CHECKING:
    from deeplab.data.clips import Clip
    from deeplab.evaluation.clips import ClipScores
    from deeplab.video.play import Video


_CLIPS = (
    "--video: clips are played as 'deeplab segment' plays them, one look at each frame, and all of "
    "a folder are taken"
)


def refuse(options: Mapping[str, object], *, beside: str = _CLIPS) -> None:
    """Refuse options that mean nothing ``beside`` another: that option, and why.

    Raises:
        InputError: some of them are given; names all that are.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"{', '.join(given)}: not with {beside}.")


def evaluate_clips(
    model: str,
    folder: Path,
    *,
    steady: bool,
    trimap: Sequence[int],
    classes: str | None,
    as_json: bool,
    **told: Any,
) -> None:
    """Score a model on clips, and print what was found.

    Args:
        model: a release pair, an exported file, or a name.
        folder: of the clips.
        steady: smooth the masks over time.
        trimap: widths of bands along borders.
        classes: names of those to average over, too, with commas.
        as_json: print JSON.
        **told: what :class:`deeplab.Segmenter` takes.
    """
    from deeplab.data.clips import open_clips
    from deeplab.evaluation.clips import evaluate_clips as play
    from deeplab.evaluation.report import describe_shared
    from deeplab.segmenter import Segmenter
    from deeplab.video.library import import_av
    from deeplab.weights.release import find_pair

    clips = open_clips(folder)
    import_av()
    chosen = None if classes is None else clips.labels.indices(split_names("--classes", classes))
    segmenter = Segmenter(find_pair(model) or model, **told)
    model_options.tell_assumed(model, segmenter.card)
    model_options.tell_device(model, told.get("device"), segmenter.network.device)
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=stderr(), transient=True
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def each(clip: Clip, video: Video) -> None:
            if clip.name not in tasks:
                tasks[clip.name] = bar.add_task(clip.name, total=video.info.frames)
            bar.advance(tasks[clip.name])

        found = play(
            segmenter, clips, name=Path(model).name, steady=steady, trimap=trimap, each=each
        )
    if steady and not found.steady:
        complain(f"note: {model} gives a label map only; its masks are not smoothed.")
    if shared := describe_shared(found.evaluation, segmenter.labels, clips.labels):
        stderr().print(shared, markup=False)
    _tell_passed_over(found)
    if as_json:
        stdout().print_json(json.dumps(found.to_dict(classes=chosen)))
    else:
        _print(found, chosen)


def _tell_passed_over(found: ClipScores) -> None:
    from deeplab.photo.find import describe_passed_over

    for clip in found.clips:
        for note in clip.notes:
            complain(f"{clip.clip}: {note}")
    if found.passed_over:
        complain(f"passed over: {describe_passed_over(found.passed_over)}")


def _print(found: ClipScores, classes: Sequence[int] | None) -> None:
    from deeplab.evaluation.report import summary_table

    protocol = found.evaluation.protocol
    way = "steady" if found.steady else "frame by frame"
    title = (
        f"{protocol['model']} on clips ({protocol['clips']}), labelled frames: "
        f"{protocol['labelled frames']}, {way}"
    )
    stdout().print(summary_table(found.evaluation, classes=classes, title=title))
    for clip in found.clips:
        stdout().print(
            f"{clip.clip}: {clip.frames} frames, {clip.labelled} labelled, "
            f"mIoU {clip.miou:.2%}, flicker {_share(clip.flicker)}",
            markup=False, highlight=False,
        )  # fmt: skip
    stdout().print(f"flicker of all, {way}: {_share(found.flicker)}")


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2%}"
