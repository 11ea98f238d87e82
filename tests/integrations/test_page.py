"""The page about other people's programs, and what nobody asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from documents import ROOT, blocks

PHOTO = ROOT / "examples/photos/cat.jpg"


def test_the_python_on_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(PHOTO, "photo.jpg")
    programs = [
        text
        for language, text in blocks(ROOT / "docs/integrations.md")
        if language == "python" and "mask" in text
    ]
    assert len(programs) >= 2
    for program in programs[:2]:
        names: dict[str, object] = {}
        exec(program, names)
        assert names["mask"].dtype == "uint8"
        assert (names["mask"] == names["names"].index("cat")).mean() > 0.2


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys, deeplab, deeplab.segmenter, deeplab.cli.segment, deeplab.zoo; "
        "print([name for name in sys.modules if name.startswith(('deeplab.integrations', "
        "'huggingface_hub', 'mediapipe', 'supervision', 'fiftyone', 'pandas', 'IPython'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rooms_files_import_no_package_at_their_top():
    for path in Path(ROOT / "src/deeplab/integrations").glob("*.py"):
        code = f"import sys; sys.modules.update(dict.fromkeys({BANNED!r})); "
        code += f"import deeplab.integrations.{path.stem}"
        if path.stem not in ("__init__", "cvat"):  # CVAT's own program loads the latter
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


BANNED = ["torch", "huggingface_hub", "mediapipe", "tflite_support", "supervision", "fiftyone",
          "pandas", "ray", "fsspec"]  # fmt: skip
