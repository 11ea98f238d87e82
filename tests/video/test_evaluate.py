"""Clips with labelled frames: found, played, scored, or refused in words."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ffmpeg_oracle import ffmpeg
from PIL import Image
from synthetic import make_clip
from test_steady import masks_of

from deeplab import LabelSet, Segmenter, cli
from deeplab.data.clips import open_clips
from deeplab.errors import DataError
from deeplab.evaluation.clips import evaluate_clips
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.labels import VOC
from tiny_tflite import Graph, tiny_network

av = pytest.importorskip("av", reason="needs the extra 'video'")

UInt8 = npt.NDArray[np.uint8]

SIDE = 64
NETWORK = ("red", "green", "blue")
DATA = ("green", "blue", "red")  # the same classes in another order


def write_clip(path: Path, frames: Sequence[UInt8]) -> None:
    """Write frames, (H, W, 3) uint8 RGB, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.pix_fmt = "bgr0"
        stream.height, stream.width = frames[0].shape[:2]
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def scene(count: int = 10) -> tuple[list[UInt8], list[UInt8]]:
    """Return frames and their truth: a red square goes by over green ground, blue is above."""
    rng = np.random.default_rng(0)
    frames, truth = [], []
    for number in range(count):
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[:20] = 1
        label[10:40, 4 * number : 4 * number + 16] = 2
        pixels = rng.integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        channel = np.array([1, 2, 0])[label]
        np.put_along_axis(pixels, channel[:, :, None], 200, axis=2)
        frames.append(pixels)
        truth.append(label)
    return frames, truth


def write_masks(
    folder: Path, masks: Iterable[tuple[int, UInt8]], pattern: str = "{:06}.png"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, mask in masks:
        Image.fromarray(mask).save(folder / pattern.format(number))


@pytest.fixture(scope="module")
def brightest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network that answers the brightest of red, green and blue: its truth is known."""
    graph = Graph(SIDE)
    picture = graph.tensor((1, SIDE, SIDE, 3))
    answer = graph.convolve(picture, 20 * np.eye(3, dtype=np.float32).reshape(3, 1, 1, 3))
    path = tmp_path_factory.mktemp("model") / "brightest.tflite"
    path.write_bytes(graph.finish([picture], [answer]))
    (path.parent / "rgb.txt").write_text("\n".join(NETWORK))
    return path


@pytest.fixture
def segmenter(brightest: Path) -> Segmenter:
    return Segmenter(brightest, labels=LabelSet(NETWORK), threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two clips: one labelled sparsely, one, deeper, throughout."""
    root = tmp_path / "set"
    frames, truth = scene()
    write_clip(root / "a.mkv", frames)
    write_clip(root / "far" / "b.mkv", frames[:4])
    write_masks(root / "a", [(n, truth[n]) for n in (0, 3, 9)], "{}.png")
    write_masks(root / "far" / "b.masks", enumerate(truth[:4]))
    (root / "labels.txt").write_text("\n".join(DATA))
    return root


def test_what_is_right_scores_one(folder: Path, segmenter: Segmenter) -> None:
    write_clip(folder / "unlabelled.mkv", scene(2)[0])
    (folder / "a" / "notes.md").write_text("drawn by hand")
    played: list[str] = []
    found = evaluate_clips(
        segmenter, folder, steady=False, each=lambda clip, video: played.append(clip.name)
    )
    assert found.miou == 1
    assert found.evaluation.confusion.counts.sum() == 7 * SIDE**2
    told = [(one.clip, one.frames, one.labelled, one.miou) for one in found.clips]
    assert told == [("a.mkv", 10, 3, 1), ("far/b.mkv", 4, 4, 1)]
    assert played == ["a.mkv"] * 10 + ["far/b.mkv"] * 4
    assert found.flicker == pytest.approx(0, abs=0.01)
    assert found.passed_over == {"clips without masks": 1, ".md": 1}
    # Clips are drawn for the interval, not frames that look alike.
    assert len(found.evaluation.pictures) == 2
    assert found.evaluation.interval() == (1, 1)


def test_a_mask_is_of_its_own_frame_and_no_other(folder: Path, segmenter: Segmenter) -> None:
    (folder / "a" / "3.png").rename(folder / "a" / "4.png")
    found = evaluate_clips(segmenter, folder, steady=False)
    (late, _) = found.clips
    label, mask = scene()[1][3], scene()[1][4]
    counts = ConfusionMatrix.of(label, mask, 3)
    for number in (0, 9):
        counts.merge(ConfusionMatrix.of(scene()[1][number], scene()[1][number], 3))
    assert late.miou == pytest.approx(float(counts.totals.mean_iou()))
    assert late.miou < 0.95


def test_steady_or_frame_by_frame_as_it_is_asked(folder: Path, segmenter: Segmenter) -> None:
    plain = evaluate_clips(segmenter, folder, steady=False)
    steady = evaluate_clips(segmenter, folder)
    assert (plain.steady, steady.steady) == (False, True)
    assert steady.evaluation.protocol["steady"] is True
    assert 0.8 < steady.miou < 1  # grain is averaged away, and the square with it for a while


def test_ignored_pixels_and_classes_that_one_side_lacks(folder: Path, segmenter: Segmenter) -> None:
    (folder / "labels.txt").write_text("green\nsky\nred")
    truth = scene()[1][3].copy()
    truth[:5] = 255
    write_masks(folder / "a", [(3, truth)], "{}.png")
    found = evaluate_clips(segmenter, folder, steady=False)
    assert found.evaluation.shared == (0, 2)
    assert found.evaluation.confusion.counts.sum() == 7 * SIDE**2 - 5 * SIDE
    assert found.miou == 1  # of green and red
    assert found.to_dict()["protocol"]["scored classes"] == ["green", "red"]


@pytest.mark.parametrize("name", ["turned.mp4", "variable.mp4", "stream.ts"])
def test_frames_have_the_numbers_that_ffmpeg_gives_them(
    clips: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=65))
    segmenter = Segmenter(path, labels=LabelSet(("a", "b", "c", "d")), threads=1)
    root = tmp_path / "set"
    masks = root / Path(name).stem
    (tmp_path / "frames").mkdir()
    masks.mkdir(parents=True)
    shutil.copy(clips / name, root)
    (root / "labels.txt").write_text("a\nb\nc\nd")
    numbered = tmp_path / "frames" / "%06d.png"
    ffmpeg("-i", clips / name, "-fps_mode", "passthrough", "-start_number", "0", numbered)
    for picture in sorted((tmp_path / "frames").iterdir()):
        Image.fromarray(segmenter(picture).mask).save(masks / picture.name)
    found = evaluate_clips(segmenter, root, steady=False)
    assert found.clips[0].labelled == found.clips[0].frames > 20
    assert found.evaluation.accuracy > 0.995  # swscale rounds colours in two ways
    for mask in sorted(masks.iterdir())[1:]:
        mask.rename(masks / f"{int(mask.stem) - 1:06}.png")
    assert evaluate_clips(segmenter, root, steady=False).evaluation.accuracy < 0.99


