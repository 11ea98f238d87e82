"""What to label next, as one HTML page with pictures."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from deeplab.evaluation.suggest import Suggestion, Suggestions
from deeplab.files import replacing
from deeplab.segmenter import Segmenter

_SIDE = 320
_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.2rem;
  padding: 0; list-style: none; }
li { border-top: 1px solid var(--line); padding-top: .5rem; }
.pair { display: flex; gap: 4px; } .pair img { width: calc(50% - 2px); object-fit: contain; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
"""


def write_page(found: Suggestions, segmenter: Segmenter, path: Path) -> None:
    """Write the photos, in order, each beside what the network sees in it.

    Raises:
        OutputError: the file cannot be written.
        ImageError: a photo can no longer be read.
    """
    entries = "".join(_entry(place, one, segmenter) for place, one in enumerate(found.chosen, 1))
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>What to label next</title><style>{_STYLE}</style></head><body>"
        f"<h1>What to label next: {len(found.chosen)} of {found.looked_at} photos</h1>"
        "<p>In this order. On the left the photo, on the right what the network sees in it. "
        "Unsure: the mean entropy of its pixels, 100 % where all classes are alike. New: how far "
        "it is from the photos before it; photos are 1 apart on average.</p>"
        f"<ol>{entries}</ol></body></html>\n"
    )
    with replacing(path) as partial:
        partial.write_text(page, "utf-8", errors="replace")


def _entry(place: int, one: Suggestion, segmenter: Segmenter) -> str:
    result = segmenter(one.photo)
    pictures = (result.photo.decode(), result.overlay())
    images = "".join(
        f"<img alt='{what}' src='data:image/jpeg;base64,{_encode(picture)}'>"
        for what, picture in zip(("photo", "overlay"), pictures, strict=True)
    )
    return (
        f"<li><div class='pair'>{images}</div><p><b>{place}.</b> {escape(str(one.photo))}</p>"
        f"<p>unsure {100 * one.uncertainty:.1f} %, new {one.novelty:.2f}</p></li>"
    )


def _encode(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
