"""Photos, data sets and Ray Data's batches over the workers of one small Ray cluster."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray_parcels
from PIL import Image

from deeplab import Segmenter
from deeplab.cli import run
from deeplab.errors import DeepLabError
from documents import ROOT, blocks, commands
from tiny_folder import make_folder, photo

ray = pytest.importorskip("ray", reason="needs the extra 'cluster'")

pytestmark = [
    pytest.mark.integration,
    # Ray's own affairs; and sockets that it leaves open when it ends.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start two workers' worth of Ray for all tests here; commands use what is there."""
    settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init("local", num_cpus=2, **settings)
    except Exception:  # a busy machine does not start it within its 30 seconds
        ray.shutdown()
        ray.init("local", num_cpus=2, **settings)
    ray.cloudpickle.register_pickle_by_value(ray_parcels)  # workers do not look into this folder
    yield "local"
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    for index in range(7):
        name = f"below/ü {index}.jpg" if index % 2 else f"{index}.png"
        Image.fromarray(photo(index)).save(folder / name)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what is in every file of a folder, but for what only a cluster writes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".deeplab-segment.json", "failed.jsonl")
    }


def segment(*arguments: object) -> int:
    return run(["segment", *map(str, arguments), "--save", "mask,overlay,json"])


def test_a_cluster_writes_the_same_bytes_and_goes_on_with_what_is_there(
    cluster, photos, work, tmp_path, capsys
):
    mixed = tmp_path / "mixed"
    shutil.copytree(photos, mixed)
    (mixed / "bad.jpg").write_bytes(b"no picture")
    model = ["-m", work / "float.tflite"]
    alone, many = tmp_path / "alone", tmp_path / "many"
    assert segment(mixed, "-o", alone, *model) == 1
    assert segment(mixed, "-o", many, *model, "--cluster", cluster) == 1
    assert files_of(many) == files_of(alone)
    (line,) = map(json.loads, (many / "failed.jsonl").read_text("utf-8").splitlines())
    assert line["photo"] == str(mixed / "bad.jpg")
    assert "bad.jpg" in line["error"]

    (mixed / "bad.jpg").unlink()
    (many / "0.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in many.rglob("*.mask.png")}
    capsys.readouterr()
    assert segment(mixed, "-o", many, *model, "--cluster", cluster) == 0
    assert "6 of 7 photos are done already" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in many.rglob("*.mask.png")}
    assert {path.name for path in after if after[path] != before[path]} == {"0.mask.png"}
    assert files_of(many) == files_of(alone)
    assert (many / "failed.jsonl").read_text() == ""

    # What other settings made is not gone on with, nor what nobody knows the settings of.
    assert segment(mixed, "-o", many, *model, "--fit", "letterbox", "--cluster", cluster) == 2
    assert "made with other settings (fit)" in capsys.readouterr().err
    assert segment(mixed, "-o", alone, *model, "--cluster", cluster) == 2
    assert "nothing says that the same settings made them" in capsys.readouterr().err
    record = json.loads((many / ".deeplab-segment.json").read_text())
    (many / ".deeplab-segment.json").write_text(json.dumps({**record, "unfinished": True}))
    assert segment(mixed, "-o", many, *model, "--cluster", cluster) == 2
    assert "did not end" in capsys.readouterr().err
    assert segment(mixed, "-o", many, *model, "--cluster", cluster, "--overwrite") == 0
    assert files_of(many) == files_of(alone)


def test_whoever_dies_every_item_is_done_once_and_the_deadly_one_is_found(cluster, tmp_path):
    from deeplab.integrations.ray_workers import TRIES, Lost, Needs, spread

    numbers, killed, found = list(range(60)), False, []
    arguments = {"folder": tmp_path, "deadly": 41}
    for number, result in spread(numbers, ray_parcels.open_squares, arguments, needs=Needs()):
        found.append((number, result))
        if len(found) > 10 and not killed:
            os.kill(int(next(iter(tmp_path.iterdir())).name), signal.SIGKILL)
            killed = True
    assert sorted(number for number, _ in found) == numbers
    results = dict(found)
    lost = results.pop(41)
    assert isinstance(lost, Lost)
    assert f"{TRIES} times" in lost.reason
    assert results == {number: number * number for number in numbers if number != 41}