def test_a_damaged_clip_is_refused(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=65))
    shutil.copy(clips / "damaged.mp4", tmp_path)
    write_masks(tmp_path / "damaged", [(3, np.zeros((96, 128), np.uint8))])
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd")
    segmenter = Segmenter(path, labels=LabelSet(("a", "b", "c", "d")), threads=1)
    with pytest.raises(DataError, match="frames are damaged, so that nobody can say which frame"):
        evaluate_clips(segmenter, tmp_path)


def no_clip(root: Path) -> None:
    (root / "a.mkv").unlink()
    shutil.rmtree(root / "far")


def no_mask(root: Path) -> None:
    shutil.rmtree(root / "a")
    shutil.rmtree(root / "far" / "b.masks")


def other_size(root: Path) -> None:
    write_masks(root / "a", [(5, np.zeros((SIDE, SIDE + 1), np.uint8))])


def told(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "dataset.toml").write_text(f"{text}\n")


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "no such folder; expected a folder of clips"),
    (no_clip, r"there are no clips; .*Passed over: 3 \.png"),
    (no_mask, r"no frame is labelled\. The mask of frame 12 of a\.mkv.* at a/000012\.png"),
    (lambda root: (root / "labels.txt").unlink(), "nothing says what the masks mean"),
    (
        lambda root: write_masks(root / "a", [(10, scene()[1][0])]),
        r"none for the masks 000010\.png",
    ),
    (lambda root: write_masks(root / "a", [(3, scene()[1][3])]), "3.png is of frame 3, too"),
    (lambda root: write_masks(root / "a", [(1, scene()[1][0])], "f{}.png"), "after a frame"),
    (lambda root: write_masks(root / "a.masks", [(1, scene()[1][1])]), "in a/ and in a.masks/"),
    (lambda root: shutil.copy(root / "a.mkv", root / "a.mov"), "belongs to a.mkv and to a.mov"),
    (other_size, r"the mask has 64×65 pixels, its frame of a\.mkv, upright, 64×64"),
    (lambda root: write_masks(root / "a", [(2, 7 + scene()[1][0])]), "a value that is no class"),
    (told('splits = { val = "val.txt" }'), "'splits' is of photos"),
    (told('mask_suffix = "_mask"'), "'mask_suffix' is of photos"),
]


