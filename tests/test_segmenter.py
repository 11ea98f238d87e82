"""Photo in, mask out: the whole way, its results, its files and its errors."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.errors import (
    DeepLabError,
    ImageError,
    ImageFormatError,
    InputError,
    ModelError,
    ModelNotFoundError,
    OutputError,
)
from deeplab.labels import CITYSCAPES, VOC, LabelSet
from deeplab.photo.images import read
from deeplab.photo.results import Segmentation
from tiny_tflite import tiny_network, with_files

LABELS = LabelSet(("ground", "cat", "dog", "tree"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4))
    return path


@pytest.fixture
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model, labels=LABELS, threads=1)


@pytest.fixture
def photo() -> np.ndarray:
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((140, 90), Image.Resampling.BICUBIC))


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


# --- results ----------------------------------------------------------------------------------


def test_the_result_has_the_photos_size_and_adds_up(
    segmenter: Segmenter, photo: np.ndarray
) -> None:
    result = segmenter(photo)
    assert result.mask.shape == (90, 140)
    assert result.mask.dtype == np.uint8
    assert sum(result.shares.values()) == pytest.approx(1)
    assert list(result.shares.values()) == sorted(result.shares.values(), reverse=True)
    for name, share in result.shares.items():
        assert share == (result.mask == LABELS.index(name)).mean()
    assert set(result.timings) == {"decode", "network", "mask"}
    assert all(ms >= 0 for ms in result.timings.values())


def test_probabilities_agree_with_the_mask(segmenter: Segmenter, photo: np.ndarray) -> None:
    result = segmenter(photo)
    planes = result.probabilities(LABELS.names)
    stack = np.stack(list(planes.values()), axis=2)
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack.sum(axis=2), 1, atol=1e-5)
    top = np.sort(stack, axis=2)
    clear = top[:, :, -1] - top[:, :, -2] > 1e-5
    assert (stack.argmax(axis=2) == result.mask)[clear].all()
    assert (result.probability("CAT") == planes["cat"]).all()
    assert set(result.probabilities()) == set(result.shares)
    with pytest.raises(InputError, match="Did you mean 'tree'"):
        result.probability("treee")


def test_every_kind_of_source_gives_the_same_mask(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "ein foto ü.png"
    path.write_bytes(encoded(photo))
    masks = [segmenter(s).mask for s in (photo, path, str(path), path.read_bytes(),
                                         Image.fromarray(photo))]  # fmt: skip
    assert all((mask == masks[0]).all() for mask in masks)


def test_fit_changes_the_frame_not_the_size(model: Path, photo: np.ndarray) -> None:
    letterbox, stretch = (
        Segmenter(model, labels=LABELS, fit=fit)(photo) for fit in ("letterbox", "stretch")
    )
    assert letterbox.geometry.content == (21, 33)
    assert stretch.geometry.content == (33, 33)
    assert letterbox.mask.shape == stretch.mask.shape == (90, 140)


def test_one_pixel_and_a_long_strip(segmenter: Segmenter) -> None:
    assert segmenter(np.zeros((1, 1, 3), np.uint8)).mask.shape == (1, 1)
    assert segmenter(np.zeros((6, 2000, 3), np.uint8)).mask.shape == (6, 2000)


def test_a_label_map_is_enlarged_by_nearest_neighbour(
    tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deeplab.runtimes import litert

    path = tmp_path / "map.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4, argmax=True))
    whole = litert.open(path, threads=1, whole=True)
    monkeypatch.setattr("deeplab.segmenter.open_network", lambda *_, **__: whole)
    segmenter = Segmenter(path, labels=LABELS)
    result = segmenter(photo)
    frame = result.geometry.place(Image.fromarray(photo), (127, 127, 127))
    small = Image.fromarray(whole(frame)[: result.geometry.content[0]])
    assert (result.mask == np.asarray(small.resize((140, 90), Image.Resampling.NEAREST))).all()
    with pytest.raises(InputError, match="gives a label map, no probabilities"):
        result.probability("cat")


# --- files ------------------------------------------------------------------------------------


def test_the_saved_mask_is_the_mask(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    result = segmenter(photo)
    path = tmp_path / "mask.png"
    path.write_text("an older file")
    result.save_mask(path)
    with Image.open(path) as saved:
        assert saved.mode == "P"
        assert (np.asarray(saved) == result.mask).all()
        assert (np.asarray(saved.convert("RGB")) == LABELS.palette[result.mask]).all()
    assert [p.name for p in tmp_path.glob("*.png")] == ["mask.png"]
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_saved_probabilities(segmenter: Segmenter, photo: np.ndarray, tmp_path: Path) -> None:
    result = segmenter(photo)
    result.save_probabilities(tmp_path / "p.npz", ["cat", "dog"])
    with np.load(tmp_path / "p.npz") as saved:
        assert set(saved.files) == {"cat", "dog"}
        np.testing.assert_allclose(saved["cat"], result.probability("cat"), atol=1e-3)


def test_json_holds_the_whole_mask(segmenter: Segmenter, photo: np.ndarray) -> None:
    result = segmenter(photo)
    read_back = json.loads(result.to_json())
    mask = np.full((90, 140), 255, np.uint8)
    for entry in read_back["classes"]:
        counts = entry["segmentation"]["counts"]
        inside = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
        flat = mask.T.reshape(-1).copy()
        flat[: len(inside)][inside] = entry["id"]
        mask = flat.reshape(140, 90).T
        assert entry["colour"] == list(LABELS.colours[entry["id"]])
    assert (mask == result.mask).all()
    assert (read_back["height"], read_back["width"]) == (90, 140)


def test_a_file_that_cannot_be_written(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = segmenter(photo)
    with pytest.raises(OutputError, match="there is no folder"):
        result.save_mask(tmp_path / "nowhere" / "mask.png")
    with pytest.raises(OutputError, match="is a folder"):
        result.save_mask(tmp_path)
    with pytest.raises(OutputError, match=r"Name it \.png"):
        result.save_mask(tmp_path / "mask.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        result.save_mask(tmp_path / "file" / "mask.png")
    old = tmp_path / "mask.png"
    old.write_text("old")

    def disk_full(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OutputError, match=r"mask\.png: No space left"):
        result.save_mask(old)
    assert old.read_text() == "old", "the file that was there stays"
    assert not list(tmp_path.glob(".*"))


def test_pictures_have_the_photos_size(segmenter: Segmenter, photo: np.ndarray) -> None:
    result = segmenter(encoded(photo))
    assert result.overlay().size == (140, 90)
    assert result.contour().size == (140, 90)
    assert result.cutout(["cat"]).mode == "RGBA"
    assert result.blur_background(["cat"]).size == (140, 90)
    assert result.replace_background((1, 2, 3), ["cat"]).size == (140, 90)


# --- many photos ------------------------------------------------------------------------------


def test_map_keeps_the_order_and_does_not_depend_on_the_workers(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (9 + i, 40 - i, 3), dtype=np.uint8) for i in range(17)]
    wanted = [segmenter(photo).mask for photo in photos]
    for workers in (None, 1, 3):
        got = list(segmenter.map(photos, workers=workers))
        assert len(got) == 17
        assert all((r.mask == mask).all() for r, mask in zip(got, wanted, strict=True))


def test_map_is_lazy_and_can_be_left(segmenter: Segmenter, photo: np.ndarray) -> None:
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield photo

    results = segmenter.map(endless(), workers=2)
    next(results)
    results.close()
    assert len(taken) <= 6


def test_map_works_on_as_many_photos_as_there_is_memory_for(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most = 0, 0
    lock, inner = threading.Lock(), Segmenter._segment

    def counted(self: Segmenter, *arguments: object) -> Segmentation:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        try:
            return inner(self, *arguments)
        finally:
            with lock:
                at_work -= 1

    monkeypatch.setattr(Segmenter, "_segment", counted)
    photos = [np.zeros((700, 700, 3), np.uint8)] * 6
    assert len(list(segmenter.map(photos, workers=3, memory="6MB"))) == 6
    assert most == 1
    with pytest.raises(ImageError, match=r"the photo: the photo needs about 5 MB .* --tile auto"):
        list(segmenter.map(photos, workers=3, memory=2_000_000))
    left = list(segmenter.map([encoded(photos[0])], memory=2_000_000, on_error="yield"))
    assert isinstance(left[0], ImageError)


def test_map_and_errors(segmenter: Segmenter, photo: np.ndarray) -> None:
    photos = [photo, b"no photo", photo]
    results = list(segmenter.map(photos, on_error="yield"))
    assert [type(r) for r in results] == [Segmentation, ImageFormatError, Segmentation]
    assert isinstance(results[1], DeepLabError)
    with pytest.raises(ImageError):
        list(segmenter.map(photos))
    with pytest.raises(InputError, match="workers: got 0"):
        segmenter.map(photos, workers=0)
    with pytest.raises(InputError, match="on_error: got 'ignore'"):
        segmenter.map(photos, on_error="ignore")
    with pytest.raises(InputError, match="photos: got one str"):
        segmenter.map("photo.jpg")
    assert list(segmenter.map([])) == []


@pytest.mark.parametrize("streams", [1, 3])
def test_one_segmenter_in_many_threads(model: Path, streams: int) -> None:
    segmenter = Segmenter(model, labels=LABELS, threads=1, streams=streams, exact=True)
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (30, 30, 3), dtype=np.uint8) for _ in range(8)]
    wanted = [segmenter(photo).mask for photo in photos]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        for _ in range(5):
            got[i] = segmenter(photos[i]).mask

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((got[i] == wanted[i]).all() for i in range(8))


def test_a_bad_photo_leaves_the_segmenter_usable(segmenter: Segmenter, photo: np.ndarray) -> None:
    before = segmenter(photo).mask
    with pytest.raises(ImageError):
        segmenter(b"no photo")
    assert (segmenter(photo).mask == before).all()


# --- models and labels ------------------------------------------------------------------------


def test_labels_must_be_known(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its 4 classes are called\. Pass labels="):
        Segmenter(model)
    with pytest.raises(InputError, match=r"got 21 names, but tiny\.tflite tells 4 classes apart"):
        Segmenter(model, labels="voc")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    assert Segmenter(model, labels=tmp_path / "names.txt").labels.names == ("a", "b", "c", "d")
    assert Segmenter(model, labels=str(tmp_path / "names.txt")).labels.names[3] == "d"
    (tmp_path / "names.txt").write_text("a\r\nb\r\nc\r\nd\r\n", "utf-8-sig")  # as Windows writes
    assert Segmenter(model, labels=tmp_path / "names.txt").labels.names == ("a", "b", "c", "d")
    with pytest.raises(InputError, match=r"got list, expected .* LabelSet"):
        Segmenter(model, labels=["a", "b", "c", "d"])
    with pytest.raises(InputError, match=r"no label file.*Did you mean 'cityscapes'"):
        Segmenter(model, labels="cityscape")


def test_wrong_models(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean"):
        Segmenter("vok")
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        Segmenter(tmp_path / "missing.tflite")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(tiny_network()[:300])
    with pytest.raises(ModelError, match="damaged or cut off"):
        Segmenter(broken, labels=LABELS)
    broken.write_text("text")
    with pytest.raises(ModelError, match="is not a TFLite model"):
        Segmenter(broken, labels=LABELS)
    weights = broken.rename(tmp_path / "frozen_inference_graph.pb")
    with pytest.raises(ModelError, match="deeplab import frozen_inference_graph"):
        Segmenter(weights, labels=LABELS)


def test_a_pickled_segmenter_opens_its_model_again(model: Path) -> None:
    segmenter = Segmenter(model, labels=LABELS, threads=1, exact=True)
    again = pickle.loads(pickle.dumps(segmenter))
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert again.labels == segmenter.labels
    assert again.spec == segmenter.spec
    assert (again(photo).mask == segmenter(photo).mask).all()


def test_wrong_arguments(model: Path) -> None:
    with pytest.raises(InputError, match="threads: got 0"):
        Segmenter(model, labels=LABELS, threads=0)
    with pytest.raises(InputError, match=r"threads: got 2\.5"):
        Segmenter(model, labels=LABELS, threads=2.5)
    with pytest.raises(InputError, match="streams: got 0"):
        Segmenter(model, labels=LABELS, streams=0)
    with pytest.raises(InputError, match="model: got NoneType"):
        Segmenter(None)
    with pytest.raises(ModelNotFoundError, match="no model called 'xxx"):
        Segmenter("x" * 5000)
    with pytest.raises(InputError, match="fit: got 'crop'"):
        Segmenter(model, labels=LABELS, fit="crop")
    with pytest.raises(InputError, match="runtime: got 'cuda'"):
        Segmenter(model, labels=LABELS, runtime="cuda")


def test_files_behind_a_model_do_no_harm(model: Path, photo: np.ndarray) -> None:
    before = Segmenter(model, labels=LABELS)(photo).mask
    model.write_bytes(with_files(model.read_bytes(), {"readme.txt": b"hello"}))
    assert (Segmenter(model, labels=LABELS)(photo).mask == before).all()


# --- against the original's files -------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["deeplabv3_257_mv_gpu", "deeplabv3_with_metadata"])
def test_the_golden_mask(name: str, reference: Path) -> None:
    segmenter = Segmenter(reference / "models" / f"{name}.tflite", fit="stretch", threads=2)
    result = segmenter(reference / "golden" / "segmentation_input_rotation0.jpg")
    with Image.open(reference / "golden" / "segmentation_golden_rotation0.png") as golden:
        assert (result.mask == np.asarray(golden) // 10).all()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("deeplabv3_257_mv_gpu", 0.98),
        ("deeplabv3_mnv2_dm05_pascal_quant", 0.95),
        ("deeplabv3_mnv2_pascal_quant", 0.97),
    ],
)
def test_the_dog(name: str, least: float, reference: Path) -> None:
    result = Segmenter(reference / "models" / f"{name}.tflite")(
        reference / "golden" / "dog_segmentation.bmp"
    )
    with Image.open(reference / "golden" / "dog_segmentation_mask.bmp") as file:
        truth = np.asarray(file)  # 0 the animal, 1 the ground, 2 the border between them
    dog = result.mask == VOC.index("dog")
    judged = truth != 2
    union = ((dog | (truth == 0)) & judged).sum()
    assert (dog & (truth == 0)).sum() / union >= least


@pytest.mark.reference
def test_reduced_decoding_hardly_changes_the_mask(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with Image.open(reference / "photos" / "image3.jpg") as small:
        small.resize((4000, 3000), Image.Resampling.BICUBIC).save(path, quality=92)
    model = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    fast, exact = (Segmenter(model, exact=exact)(path) for exact in (False, True))
    assert fast.mask.shape == exact.mask.shape == (3000, 4000)
    assert (fast.mask == exact.mask).mean() >= 0.998


@pytest.mark.reference
@pytest.mark.parametrize(
    ("photo", "classes"),
    [("image1", {"bicycle", "person"}), ("image2", {"dog"}), ("image3", {"person", "horse"})],
)
def test_the_sample_photos(photo: str, classes: set[str], reference: Path) -> None:
    model = reference / "models" / "deeplabv3_mnv2_pascal_quant.tflite"
    result = Segmenter(model)(reference / "photos" / f"{photo}.jpg")
    assert {n for n, share in result.shares.items() if share > 0.01} - {"background"} == classes


@pytest.mark.reference
def test_the_street_network(reference: Path) -> None:
    name = "deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"
    result = Segmenter(reference / "models" / name)(reference / "photos" / "image1.jpg")
    assert result.labels == CITYSCAPES
    assert max(result.shares, key=result.shares.__getitem__) == "vegetation"
    assert {"rider", "bicycle"} <= set(result.shares)


@pytest.mark.reference
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured the Linux way")
def test_a_hundred_megapixels_stay_sane(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with Image.open(reference / "photos" / "image1.jpg") as small:
        small.convert("RGB").resize((12250, 8170)).save(path, quality=80)
    model = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    code = (
        "import deeplab\n"
        f"result = deeplab.Segmenter({str(model)!r}, threads=1)({str(path)!r})\n"
        f"result.save_mask({str(tmp_path / 'mask.png')!r})\n"
        "assert result.mask.shape == (8170, 12250)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400_000, "kilobytes, of which the mask is 97,000"
    assert read(tmp_path / "mask.png").shape == (8170, 12250, 3)


def test_only_pairs_have_variants(model: Path) -> None:
    for variant in ({"size": (65, 65)}, {"output_stride": 8}):
        with pytest.raises(InputError, match="only a release pair"):
            Segmenter(model, labels=LABELS, **variant)