def test_an_error_of_ours_in_a_worker_ends_the_run_in_words(cluster):
    from deeplab.integrations.ray_workers import Needs, spread

    with pytest.raises(DeepLabError, match=r"^on .*: model: there is none\.$"):
        list(spread([1], ray_parcels.open_nothing, {}, needs=Needs()))


def test_scores_over_a_cluster_are_those_of_one_machine(cluster, work, tmp_path, capsys):
    names = ("ground", "tree", "a sheep", "sky")
    data = make_folder(tmp_path / "data", pairs=20)
    (data / "labels.txt").write_text("\n".join(names) + "\n")
    command = ["evaluate", str(work / "float.tflite"), str(data), "--split", "all", "--json"]
    assert run([*command, "--trimap", "2"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert run([*command, "--trimap", "2", "--cluster", cluster]) == 0
    many = json.loads(capsys.readouterr().out)
    for one in (alone, many):
        one.pop("seconds", None)
        one.pop("ms_per_picture", None)
    assert many == alone


def test_ray_data_gets_the_masks_that_a_segmenter_gives(cluster, photos, work):
    from deeplab.integrations.ray import SegmentPhotos

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    segmenter = Segmenter(work / "float.tflite")
    paths = sorted(photos.rglob("*.*"))
    expected = {str(path): segmenter(path).mask for path in paths}
    named = [{"path": str(path)} for path in [*paths, photos / "none.jpg"]]
    rows = ray.data.from_items(named).map_batches(
        SegmentPhotos,
        fn_constructor_kwargs={"model": work / "float.tflite"},
        batch_size=3,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    found = {row["path"]: row for row in rows.take_all()}
    assert found.pop(str(photos / "none.jpg"))["error"]
    assert {*found} == {*expected}
    for path, row in found.items():
        assert row["error"] == ""
        np.testing.assert_array_equal(row["mask"], expected[path])
    pictures = np.empty(2, object)
    pictures[:] = [photo(0), photo(1, 30, 20)]
    batch = SegmentPhotos(work / "float.tflite")({"image": pictures})
    np.testing.assert_array_equal(batch["mask"][1], segmenter(pictures[1]).mask)


def test_the_commands_of_the_page(cluster, photos, work, tmp_path, monkeypatch, capsys):
    page = ROOT / "docs/cluster.md"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    shutil.copy(work / "float.tflite", "mine.tflite")
    data = make_folder(Path("pets"))
    (data / "labels.txt").write_text("ground\ntree\na sheep\nsky\n")
    text = "".join(text for language, text in blocks(page) if language == "console")
    for command in commands(text):
        assert run(shlex.split(command.line)[1:]) == 0, command.line
        told = "".join(capsys.readouterr())
        assert all(part in told for part in command.prints), told
    shutil.copy("photos/0.png", "photo.jpg")
    shutil.copy("photos/0.png", "photos/dog.jpg")
    (code,) = [text for language, text in blocks(page) if language == "python"]
    exec(code, {})
    told = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in told) == ["photo.jpg", "photos/dog.jpg"]


def test_what_a_cluster_does_not_do_is_said(photos, work, tmp_path, capsys, monkeypatch):
    model = ["-m", str(work / "float.tflite")]
    assert run(["segment", str(photos), *model, "--json", "--cluster", "local"]) == 2
    assert "--cluster: writes files" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    command = ["segment", str(photos), *model, "-o", str(tmp_path / "out")]
    assert run([*command, "--cluster", "local"]) == 2
    assert "pip install 'deeplab[cluster]'" in capsys.readouterr().err
