"""What a deployed network must say of itself beyond its numbers, in one line of JSON.

Every format has a place for a line of text (ONNX ``metadata_props``, OpenVINO ``rt_info``, a
metadata entry of a TFLite model, …). The card in it lets a file be opened alone: how a photo
becomes the input, what the classes are called, and how the logits lie on the frame.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from deeplab.errors import ModelError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec

KEY = "deeplab"
"""The name of the card where a format names its metadata."""

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """How a network file is fed and what its answer means.

    Attributes:
        spec: the frame, the normalisation, and how photos meet it.
        labels: the classes.
        output: "logits" or "label map".
        align_corners: see :class:`deeplab.runtimes.Network`.
        any_size: frames of other sizes than ``spec`` says may be given.
    """

    spec: InputSpec
    labels: LabelSet
    output: Literal["logits", "label map"]
    align_corners: bool
    any_size: bool = False

    def to_json(self) -> str:
        """Return the card as one line."""
        return json.dumps(
            {
                "version": VERSION,
                "input": {
                    "height": self.spec.height,
                    "width": self.spec.width,
                    "mean": self.spec.mean,
                    "std": self.spec.std,
                    "fit": self.spec.fit,
                },
                "labels": self.labels.to_dict(),
                "output": self.output,
                "align_corners": self.align_corners,
                "any_size": self.any_size,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str, *, name: str) -> NetworkCard:
        """Read a card.

        Args:
            text: what ``to_json`` gave.
            name: of the file, for messages.

        Raises:
            ModelError: it is damaged, or of a newer version.
        """
        damaged = f"{name}: what it says of itself is damaged"
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["version"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{damaged} ({error}).") from None
        if version != VERSION:
            raise ModelError(
                f"{name}: describes itself in version {version}, this program reads {VERSION}. "
                "Update deeplab."
            )
        try:
            given = values["input"]
            if values["output"] not in ("logits", "label map"):
                raise ValueError(f"output is '{values['output']}'")
            return cls(
                spec=InputSpec(
                    height=int(given["height"]),
                    width=int(given["width"]),
                    mean=tuple(given["mean"]),
                    std=tuple(given["std"]),
                    fit=given["fit"],
                ),
                labels=LabelSet.from_dict(values["labels"]),
                output=values["output"],
                align_corners=bool(values["align_corners"]),
                any_size=bool(values["any_size"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{damaged} ({error}).") from None
