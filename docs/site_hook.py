"""Makes a site of the documents as they stand in the repository; mkdocs calls what is here.

README.md becomes the start page, other documents outside of docs/ become pages under their own
paths, and files that a page links to are copied: the links stay those that GitHub follows.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "examples/photos/LICENSES.md": "examples/photos/LICENSES.md",
}
"""Documents outside of docs/, and where they stand in the site."""

API = {
    "deeplab": [
        "deeplab.Segmenter", "deeplab.Segmentation", "deeplab.train", "deeplab.Run",
        "deeplab.evaluate", "deeplab.Scores", "deeplab.LabelSet", "deeplab.argmax_bilinear",
    ],
    "data": ["deeplab.data"],
    "models": ["deeplab.models", "deeplab.models.config.DeepLabConfig"],
    "weights": ["deeplab.weights"],
    "export": ["deeplab.export"],
    "training": [
        "deeplab.training.settings", "deeplab.training.loss_settings",
        "deeplab.training.augment_settings", "deeplab.training.loss_terms",
        "deeplab.training.sweep",
    ],
    "evaluation": ["deeplab.evaluation.metrics", "deeplab.evaluation.overlap"],
    "tiles": ["deeplab.tiles"],
    "video": ["deeplab.video.read", "deeplab.video.steady"],
    "errors": ["deeplab.errors"],
}  # fmt: skip
"""Pages of the reference, and the objects whose docstrings stand there."""

ROLE = re.compile(r":\w+:(?=<code>)(<code>)~?")
"""Of reStructuredText in docstrings, such as :func:."""

SEARCH = ROOT / "web/node_modules/iframe-worker/shim/index.js"
"""What lets the search run from file://, where browsers know no workers; mkdocs.yml names it."""

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not hold."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for name, objects in API.items():
        title = "deeplab" if name == "deeplab" else f"deeplab.{name}"
        text = "\n\n".join([f"# {title}", *(f"::: {path}" for path in objects)])
        files.append(File.generated(config, f"api/{name}.md", content=text))
    script = config.extra["polyfills"][0]
    files.append(File.generated(config, script, content=SEARCH.read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point a page's links, which are right in the repository, to where things are in the site."""
    here = page.file.src_uri
    source = next((source for source, place in PAGES.items() if place == here), f"docs/{here}")

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        place = PAGES.get(target, target.removeprefix("docs/"))
        if target == place and not target.endswith(".md") and (ROOT / target).is_file():
            files.append(
                File(
                    place, str(ROOT), config.site_dir, use_directory_urls=False,
                    inclusion=InclusionLevel.INCLUDED,
                )
            )  # fmt: skip
        return posixpath.relpath(place, posixpath.dirname(here) or ".")

    return LINK.sub(in_site, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Show what docstrings name as code, without the role."""
    return ROLE.sub(r"\1", html)
