"""The page runs networks whose classes overlap: the masks of Python, each class for itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hosting import download, look, serving, show, wait_until
from PIL import Image
from playwright.sync_api import Browser, Page

from deeplab import Segmenter
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.serve import browser_page
from deeplab.serve.browser_page import PageModel, write_page
from overlapping_tiny import write_overlapping

pytestmark = pytest.mark.integration


def test_masks_and_shares_are_those_of_python(
    built_page: Path, browser: Browser, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    model = write_overlapping(tmp_path / "several.tflite")
    write_page(tmp_path / "site", [PageModel(path=model, title="several")])
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    result = Segmenter(model)(tmp_path / "photo.png")
    assert isinstance(result, OverlappingSegmentation)
    assert (result.masks.sum(0) > 1).any()
    with serving(tmp_path / "site", headers=browser_page.HEADERS) as address:
        page = open_page(browser, f"{address}/")
        show(page, tmp_path / "photo.png")
        name, content = download(page, "save-mask")
        assert name == "photo.masks.tif"
        with Image.open(io.BytesIO(content)) as file:
            planes = []
            for index in range(file.n_frames):
                file.seek(index)
                planes.append(np.array(file))
        assert (np.stack(planes) == result.masks).all()
        wait_until(page, "document.querySelector('#status').textContent.startsWith('Found')")
        listed = page.inner_text("#status")
        for label, share in result.shares.items():
            assert f"{label} {round(100 * share)} %" in listed
        for effect in ("outline", "mask", "cutout", "blur"):
            look(page, effect)
