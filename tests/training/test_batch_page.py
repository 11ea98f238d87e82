from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import shapes_settings

from deeplab.cli import run
from deeplab.data.loader import train_loader
from deeplab.training.feed import open_feed
from deeplab.training.settings import write_toml


def test_the_page_shows_what_the_training_sees(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny import ALONE

    settings = shapes_settings(shapes, augment={"rotate": 20.0, "mosaic": 0.5, "copy_paste": 0.5})
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(write_toml(settings))
    page = tmp_path / "page.html"
    assert run(["data", "show", str(recipe), "-o", str(page), "--steps", "1"]) == 0
    assert "(4 pictures)" in capsys.readouterr().out
    html = page.read_text()
    pictures = re.findall(r"src='data:image/webp;base64,([^']+)'", html)
    assert len(pictures) == 8
    feed = open_feed(settings, ALONE, lambda text: None)
    transform = feed.transform(settings, settings.network(3))
    loader = train_loader(feed.training, transform, batch_size=4, steps=1, seed=0)
    batch = next(iter(loader))
    for data, label in zip(pictures[1::2], batch.label.numpy(), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        wanted = feed.labels.palette.copy()
        wanted[255] = (224, 224, 192)
        small = Image.fromarray(wanted[label]).resize(shown.shape[1::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(shown, np.asarray(small))
    assert "rotate 20.0, mosaic 0.5, copy_paste 0.5" in html
    words = ["data", "show", str(recipe), "-o", str(page), "-s", "augment.rotat=3"]
    assert run(words) == 2
    assert "augment.rotat: unknown setting. Did you mean 'rotate'" in capsys.readouterr().err
