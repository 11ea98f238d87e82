"""The house: which room may import which, how long a function is, what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "deeplab"

FLOORS = [
    {"errors", "files", "labels", "limits", "plot", "remote"},
    {"photo", "tflite"},
    {"models", "data", "runtimes", "weights", "crf", "zoo", "video", "tiles"},
    {"segmenter", "training", "evaluation", "export", "benchmark", "info", "serve"},
    {"integrations"},
    {"cli", "__main__"},
]
MAY_IMPORT_TORCH = {"models", "weights", "data", "training", "evaluation", "export"}
TORCH_FILES = {SOURCE / "runtimes" / "torch.py", SOURCE / "runtimes" / "executorch.py"}

FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    floors = [number for number, rooms in enumerate(FLOORS) if name in rooms]
    assert floors, f"'{name}' stands on no floor: place it in FLOORS"
    return floors[0]


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module(path): path for path in [*FILES, SOURCE / "__init__.py"]}


def imports(path: Path) -> list[str]:
    """Return the modules that a file imports anywhere, for types alone or inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: import by full name, not relatively"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in MODULES else node.module or "" for name in inside]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downward(path):
    here = room(path)
    for name in imports(path):
        if name.startswith("deeplab."):
            there = name.split(".")[1]
            if there == "__version__":
                continue
            assert there == here or floor(there) <= floor(here), (
                f"{path.relative_to(SOURCE)} imports {name} from a floor above"
            )


def test_no_circle():
    above: dict[str, set[str]] = {
        name: {other for other in imports(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
        if name != "deeplab"  # it names its public things for type checkers
    }
    while free := {name for name, others in above.items() if not others & above.keys()}:
        above = {name: others for name, others in above.items() if name not in free}
    circle = {name: sorted(others & above.keys()) for name, others in above.items()}
    assert not circle, f"these import each other, or lie between such: {circle}"


def test_the_top_level_is_the_face_and_the_ground():
    modules = {path.stem for path in SOURCE.glob("*.py")}
    assert modules == {"__init__", "__main__", "segmenter", "info", "errors", "files", "labels",
                       "limits", "plot"}  # fmt: skip


def function_lengths(path: Path) -> dict[str, int]:
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_can_be_read_at_one_look(path):
    if room(path) == "cli":
        return  # a command declares its options
    strict = room(path) in ("models", "photo") or path == SOURCE / "training" / "loop.py"
    most = 60 if strict else 90
    for name, lines in function_lengths(path).items():
        assert lines <= most, f"{name}: {lines} lines, {most} at most"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_stays_in_its_rooms(path):
    if room(path) in MAY_IMPORT_TORCH or path in TORCH_FILES:
        return
    assert not [name for name in imports(path) if name.split(".")[0] == "torch"]


def test_no_folder_is_deeper_than_two():
    assert all(len(path.relative_to(SOURCE).parts) <= 2 for path in FILES)


def test_the_guide_to_changes_names_files_that_are_there():
    guide = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text("utf-8").partition("change …?")[2]
    named = re.findall(r"`([a-z_]+/[a-z_/.]+(?:\.py|/))`", guide.partition("## House rules")[0])
    assert len(named) > 12
    for name in named:
        assert (SOURCE / name).exists() or (SOURCE.parents[1] / name).exists(), name


def test_importing_is_light():
    code = (
        "import sys, deeplab; "
        "heavy = {'torch', 'numba', 'PIL', 'numpy', 'ai_edge_litert', 'typer', 'rich'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    import deeplab

    for name in deeplab.__all__:
        assert getattr(deeplab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = deeplab.Segmentor
