"""What an import found: what happened to every variable, what the file says, what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Names, in the vocabulary of the file that was read.

    Attributes:
        kept: the variables whose values are in the network now.
        found: what a file without names turned out to be, in words.
        ignored: were there and are not needed.
        missing: were needed and not there (they keep their initial values).
        backbone_only: the file was a classifier: head and decoder are all missing.
        one_class: the last layer had one channel; the classes are background and object.
        labels: the classes, where the file or its ``config.json`` names them.
        input_spec: the frame, where the file names it, and how photos meet it.
        taken: where in the file the network lay, "state_dict.model"; "" where it is the file.
        others: where more networks lie, which were not taken.
        beside: what else lay in the file.
        not_run: names in a pickle that something else than tensors needs; nothing of it was run.
        assumed: what nothing said and custom decided: the setting, and its value in words.
    """

    kept: tuple[str, ...]
    found: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    backbone_only: bool = False
    one_class: bool = False
    labels: LabelSet | None = None
    input_spec: InputSpec | None = None
    taken: str = ""
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()
    assumed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [*(f"found {what}" for what in self.found), f"kept {len(self.kept)} variables"]
        for what, names in (("ignored", self.ignored), ("missing", self.missing)):
            if names:
                lines.append(f"{what} {len(names)}: {_shorten(_summarise(names), 6)}")
        if self.others:
            lines.append(f"took {self.taken}; there is also {_shorten(self.others, 6)}: "
                         f"take it with --part {self.others[0]}")  # fmt: skip
        if self.beside:
            lines.append(f"beside the network: {_shorten(self.beside, 12)}")
        if self.not_run:
            lines.append(f"named by the file and not run: {_shorten(self.not_run, 12)}")
        if self.backbone_only:
            lines.append("this is a classifier: it gives the backbone only, to train from")
        lines += [f"assumed {setting}: {value}" for setting, value in self.assumed.items()]
        return "\n".join(lines)


def _summarise(names: tuple[str, ...]) -> tuple[str, ...]:
    """Put the counters that every batch norm of PyTorch has last, as one."""
    counters = [name for name in names if name.endswith(".num_batches_tracked")]
    rest = tuple(name for name in names if name not in counters)
    return (*rest, f"{len(counters)} × num_batches_tracked") if counters else rest


def _shorten(names: tuple[str, ...], most: int) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
