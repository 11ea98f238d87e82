"""Text is read whatever program saved it, or refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from deeplab.errors import InputError
from deeplab.files import read_text

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
