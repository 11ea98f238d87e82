"""Files are written whole, for everybody; text is read whatever program saved it, or refused."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deeplab import files
from deeplab.errors import InputError, OutputError
from deeplab.files import is_partial, name_partial, read_text, replacing, replacing_all

TEXT = "background\nKätzchen\n猫\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-marked", "utf-16-be-marked"],
)
def test_every_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "labels.txt"
    marked = encoding.removesuffix("-marked")
    path.write_bytes(((chr(0xFEFF) if marked != encoding else "") + TEXT).encode(marked))
    assert read_text(path) == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_latin_text_in_utf_16_without_a_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("cat\ndog\n".encode(encoding))
    assert read_text(path) == "cat\ndog\n"


def test_other_encodings_are_named_or_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(TEXT.encode("gb18030"))
    with pytest.raises(InputError, match=r"labels.txt: is not text in UTF-8 .* save it as UTF-8"):
        read_text(path)
    assert read_text(path, encoding="gb18030") == TEXT
    with pytest.raises(InputError, match="there is none called 'gbq'"):
        read_text(path, encoding="gbq")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
    path.write_bytes(b"")
    assert read_text(path) == ""


# --- writing ------------------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
@pytest.mark.parametrize("writing", [replacing, replacing_all])
def test_the_umask_decides_who_reads_a_file(tmp_path: Path, mask: int, mode: int, writing) -> None:
    """Some writers, that of safetensors among them, make their files their owner's alone."""
    with umask(mask), writing(tmp_path / "net.safetensors") as partial:
        partial.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "net.safetensors").stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["net.safetensors"]


@pytest.mark.parametrize(
    "name", ["photo.jpg", "ö" * 120 + ".png", "x." + "y" * 240, "no suffix", ".hidden", "a.tar.gz"]
)
def test_names_in_the_making_are_short_hidden_and_known(tmp_path: Path, name: str) -> None:
    made = name_partial(tmp_path / name)
    assert made.parent == tmp_path
    assert made.name.startswith(".")
    assert len(os.fsencode(made.name)) < 150
    assert is_partial(made.name)
    assert not is_partial(name)
    assert made != name_partial(tmp_path / name)


def test_what_killed_processes_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old = [name_partial(tmp_path / "photo.jpg"), name_partial(tmp_path / "folder")]
    young, foreign = name_partial(tmp_path / "photo.jpg"), tmp_path / ".photo.part.jpg"
    for path in (old[0], young, foreign):
        path.write_bytes(b"half")
    old[1].mkdir()
    (old[1] / "net.onnx").write_bytes(b"half")
    long_ago = time.time() - 2 * 86_400
    for path in (*old, foreign):
        os.utime(path, (long_ago, long_ago))
    with replacing(tmp_path / "new.txt") as partial:
        partial.write_text("new")
    assert not any(path.exists() for path in old)
    assert young.exists()
    assert foreign.exists()


def test_a_full_folder_for_temporary_files_is_not_blamed_on_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: "/full")
    monkeypatch.setattr(files, "_free", lambda folder: 0 if str(folder) == "/full" else 1 << 30)
    with (
        pytest.raises(OutputError, match=r"temporary files, /full, is full; .* TMPDIR"),
        replacing(tmp_path / "net.onnx"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(OutputError, match=r"cannot write .*net\.onnx: /in/put: Input/output error"),
        replacing(tmp_path / "net.onnx"),
    ):
        raise OSError(errno.EIO, "Input/output error", "/in/put")
