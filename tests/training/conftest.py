from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_shapes


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return make_shapes(tmp_path / "shapes")