@pytest.mark.parametrize(("spoil", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_in_words(
    folder: Path, segmenter: Segmenter, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=words):
        evaluate_clips(segmenter, folder, steady=False)


def test_the_values_of_masks_are_those_of_dataset_toml(folder: Path) -> None:
    told('classes = ["green", "blue", "red"]\nvalues = [0, 1, 7]\nignore = 2')(folder)
    clips = open_clips(folder)
    assert clips.labels.names == DATA
    assert clips.encoding.values == (0, 1, 7)
    assert list(clips.clips[0].masks) == [0, 3, 9]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], brightest: Path) -> Run:
    def run_one(*words: str | Path) -> tuple[int, str, str]:
        model = [str(brightest), "--labels", str(brightest.parent / "rgb.txt")]
        code = cli.run(["evaluate", *model, *map(str, words)])
        return code, *capfd.readouterr()

    return run_one


def test_the_command(run: Run, folder: Path) -> None:
    (folder / "notes.md").touch()
    code, out, err = run(folder, "--video", "--no-steady", "--classes", "red")
    assert code == 0, err
    assert "brightest.tflite on clips (2), labelled frames: 7, frame by frame" in " ".join(
        out.split()
    )
    assert "a.mkv: 10 frames, 3 labelled, mIoU 100.00%, flicker 0.00%" in out
    assert "flicker of all, frame by frame: 0.00%" in out
    assert "passed over: 1 .md" in err
    code, out, err = run(folder, "--video", "--json", "--trimap", "2", "--classes", "red,blue")
    assert code == 0, err
    found = json.loads(out)
    assert found["steady"] is True
    assert found["miou"] > 0.8
    assert found["trimap_miou"]["2"] > 0.8
    assert found["subset"]["classes"] == ["red", "blue"]
    assert [clip["labelled"] for clip in found["clips"]] == [3, 4]
    assert found["protocol"]["labelled frames"] == 7
    assert found["passed_over"] == {".md": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--video --tile auto --scales 0.5,1 --flip", "--scales, --flip, --tile: not with --video"),
        ("--video --split val --report x", "--split, --report: not with --video"),
        ("--video --calibration --server voc", "--calibration, --server: not with --video"),
        ("--video --classes cat", "no class 'cat'"),
        ("--no-steady", "--steady, --no-steady: is of clips; with --video"),
    ],
)
def test_options_that_make_no_sense(run: Run, folder: Path, options: str, words: str) -> None:
    code, out, err = run(folder, *options.split())
    assert (code, out) == (2, "")
    assert words in err


def test_without_the_extra(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, out, err = run(folder, "--video")
    assert (code, out) == (2, "")
    assert "deeplab[video]" in err


def test_a_label_map_is_not_smoothed_and_that_is_said(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.tflite"
    path.write_bytes(tiny_network(classes=3, frame=65, resize=False, argmax=True))
    labels = tmp_path / "rgb.txt"
    labels.write_text("\n".join(NETWORK))
    words = ["evaluate", str(path), str(folder), "--video", "--labels", str(labels), "--json"]
    assert cli.run(words) == 0
    out, err = capfd.readouterr()
    assert "gives a label map only; its masks are not smoothed" in err
    assert json.loads(out)["steady"] is False
    (folder / "labels.txt").write_text("green\nsky\nred")
    assert cli.run(words) == 0
    told = "Scored: the 2 classes that network and data share by name. Not of the network: sky; not"
    assert told in " ".join(capfd.readouterr().err.split())


@pytest.mark.integration
def test_the_scores_are_those_of_masks_made_by_hand(tmp_path: Path) -> None:
    segmenter = Segmenter("voc-fast", threads=1)
    clip = make_clip("walk", segmenter, count=8)
    write_clip(tmp_path / "walk.mkv", clip.frames)
    write_masks(tmp_path / "walk", [(n, clip.truth[n]) for n in (2, 5, 7)])
    (tmp_path / "labels.txt").write_text("\n".join(VOC.names))
    for steady, masks in zip((False, True), masks_of(clip, segmenter), strict=True):
        wanted = ConfusionMatrix(21)
        for number in (2, 5, 7):
            wanted.merge(ConfusionMatrix.of(clip.truth[number], masks[number], 21))
        found = evaluate_clips(segmenter, tmp_path, steady=steady)
        assert np.array_equal(found.evaluation.confusion.counts, wanted.counts)
        assert found.flicker is not None
