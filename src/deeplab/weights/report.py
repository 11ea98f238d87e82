"""What happened to every variable of an import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Names, in the vocabulary of the file that was read.

    ``kept`` are the variables whose values are in the network now, ``ignored`` were there and are
    not needed, ``missing`` were needed and not there (they keep their initial values).
    ``backbone_only`` says that the file was a classifier: head and decoder are all missing.
    """

    kept: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    backbone_only: bool = False

    def __str__(self) -> str:
        lines = [f"kept {len(self.kept)} variables"]
        for what, names in (("ignored", self.ignored), ("missing", self.missing)):
            if names:
                shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
                lines.append(f"{what} {len(names)}: {shown}")
        if self.backbone_only:
            lines.append("this is a classifier: it gives the backbone only, to train from")
        return "\n".join(lines)
