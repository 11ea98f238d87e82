"""What an import found: what happened to every variable, what the file says, what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deeplab.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Names, in the vocabulary of the file that was read.

    Attributes:
        kept: the variables whose values are in the network now.
        found: what a file without names turned out to be, in words.
        ignored: were there and are not needed.
        missing: were needed and not there (they keep their initial values).
        backbone_only: the file was a classifier: head and decoder are all missing.
        labels: the classes, where the file or its ``config.json`` names them.
        assumed: what nothing said and custom decided: the setting, and its value in words.
    """

    kept: tuple[str, ...]
    found: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    backbone_only: bool = False
    labels: LabelSet | None = None
    assumed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [*(f"found {what}" for what in self.found), f"kept {len(self.kept)} variables"]
        for what, names in (("ignored", self.ignored), ("missing", self.missing)):
            if names:
                shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
                lines.append(f"{what} {len(names)}: {shown}")
        if self.backbone_only:
            lines.append("this is a classifier: it gives the backbone only, to train from")
        lines += [f"assumed {setting}: {value}" for setting, value in self.assumed.items()]
        return "\n".join(lines)
