"""The API's description as a page: made here from ``openapi.json``, without a script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; font-size: 1.2rem; }
h2 b { background: var(--soft); border-radius: 4px; padding: 0 .4em; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 6px; padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td:first-child, th { white-space: nowrap; overflow-wrap: normal; }
h2 code { overflow-wrap: anywhere; }
form { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; }
form > label { min-width: 0; max-width: 100%; }
button, input { font: inherit; max-width: 100%; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: no script, and nothing from anywhere."""


def write_docs_page(description: dict[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    info = description["info"]
    parts = [
        '<!doctype html><html lang="en-GB"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="icon.svg">',
        f"<title>{_text(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>",
        *(f"<p>{_text(part)}</p>" for part in info.get("description", "").split("\n\n")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(description, path, method, operation)
    return "\n".join([*parts, "</body></html>"])


def _operation(
    description: dict[str, Any], path: str, method: str, operation: dict[str, Any]
) -> Iterator[str]:
    yield f"<h2><b>{method.upper()}</b> <code>{_text(path)}</code></h2>"
    for part in operation.get("description", operation.get("summary", "")).split("\n\n"):
        yield f"<p>{_text(part)}</p>"
    if parameters := operation.get("parameters"):
        if any(parameter["name"] == "output" for parameter in parameters):
            yield from _form(path, parameters)
        yield "<table><tr><th>Parameter</th><th>Values</th><th>Meaning</th></tr>"
        for parameter in parameters:
            values = _values(parameter["schema"])
            yield (
                f"<tr><td><code>{_text(parameter['name'])}</code></td><td>{_text(values)}</td>"
                f"<td>{_text(parameter.get('description', ''))}</td></tr>"
            )
        yield "</table>"
    yield "<table><tr><th>Status</th><th>Content</th><th>Meaning</th></tr>"
    for status, response in operation["responses"].items():
        content = ", ".join(response.get("content", {}))
        yield (
            f"<tr><td>{_text(status)}</td><td>{_text(content)}</td>"
            f"<td>{_text(response['description'])}</td></tr>"
        )
    yield "</table>"
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if "example" in content:
                yield f"<pre>{_text(json.dumps(content['example'], indent=2))}</pre>"


def _form(path: str, parameters: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a form for every output, that works without a script."""
    outputs = next(_choices(p["schema"]) for p in parameters if p["name"] == "output")
    yield '<form method="post" enctype="multipart/form-data">'
    yield '<label>Photo <input type="file" name="photo" accept="image/*" required></label>'
    for output in outputs:
        address = f"{path.removeprefix('/')}?output={output}"
        yield f'<button formaction="{_text(address)}">{_text(output)}</button>'
    yield "</form>"


def _choices(schema: dict[str, Any]) -> list[str]:
    return list(schema.get("enum", schema.get("items", {}).get("enum", [])))


def _values(schema: dict[str, Any]) -> str:
    kinds = {"string": "text", "integer": "a whole number", "number": "a number"}
    return ", ".join(_choices(schema)) or kinds.get(schema["type"], schema["type"])


def _text(value: object) -> str:
    return html.escape(str(value))
