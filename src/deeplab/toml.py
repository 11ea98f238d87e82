"""TOML in and out: the standard library's reader on every Python, and values as TOML text."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads", "to_toml"]


def to_toml(value: Any) -> str:
    """Return a string, number, boolean, list, tuple or mapping as a TOML value on one line."""
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the one control character they differ in.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }"
    return repr(value)
