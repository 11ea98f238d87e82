"""The photos that come with the package; what is run where nobody names others."""

from __future__ import annotations

from pathlib import Path


def list_example_photos() -> list[Path]:
    """Return the files, sorted; their licences lie beside them in LICENSES.md."""
    here = Path(__file__).resolve()
    # In an installed package they lie inside it, in a checkout among the examples.
    for folder in (here.parent / "photos", here.parents[3] / "examples" / "photos"):
        if folder.is_dir():
            return sorted(folder.glob("*.jpg"))
    return []
