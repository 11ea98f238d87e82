"""The house: which room may import which, and what importing the package costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "deeplab"

FLOORS = [
    {"errors", "files", "labels", "plot"},
    {"photo", "tflite"},
    {"models", "data", "runtimes", "weights", "crf", "zoo"},
    {"segmenter", "training", "evaluation", "export", "benchmark", "info", "serve"},
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


def imports(path: Path) -> list[str]:
    """Return the modules that a file imports, ``if TYPE_CHECKING:`` blocks left out."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for child in node.body for inner in ast.walk(child))
    names = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: import by full name, not relatively"
            if node.module == "deeplab":
                names += [f"deeplab.{alias.name}" for alias in node.names]
            else:
                names.append(node.module or "")
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_stays_in_its_rooms(path):
    if room(path) in MAY_IMPORT_TORCH or path in TORCH_FILES:
        return
    assert not [name for name in imports(path) if name.split(".")[0] == "torch"]


def test_no_folder_is_deeper_than_two():
    assert all(len(path.relative_to(SOURCE).parts) <= 2 for path in FILES)


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
