from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import cli
from deeplab.labels import VOC
from deeplab.zoo.example_photos import list_example_photos

EXAMPLES = Path(__file__).parents[2] / "examples" / "photos"
CAT = str(EXAMPLES / "cat.jpg")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line: (exit code, stdout, our lines of stderr)."""

    def run_one(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        ours = [line for line in err.splitlines() if not line.startswith("INFO: ")]
        return code, out, "\n".join(ours)

    return run_one


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the commands with the package alone, as after the installation."""
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)


@pytest.fixture
def models(reference: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(reference / "models"))
    return reference / "models"


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


# --- words for wrong command lines (no model needed) ------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segmnt", CAT], "Did you mean 'segment'"),
        (["segment"], "Missing argument"),
        (["segment", CAT, "--treads", "2"], "--threads"),
        (["segment", CAT, "--threads", "0"], "--threads"),
        (["segment", CAT, "--threads", "two"], "--threads"),
        (["segment", CAT, "--save", "overlai"], "Did you mean 'overlay'"),
        (["segment", CAT, "--save", "none,mask"], "'none' stands alone"),
        (["segment", CAT, "--save", ","], "expected names"),
        (["segment", CAT, "--save", ""], "expected names"),
        (["segment", ""], "got an empty path"),
        (["segment", CAT, "--runtime", "openvin"], "Did you mean 'openvino'"),
        (["segment", CAT, "--fit", "leterbox"], "Did you mean 'letterbox'"),
        (["segment", CAT, "-m", "vocc"], "Did you mean 'voc'"),
        (["segment", CAT, "-m", "no/model.tflite"], "no file no/model.tflite"),
        (["segment", CAT, "-m", "torchvision-resnet50"], "deeplab import"),
        (["segment", "nothing.jpg"], "no file or folder nothing.jpg"),
        (["segment", CAT.replace("cat", "catt")], "Did you mean 'cat.jpg'"),
        (["segment", "nowhere/a.jpg"], "nowhere does not exist either"),
        (["models", "show", "cityscape"], "Did you mean 'cityscapes'"),
        (["models", "lst"], "Did you mean 'list'"),
    ],
)
def test_a_wrong_command_line_ends_with_one_line_and_code_2(
    arguments: list[str], words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1
    assert err.startswith("deeplab: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(ValueError, match="no file or folder"):
        run("segment", "nothing.jpg", "--debug")


def test_help_and_version_come_without_loading_a_network() -> None:
    script = (
        "import sys; from deeplab import cli; code = cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'PIL', 'ai_edge_litert', 'pooch'} & {*sys.modules};"
        "assert not heavy, heavy; sys.exit(code)"
    )
    for arguments in (["--version"], ["--help"], ["segment", "--help"], ["models", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "eep" in done.stdout


def test_a_folder_without_pictures(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.jpg").write_text("no picture")
    code, _, err = run("segment", tmp_path)
    assert code == 2
    assert f"the folder {tmp_path} has no pictures" in err


def test_texts_beside_photos_are_counted_but_make_no_noise(run: Run, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path / "cat.jpg")
    for name in ("LICENSE", "LICENSES.md", "notes.txt"):
        (tmp_path / name).write_text("who took them")
    code, out, err = run("segment", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["passed_over"] == {"licences and the like": 1, ".md": 1, ".txt": 1}
    assert "passed over" not in err
    (tmp_path / "raw").write_text("what is it?")
    _, _, err = run("segment", tmp_path, "-o", tmp_path / "out", "--save", "none")
    assert "1 without suffix" in err
    assert "1 .txt" in err


def test_what_is_passed_over_is_counted_and_said(run: Run, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path / "cat.jfif")
    for name in ("a.nef", "b.nef", "notes.txt"):
        (tmp_path / name).write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")
    code, _, err = run("segment", tmp_path, "-o", tmp_path / "out", "--save", "none")
    assert code == 0
    assert "passed over: 2 .nef (a camera's raw files: export them as JPEG), 1 " in err
    assert "1 .txt" in err
    assert "1 pipes and devices" in err
    (tmp_path / "cat.jfif").unlink()
    for photos in ([tmp_path], [tmp_path / "pipe.jpg"], [f"{tmp_path}/*.jpg"]):
        code, _, err = run("segment", *photos, "-m", "no-such-model")
        assert code == 2
        assert "pipes and devices" in err or "there is no file or folder" in err


def test_a_link_that_leads_nowhere_is_told(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "gone.jpg")
    for photos in ([link], [CAT, link], [CAT, f"{tmp_path}/*.jpg"]):
        code, _, err = run("segment", *photos, "-m", "no-such-model", "-o", tmp_path / "out")
        assert code == 2
        assert "there is no file or folder" in err


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        code, out, err = run("segment", CAT, "-o", output, "-m", "no-such-model")
        assert code == 2
        assert out == ""
        assert f"cannot write into the folder {output}" in err  # before the model is even named


def test_files_that_are_there_are_kept(run: Run, tmp_path: Path) -> None:
    mask = tmp_path / "cat.mask.png"
    mask.write_text("corrected by hand")
    code, _, err = run("segment", CAT, "-o", tmp_path)
    assert code == 2
    assert f"{mask} exists already" in err
    assert "--overwrite" in err
    assert mask.read_text() == "corrected by hand"
    assert list(tmp_path.iterdir()) == [mask]


def test_two_photos_for_one_file_are_refused(run: Run, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(CAT, tmp_path / folder / "cat.jpg")
    code, _, err = run("segment", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert code == 2
    assert "would both write" in err


# --- real work --------------------------------------------------------------------------------

needs_reference = pytest.mark.reference


def test_everything_that_can_be_saved(run: Run, tmp_path: Path) -> None:
    kinds = "overlay,mask,contour,cutout,blur,json,probabilities,confidence"
    code, out, err = run("segment", CAT, "-o", tmp_path, "--save", kinds)
    assert (code, err) == (0, "")
    assert "cat" in out
    assert "decode" in out
    assert "network" in out
    suffixes = ("overlay.jpg", "mask.png", "contour.jpg", "cutout.png", "blur.jpg", "json",
                "probabilities.npz", "confidence.png")  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {f"cat.{suffix}" for suffix in suffixes}
    with Image.open(CAT) as photo:
        size = photo.size
    for name in ("overlay.jpg", "mask.png", "contour.jpg", "cutout.png", "blur.jpg"):
        with Image.open(tmp_path / f"cat.{name}") as picture:
            assert picture.size == size
    with Image.open(tmp_path / "cat.mask.png") as picture:
        assert picture.mode == "P"
        mask = np.asarray(picture)
    assert set(np.unique(mask)) <= {0, 8}
    with Image.open(tmp_path / "cat.cutout.png") as picture:
        alpha = np.asarray(picture)[..., 3]
        assert ((alpha > 127) == (mask == 8)).mean() > 0.95
        assert ((alpha > 0) & (alpha < 255)).any(), "its edge is soft"
    with np.load(tmp_path / "cat.probabilities.npz") as probabilities:
        assert {*probabilities} == {VOC.names[i] for i in np.unique(mask)}
        lead = probabilities["cat"].astype(float) - probabilities["background"]
        assert np.array_equal(lead[abs(lead) > 1e-3] > 0, mask[abs(lead) > 1e-3] == 8)
    content = json.loads((tmp_path / "cat.json").read_text("utf-8"))
    assert content["photo"] == "cat.jpg"
    assert content["classes"][0]["name"] == "cat"
    assert content["classes"][0]["share"] == pytest.approx((mask == 8).mean())


def test_json_is_all_that_stdout_gets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("segment", EXAMPLES, "--json")
    assert code == 0
    found = {Path(entry["photo"]).name: entry for entry in json.loads(out)["photos"]}
    assert [*found] == [path.name for path in list_example_photos()]
    main = {name: entry["classes"] for name, entry in found.items()}
    share = {name: {c["name"]: c["share"] for c in classes} for name, classes in main.items()}
    assert 0.4 < share["astronaut.jpg"]["person"] < 0.5
    assert share["cat.jpg"]["cat"] > 0.7
    assert 0.25 < share["dog.jpg"]["dog"] < 0.4
    assert 0.25 < share["photographer.jpg"]["person"] < 0.35
    assert {"decode", "network", "mask"} <= {*found["cat.jpg"]["timings_ms"]}
    assert list(tmp_path.iterdir()) == []  # nothing is written unless it is asked for


def test_the_number_of_workers_changes_nothing(run: Run, tmp_path: Path) -> None:
    for workers in (1, 3):
        code, _, _ = run("segment", EXAMPLES, "-o", tmp_path / str(workers), "--workers", workers,
                         "--save", "mask,overlay,cutout,json,probabilities")  # fmt: skip
        assert code == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "1")) == len(list_example_photos()) * 5


def test_bad_files_are_reported_and_the_rest_go_on(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "Fotos für später"
    (photos / "unter ordner").mkdir(parents=True)
    shutil.copy(CAT, photos / "unter ordner" / "Кошка 猫.jpg")
    data = Path(CAT).read_bytes()
    (photos / "cut off.jpg").write_bytes(data[: len(data) // 2])
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("this is no picture")
    code, out, err = run("segment", photos, "-o", tmp_path / "out", "--save", "mask,overlay")
    assert code == 1
    assert "Кошка 猫.jpg: " in out
    for name in ("cut off.jpg", "empty.png", "text.jpg"):
        assert name in err
    assert "3 of 4 photos could not be done" in err
    assert {*contents(tmp_path / "out")} == {
        "unter ordner/Кошка 猫.mask.png", "unter ordner/Кошка 猫.overlay.jpg"
    }  # fmt: skip


def test_a_single_bad_photo(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is no picture")
    code, out, err = run("segment", tmp_path / "text.jpg", "-o", tmp_path / "out", "--json")
    assert code == 1
    assert "error" in json.loads(out)["photos"][0]
    assert "text.jpg" in err
    assert contents(tmp_path / "out") == {}


def test_photos_of_the_same_stem_keep_their_suffix(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(CAT, photos / "cat.jpg")
    with Image.open(CAT) as picture:
        picture.save(photos / "cat.png")
    code, _, _ = run("segment", f"{photos}/*", "-o", tmp_path / "out", "--save", "mask")
    assert code == 0
    assert {*contents(tmp_path / "out")} == {"cat.jpg.mask.png", "cat.png.mask.png"}


def test_unknown_pixels_get_an_id_of_their_own(run: Run, tmp_path: Path) -> None:
    assert run("segment", CAT, "-o", tmp_path / "plain", "--save", "mask")[0] == 0
    code, out, err = run("segment", CAT, "-o", tmp_path, "--save", "mask,json", "--unknown", "0.6")
    assert (code, err) == (0, "")
    assert "unknown" in out
    with Image.open(tmp_path / "cat.mask.png") as picture:
        marked = np.asarray(picture)
        palette = picture.getpalette()
        assert palette is not None
        assert palette[3 * 255 :] == [224, 224, 192]
    with Image.open(tmp_path / "plain" / "cat.mask.png") as picture:
        plain = np.asarray(picture)
    assert 0 < (marked == 255).mean() < 0.2
    assert np.array_equal(marked[marked != 255], plain[marked != 255])
    told = json.loads((tmp_path / "cat.json").read_text())["classes"]
    assert [one["id"] for one in told if one["name"] == "unknown"] == [255]


def test_looks_that_a_model_cannot_take_are_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("segment", CAT, "-o", tmp_path, "--scales", "0.5,1", "-m", "voc-fast")
    assert code == 2
    assert "so it has one scale. --flip" in err
    code, _, err = run("segment", CAT, "-o", tmp_path, "--unknown", "2")
    assert (code, "expected above 0, at most 1" in err) == (2, True)


def test_only_keeps_the_classes_that_are_named(run: Run, tmp_path: Path) -> None:
    photo = EXAMPLES / "photographer.jpg"
    code, out, _ = run("segment", photo, "-o", tmp_path, "--save", "mask", "--only", "person")
    assert code == 0
    assert "chair" not in out
    with Image.open(tmp_path / "photographer.mask.png") as picture:
        assert {*np.unique(np.asarray(picture))} == {0, 15}
    for nothing, words in (("", "expected names"), ("background", "name objects")):
        code, _, err = run("segment", photo, "--only", nothing, "--save", "none")
        assert code == 2
        assert words in err
    code, _, err = run("segment", photo, "--only", "persn", "--save", "none")
    assert code == 2
    assert "Did you mean 'person'" in err


@needs_reference
def test_streets_have_no_background_to_cut_away(run: Run, models: Path, tmp_path: Path) -> None:
    arguments = ["segment", CAT, "-m", "cityscapes", "-o", tmp_path, "--save", "cutout,mask"]
    code, _, err = run(*arguments)
    assert code == 2
    assert "--only" in err
    code, _, _ = run(*arguments, "--only", "person,car")
    assert code == 0
    assert {*contents(tmp_path)} == {"cat.cutout.png", "cat.mask.png"}


def test_overwrite_replaces(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cat.mask.png").write_text("old")
    code, _, _ = run("segment", CAT, "-o", tmp_path, "--save", "mask", "--overwrite")
    assert code == 0
    assert (tmp_path / "cat.mask.png").read_bytes().startswith(b"\x89PNG")


def test_outputs_inside_the_input_folder_are_not_segmented_again(run: Run, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path)
    for _ in range(2):
        code, _, _ = run("segment", tmp_path, "-o", tmp_path / "out", "--overwrite")
        assert code == 0
    assert {*contents(tmp_path / "out")} == {"cat.mask.png", "cat.overlay.jpg"}


def test_results_beside_their_photos_are_not_segmented_again(run: Run, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path / "cat.jpg")
    shutil.copy(CAT, tmp_path / "dog.mask.png")  # nobody's result: there is no photo "dog"
    for _ in range(2):
        code, _, _ = run("segment", tmp_path, "-o", tmp_path, "--overwrite", "--save", "mask")
        assert code == 0
        assert {*contents(tmp_path)} == {
            "cat.jpg", "cat.mask.png", "dog.mask.png", "dog.mask.mask.png"
        }  # fmt: skip


def test_names_that_are_no_text(run: Run, tmp_path: Path) -> None:
    photo = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        shutil.copy(CAT, photo)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    code, _, err = run("segment", tmp_path, "-o", tmp_path / "out", "--save", "json,mask")
    assert (code, err) == (0, "")
    (written,) = (tmp_path / "out").glob("*.json")
    assert json.loads(written.read_bytes())["photo"] == "caf?.jpg"


def test_a_full_disk_leaves_no_half_of_a_picture(tmp_path: Path) -> None:
    # A limit on the size of files does what a full disk does: the first part of a write goes
    # through, the rest does not.
    pytest.importorskip("resource")
    script = (
        "import resource, signal, sys; from deeplab import cli;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "sys.exit(cli.run(sys.argv[1:]))"
    )
    for kind in ("overlay", "cutout", "probabilities"):
        folder = tmp_path / kind
        command = [sys.executable, "-c", script, "segment", CAT, "-o", folder, "--save", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert f"cannot write {folder}/cat.{kind}" in done.stderr
        assert list(folder.iterdir()) == []


@needs_reference
def test_a_model_that_is_none(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("this is no model")
    whole = (models / "deeplabv3_257_mv_gpu.tflite").read_bytes()
    (tmp_path / "short.tflite").write_bytes(whole[: len(whole) // 2])
    classifier = models / "mobilenet_v2_1.0_224_quant.tflite"
    for model in (tmp_path / "text.tflite", tmp_path / "short.tflite", classifier):
        code, out, err = run("segment", CAT, "-m", model, "-o", tmp_path / "out")
        assert (code, out) == (2, "")
        assert model.name in err
        assert contents(tmp_path / "out") == {}


def test_labels_of_another_count_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("background\ncat\n")
    code, _, err = run("segment", CAT, "--labels", tmp_path / "labels.txt", "--save", "none")
    assert code == 2
    assert "2 names" in err
    code, _, err = run("segment", CAT, "--labels", "cityscape", "--save", "none")
    assert code == 2
    assert "Did you mean 'cityscapes'" in err


@pytest.mark.integration
def test_the_command_as_a_process(tmp_path: Path) -> None:
    script = "from deeplab.cli import main; main()"
    command = [sys.executable, "-c", script, "segment", CAT, "--save", "overlay"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO((tmp_path / "segmented" / "cat.overlay.jpg").read_bytes())) as photo:
        assert photo.size == (451, 300)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert again.returncode == 2
    assert b"exists already" in again.stderr
    assert b"Traceback" not in again.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    ("ending", "code"), [("> /dev/full", {1, 2}), (">&-", {0, 1}), ("| true", {0})]
)
def test_a_standard_output_that_takes_nothing(ending: str, code: set[int]) -> None:
    command = f'"{sys.executable}" -c "from deeplab.cli import main; main()" models list {ending}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode in code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_crf_sharpens_edges(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    code, out, _ = run("segment", CAT, "-o", tmp_path, "--save", "mask", "--crf")
    assert code == 0
    assert "crf" in out


def test_two_commands_do_not_write_into_one_folder(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    hold = (
        "import sys, pathlib; from deeplab.cli.outputs import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(out)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        code, _, err = run("segment", CAT, "-o", out)
        assert code == 2
        assert f"another command is writing into {out}" in err
        assert list(out.iterdir()) == []
        other.kill()
    code, _, _ = run("segment", CAT, "-o", out, "--save", "mask")
    assert code == 0
    assert [path.name for path in out.iterdir()] == ["cat.mask.png"]
