"""The commands with everything elsewhere: a store in memory, and S3 as moto serves it."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile
from PIL import Image

import deeplab
import tiny_folder
from deeplab import cli, zoo
from deeplab.errors import DeepLabError, DownloadError, ImageError, MissingExtraError, OutputError
from deeplab.files import replacing
from deeplab.remote import store
from deeplab.remote.address import Address
from deeplab.remote.copies import keep_file, keep_folder, working_folder
from documents import ROOT, blocks, commands
from documents import run as run_command

EXAMPLES = ROOT / "examples" / "photos"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DEEPLAB_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Serve S3 on loopback, and let every client of this process find it there."""
    moto = pytest.importorskip("moto.server", reason="needs moto, of the extra dev")
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra remote")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> Address:
    """An empty folder elsewhere."""
    name = f"deeplab-{uuid.uuid4().hex[:8]}"
    if request.param == "s3":
        request.getfixturevalue("s3")
        fsspec.filesystem("s3").mkdir(name)
    return Address(f"{request.param}://{name}")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: object) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run_one


def put(folder: Path, address: Address) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_file(path, address / path.relative_to(folder).as_posix())


def fetched(address: Address) -> dict[str, bytes]:
    return {
        str(file.relative_to(address)): store.read_bytes(file) for file in store.list_files(address)
    }


def test_segment_writes_the_same_bytes_as_on_this_machine(run, root, tmp_path):
    photos = tmp_path / "photos"
    (photos / "b ü").mkdir(parents=True)
    (photos / "cat 1.jpg").write_bytes((EXAMPLES / "cat.jpg").read_bytes())
    (photos / "b ü" / "dog.jpg").write_bytes((EXAMPLES / "dog.jpg").read_bytes())
    (photos / "b ü" / "notes.bin").write_text("no photo")
    put(photos, root / "photos")
    kinds = "overlay,mask,json,cutout"
    code, _, _ = run("segment", photos, "-o", tmp_path / "out", "--save", kinds, "-m", "voc-fast")
    assert code == 0
    code, out, err = run(
        "segment", root / "photos", "-o", root / "out", "--save", kinds, "-m", "voc-fast"
    )
    assert code == 0, err
    assert f"written to {root}/out" in out.replace("\n", "")
    assert "passed over: 1 .bin" in err
    here = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert fetched(root / "out") == here
    assert len(here) == 8
    # A second time, nothing is replaced unasked; a pattern and one file are understood too.
    code, _, err = run("segment", root / "photos", "-o", root / "out", "-m", "voc-fast")
    assert code == 2
    assert "exists already" in err
    code, out, _ = run("segment", root / "photos" / "*.jpg", "--json", "-m", "voc-fast")
    assert code == 0
    assert [entry["photo"] for entry in json.loads(out)["photos"]] == [
        str(root / "photos" / "cat 1.jpg")
    ]


