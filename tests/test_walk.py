"""The newcomer's walk of docs/your-own-data.md, from its first block to its last."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from documents import ROOT, blocks, commands, run

WALK = ROOT / "docs/your-own-data.md"


@pytest.mark.integration
def test_the_walk_leads_to_a_network_that_knows_the_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    python: dict[str, Any] = {}
    begun = time.perf_counter()
    for language, text in blocks(WALK):
        if language == "python":
            exec(compile(text, str(WALK), "exec"), python)
        elif language == "toml":
            name = text.splitlines()[0].removeprefix("# ")
            Path(name).write_text(text, encoding="utf-8")
        else:
            assert language == "console", language
            for command in commands(text):
                # On a busy machine, threads that wait for each other take longer than one.
                run(command, environment={"OMP_NUM_THREADS": "1"})

    print(f"from the first block to own masks: {time.perf_counter() - begun:.0f} s")
    page = Path("check.html").read_text("utf-8").split("<section id='pairs'>")[0]
    assert page.count("data:image/webp") == 11  # a photo alone, four with masks, twins
    scores = json.loads(Path("report/report.json").read_text("utf-8"))
    assert scores["miou"] > 0.7  # 0.27 says background everywhere, 0.6 misses a shape
    truth = np.array(Image.open("shapes/masks/00.png"))
    mask = np.array(Image.open("out/00.mask.png"))
    assert (mask == truth).mean() > 0.9
    for shape in (1, 2):
        both = ((mask == shape) & (truth == shape)).sum()
        assert both / ((mask == shape) | (truth == shape)).sum() > 0.5
    assert set(python["result"].shares) == {"background", "disc", "square"}
