"""The certificate: what the new file answers on photos, held against torch's answers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deeplab import __version__

if TYPE_CHECKING:
    from rich.table import Table

EQUAL_PIXELS = {"float32": 0.9999, "float16": 0.999}
"""The share of every photo's pixels that must have torch's class."""

INT8_FOREGROUND_IOU = 0.95
"""What int8 must reach where no labels tell what the difference costs."""

INT8_MIOU_LOSS = 0.01
"""What int8 may lose of the mIoU where labels tell."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """All photos at one size.

    Attributes:
        name: which size.
        photos: how many.
        max_logit_difference: None where the file gives class ids.
        equal_pixels: share over all photos.
        worst_equal_pixels: share on the worst photo.
        foreground_iou: same-class foreground IoU over all photos; None without any object.
        worst: the photos with the fewest equal pixels and their shares, worst first.
    """

    name: str
    photos: int
    max_logit_difference: float | None
    equal_pixels: float
    worst_equal_pixels: float
    foreground_iou: float | None
    worst: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Quality against labels.

    Attributes:
        data: name and split of the data set.
        pictures: how many.
        torch_miou: of the network in torch.
        file_miou: of the file.
    """

    data: str
    pictures: int
    torch_miou: float
    file_miou: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was found.

    Attributes:
        file: its name.
        precision: as it was written.
        output: "logits" or "mask".
        size: (height, width) of its frame.
        output_stride: that it runs at.
        weights: name of the pair.
        bytes: size of the file.
        weights_bytes: size of the pair's weights.
        int8_tensors: how many of its tensors are integers of eight bits.
        kept_float: layers of an int8 file that stayed float.
        rounds: the comparisons by size; empty where no engine here runs such a file.
        scores: against labels, where there are some.
        latency_ms: median of the file alone, on one frame; None where it was not run.
        torch_latency_ms: the same in torch.
        threads: of both.
        faults: what is outside the tolerance, in words.
        allowed: the file was kept all the same.
    """

    file: str
    precision: str
    output: str
    size: tuple[int, int]
    output_stride: int
    weights: str
    bytes: int
    weights_bytes: int
    int8_tensors: int
    kept_float: tuple[str, ...]
    rounds: tuple[Round, ...]
    scores: Scores | None
    latency_ms: float | None
    torch_latency_ms: float | None
    threads: int
    faults: tuple[str, ...]
    allowed: bool

    def to_json(self) -> str:
        """Return the certificate as JSON text."""
        content: dict[str, Any] = {"format": "deeplab certificate", "format_version": 1}
        content |= {"deeplab": __version__, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def table(self) -> Table:
        """Return the certificate for a terminal."""
        from rich.table import Table

        verdict = "certified" if self.rounds else "not run here"
        if self.faults:
            verdict = "NOT EQUAL ENOUGH" + " (kept)" * self.allowed
        table = Table(
            "", *(found.name for found in self.rounds), title=f"{self.file}: {verdict}",
            title_justify="left",
        )  # fmt: skip
        rows = {
            "photos": [str(found.photos) for found in self.rounds],
            "max logit difference": [_number(r.max_logit_difference) for r in self.rounds],
            "equal pixels": [_percent(found.equal_pixels) for found in self.rounds],
            "… on the worst photo": [_percent(found.worst_equal_pixels) for found in self.rounds],
            "same-class foreground IoU": [_percent(found.foreground_iou) for found in self.rounds],
            "worst photo": [found.worst[0][0] if found.worst else "" for found in self.rounds],
        }
        for name, values in rows.items():
            table.add_row(name, *values)
        return table

    def facts(self) -> dict[str, str]:
        """Return what is no matter of size: name to text."""
        height, width = self.size
        facts = {
            "frame": f"{height}×{width}, output stride {self.output_stride}, {self.output}",
            "file": f"{self.bytes / 1e6:.2f} MB (weights in torch {self.weights_bytes / 1e6:.2f})",
            "int8 tensors": str(self.int8_tensors),
        }
        if self.kept_float:
            facts["kept float"] = ", ".join(self.kept_float)
        if self.latency_ms is not None and self.torch_latency_ms is not None:
            facts["latency"] = (
                f"{self.latency_ms:.1f} ms (torch {self.torch_latency_ms:.1f} ms), "
                f"{self.threads} thread{'s' * (self.threads > 1)}"
            )
        if self.scores is not None:
            facts["mIoU"] = (
                f"{self.scores.file_miou:.4f} (torch {self.scores.torch_miou:.4f}), "
                f"{self.scores.pictures} pictures of {self.scores.data}"
            )
        facts |= {f"fault {i}": fault for i, fault in enumerate(self.faults, 1)}
        return facts


def find_faults(found: Certificate) -> Iterator[str]:
    """Yield in words what is outside the tolerance."""
    share = EQUAL_PIXELS.get(found.precision)
    for one in found.rounds:
        iou = one.foreground_iou
        if share is not None:
            if one.worst_equal_pixels < share:
                yield (
                    f"{one.name}: {_percent(one.worst_equal_pixels)} equal pixels on "
                    f"{one.worst[0][0]}, expected {_percent(share)} or more"
                )
        elif found.scores is None and iou is not None and iou < INT8_FOREGROUND_IOU:
            yield (
                f"{one.name}: same-class foreground IoU {_percent(iou)}, expected "
                f"{_percent(INT8_FOREGROUND_IOU)} or more"
            )
    if share is None and found.scores is not None:
        loss = found.scores.torch_miou - found.scores.file_miou
        if loss > INT8_MIOU_LOSS:
            yield f"mIoU: {100 * loss:.1f} points less than torch, at most 1 is expected"
    if found.precision in ("dynamic", "int8") and not found.int8_tensors:
        yield "precision: nothing in the file is int8"


def _percent(share: float | None) -> str:
    # Rounded down: 99.99 % means that at least so many are equal.
    return "n/a" if share is None else f"{math.floor(share * 1e5) / 1e3:.3f} %"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2g}"