def test_a_photo_elsewhere_is_fetched_once_and_may_go_away(tmp_path, run, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.jpg").write_bytes((EXAMPLES / f"{name}.jpg").read_bytes())
    root, reads = Address(f"memory://deeplab-{uuid.uuid4().hex[:8]}"), []
    put(tmp_path, root)
    read_bytes = store.read_bytes

    def read(address: Address) -> bytes:
        reads.append(address.name)
        if address.name == "cat.jpg" and reads.count("cat.jpg") > 1:
            raise DownloadError(f"{address}: access was refused.")
        return read_bytes(address)

    monkeypatch.setattr(store, "read_bytes", read)
    out = tmp_path / "out"
    code, _, err = run("segment", root, "-o", out, "--save", "mask", "-m", "voc-fast")
    assert (code, sorted(reads)) == (0, ["cat.jpg", "dog.jpg"]), err
    # A data set holds the photo too, and fetches it again when its turn comes.
    reads.clear()
    code, _, err = run("segment", root, "-o", out, "--save", "coco", "-m", "voc-fast")
    assert code == 1
    assert "cat.jpg: access was refused" in err.replace("\n", "")
    (annotations,) = (out / "coco").rglob("*.json")
    content = json.loads(annotations.read_text())
    assert [image["file_name"].split("/")[-1] for image in content["images"]] == ["dog.jpg"]


def test_a_photo_that_is_not_there_or_damaged_is_named_and_the_others_go_on(run, root, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "cat.jpg").write_bytes((EXAMPLES / "cat.jpg").read_bytes())
    put(tmp_path, root / "p")
    code, _, err = run("segment", root / "p", "-o", root / "o", "--save", "mask", "-m", "voc-fast")
    assert code == 1
    assert f"{root}/p/bad.jpg" in err.replace("\n", "")
    assert [*fetched(root / "o")] == ["cat.mask.png"]
    code, _, err = run("segment", root / "nowhere", "-m", "voc-fast")
    assert code == 2
    assert "no file or folder" in err


def test_a_model_elsewhere_is_opened_and_fetched_again_when_it_changed(root, home):
    file = zoo.locate("voc-fast")
    store.put_file(file, root / "models" / "mine.tflite")
    segmenter = deeplab.Segmenter(str(root / "models" / "mine.tflite"))
    photo = EXAMPLES / "cat.jpg"
    store.put_file(photo, root / "cat.jpg")
    result = segmenter(str(root / "cat.jpg"))
    assert result.name == str(root / "cat.jpg")
    assert (result.mask == deeplab.Segmenter("voc-fast")(photo).mask).all()
    copy = keep_file(root / "models" / "mine.tflite", home)
    fetched_at = copy.stat().st_mtime_ns
    assert keep_file(root / "models" / "mine.tflite", home).stat().st_mtime_ns == fetched_at
    store.put_file(zoo.locate("voc"), root / "models" / "mine.tflite")
    assert keep_file(root / "models" / "mine.tflite", home).read_bytes() == (
        zoo.locate("voc").read_bytes()
    )


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_data_set_elsewhere_is_checked_trained_on_and_evaluated(run, root, tmp_path):
    pytest.importorskip("torch")
    put(tiny_folder.make_folder(tmp_path / "pets"), root / "pets")
    code, out, err = run("data", "check", root / "pets")
    assert code in (0, 1), err
    code, out, err = run(
        "train", "--data", root / "pets", "--time", "0", "--folder", root / "runs" / "pets"
    )
    assert code == 0, err
    written = fetched(root / "runs" / "pets")
    assert {"pets.json", "pets.safetensors", "log.txt"} <= {*written}
    assert f'path = "{root}/pets"' in written["recipe.toml"].decode()
    code, out, err = run(
        "evaluate", root / "runs" / "pets" / "pets.json", root / "pets", "--split", "val",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    assert 0 <= json.loads(out)["miou"] <= 1
    code, _, err = run("train", "--data", root / "nowhere", "--time", "0")
    assert code == 2
    assert "no such folder" in err


def test_a_copy_follows_what_is_added_changed_and_removed(root, home, tmp_path):
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b.txt").write_text("2")
    put(tmp_path, root / "set")
    copy = keep_folder(root / "set", home)
    assert {path.name for path in copy.glob("*.txt")} == {"a.txt", "b.txt"}
    (tmp_path / "a.txt").write_text("3")
    (tmp_path / "c.txt").write_text("4")
    put(tmp_path, root / "set")
    system, path = fsspec.url_to_fs(str(root / "set" / "b.txt"))
    system.rm(path)
    assert keep_folder(root / "set", home) == copy
    assert {path.name: path.read_text() for path in copy.glob("*.txt")} == {
        "a.txt": "3", "c.txt": "4",
    }  # fmt: skip


def test_a_working_folder_is_sent_however_the_work_ends(root, home):
    def stop(folder: Path) -> None:
        (folder / "last.pt").write_bytes(b"half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), working_folder(root / "run", home) as folder:
        stop(folder)
    assert fetched(root / "run") == {"last.pt": b"half way"}
    with working_folder(root / "run", home) as folder:
        assert (folder / "last.pt").read_bytes() == b"half way"
        (folder / "last.pt").write_bytes(b"done")
    assert fetched(root / "run") == {"last.pt": b"done"}


def test_nothing_stands_half_written_under_its_name(root):
    def fail(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError), replacing(str(root / "x.bin")) as partial:
        fail(partial)
    assert not store.is_file(root / "x.bin")
    with replacing(str(root / "x.bin")) as partial:
        partial.write_bytes(b"whole")
    assert store.read_bytes(root / "x.bin") == b"whole"


class _Flaky:
    """A store whose connection breaks: the first answers are cut off, or it refuses."""

    def __init__(self, system: Any, answers: list[Any]) -> None:
        self._system, self._answers = system, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def cat_file(self, path: str) -> bytes:
        if self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return bytes(answer)
        return bytes(self._system.cat_file(path))


def test_a_broken_connection_is_tried_again_and_then_told(monkeypatch, tmp_path):
    address = Address(f"memory://{uuid.uuid4().hex}/x.jpg")
    (tmp_path / "x.jpg").write_bytes(b"12345")
    store.put_file(tmp_path / "x.jpg", address)
    real, answers = store._open, []

    def flaky(asked: Address) -> Any:
        system, path = real(asked)
        return _Flaky(system, answers), path

    monkeypatch.setattr(store, "_open", flaky)
    answers[:] = [ConnectionResetError("reset"), b"12"]
    assert store.read_bytes(address, size=5) == b"12345"
    answers[:] = [ConnectionResetError("reset")] * 3
    with pytest.raises(DownloadError, match="no answer: reset"):
        store.read_bytes(address)
    answers[:] = [b"12"] * 3
    with pytest.raises(DownloadError, match="2 bytes came of 5"):
        store.read_bytes(address, size=5)
    answers[:] = [PermissionError("Forbidden")]
    with pytest.raises(DownloadError, match=r"access was refused \(Forbidden\)"):
        store.read_bytes(address)
    answers[:] = [PermissionError("Forbidden")]
    with pytest.raises(ImageError, match="access was refused"):
        deeplab.Segmenter("voc-fast")(str(address))


def test_a_bucket_that_is_not_there_says_so(s3, run, tmp_path):
    nowhere = Address("s3://deeplab-there-is-no-such-bucket/out")
    with pytest.raises(DownloadError, match=re.escape(str(nowhere))):
        store.read_bytes(nowhere / "x.jpg")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(OutputError, match="no such place"):
        store.put_file(tmp_path / "x", nowhere / "x")


def test_an_unknown_kind_of_address_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(DownloadError, match="nosuch"):
        store.read_bytes(Address("nosuch://a/b"))

    def without(name: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", without)
    with pytest.raises(MissingExtraError, match=r"s3fs.*deeplab\[remote\]"):
        store.read_bytes(Address("s3://a/b"))


def test_a_name_that_leads_out_of_the_folder_is_refused(monkeypatch, home):
    address = Address("memory://evil")
    listed = {address / ".." / ".." / "x": store.Entry(1, "1")}
    monkeypatch.setattr("deeplab.remote.copies.list_files", lambda _: listed)
    with pytest.raises(DownloadError, match="leads out of it"):
        keep_folder(address, home)


def test_the_page_does_what_it_says(s3, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes((EXAMPLES / "cat.jpg").read_bytes())
    fsspec.filesystem("s3").mkdir("pets")
    pets = Address("s3://pets")
    put(photos, pets / "photos")
    put(tiny_folder.make_folder(tmp_path / "set"), pets / "set")
    store.put_file(zoo.locate("voc-fast"), pets / "models" / "mine.tflite")
    monkeypatch.chdir(tmp_path)
    shown = [text for kind, text in blocks(ROOT / "docs" / "elsewhere.md") if kind == "console"]
    for command in commands("".join(shown)):
        run_command(command)
    assert [*fetched(pets / "masks")] == ["cat.json", "cat.mask.png"]
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        "cat.mask.png", "cat.overlay.jpg",
    }  # fmt: skip
    assert store.is_file(pets / "runs" / "first" / "set.safetensors")


def test_a_photo_on_the_web_is_a_photo_and_one_that_is_cut_off_is_refused(run, tmp_path):
    """FFmpeg would open both as a video of one frame, the second with half of its picture."""
    served, out = tmp_path / "served", tmp_path / "out"
    served.mkdir()
    photo = (EXAMPLES / "cat.jpg").read_bytes()
    (served / "a b.jpg").write_bytes(photo)
    (served / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        names = ("a%20b.jpg?v=1", "cut.jpg", "none.jpg")
        code, _, err = run(
            "segment", *(f"{root}/{name}" for name in names), "-o", out, "--save", "mask",
            "-m", "voc-fast",
        )  # fmt: skip
        server.shutdown()
    assert code == 1
    assert "cut.jpg: the picture is damaged or cut off" in err
    assert "none.jpg: there is no such file" in err
    assert [path.name for path in out.iterdir()] == ["a%20b.mask.png"]
    whole = deeplab.Segmenter("voc-fast")(EXAMPLES / "cat.jpg").mask
    with Image.open(out / "a%20b.mask.png") as mask:
        assert (np.asarray(mask) == whole).all()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([".deeplab-remote.json"], "remove it there"),
        (["a\0b"], "no file of this machine"),
        (["x" * 300], "no file of this machine"),
        (["a", "a/b"], "which is a folder, too"),
    ],
)
def test_a_folder_with_names_that_cannot_be_kept_is_refused_in_words(names, told, tmp_path):
    system = fsspec.filesystem("memory")
    top = f"/deeplab-{uuid.uuid4().hex[:8]}"
    for name in names:  # as a store's keys are: no file is in another's way
        path = f"{top}/{name}"
        system.store[path] = MemoryFile(system, path, b"what is there")
    with pytest.raises(DeepLabError, match=told):
        keep_folder(Address(f"memory:/{top}"), tmp_path)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in kept if path.suffix != ".json"} <= {b"what is there"}


def test_an_address_cannot_break_the_line_of_a_message():
    address = Address("memory://a\nb\x1b[31m.jpg")
    with pytest.raises(DownloadError) as refused:
        store.read_bytes(address)
    assert r"memory://a\nb\x1b[31m.jpg: there is no such file." in str(refused.value)


def test_a_name_with_two_colons_is_not_taken_for_another_file():
    top = f"/deeplab-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("memory").pipe({f"{top}/a": b"one", f"{top}/a::b": b"two"})
    with pytest.raises(DownloadError, match="cannot be told from two"):
        store.read_bytes(Address(f"memory:/{top}/a::b"))
