"""What every format is given: the network to write, and what the file must say of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deeplab.runtimes.network_card import NetworkCard

if TYPE_CHECKING:
    from deeplab.export.network import ExportNetwork, Output

Precision = Literal["float32", "float16", "dynamic", "int8"]
KeepFloat = Literal["auto"] | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One export: what ``convert(plan, target)`` of a format's module turns into a file.

    Attributes:
        network: the network in evaluation mode, batch norms and normalisation folded away:
            (1, 3, H, W) float32 RGB, normalised → logits (1, K, h, w) float32, or with
            ``output="mask"`` a mask (1, H, W) uint8.
        card: what the file must say of itself so that ``Segmenter`` can open it alone: frame,
            normalisation, fit, labels, ``align_corners``, output. ``card.to_json()`` goes into
            the format's own slot for metadata under the key ``network_card.KEY``.
        licence: of the weights, SPDX name; None where it is not known.
        precision: "float32", "float16", "dynamic" or "int8".
        output: "logits" at the network's low resolution, or "mask": resize and argmax inside.
        calibration: photos on which all but float32 measure.
        keep_float: int8: names of layers that stay float, "auto" to look for them; () for none.
        integer_io: int8: integers in and out too.
    """

    network: ExportNetwork
    card: NetworkCard
    licence: str | None = None
    precision: Precision = "float32"
    output: Output = "logits"
    calibration: Sequence[Path] = ()
    keep_float: KeepFloat = ()
    integer_io: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.card.spec.height, self.card.spec.width
