"""What counts as an error: the table ``[loss]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from deeplab.errors import InputError, near_matches
from deeplab.training.limits import Limits

NAMES = ("cross_entropy", "bce", "focal", "boundary", "dice", "tversky", "lovasz")
"""Of the terms; a name with a colon is the reader's own."""

_SUMS = ("dice", "tversky", "lovasz")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What counts as an error; see ``training.loss_terms``.

    Attributes:
        terms: what is added up, by name, and how much each counts: ``{cross_entropy = 1, dice =
            0.5}``, of cross_entropy, bce, focal, boundary, dice, tversky, lovasz, or functions of
            your own, ``{"my_losses.py:loss" = 1}`` (docs/pieces.md). {} is cross_entropy alone.
        over: what the sums of dice, tversky and lovasz run over: all pictures of a ``step``, in
            whatever processes, or each ``picture`` by itself.
        label_smoothing: share of the truth, 0..1, that cross_entropy and bce spread over the
            classes.
        focal_gamma: exponent of focal: how little pixels count of which the network is sure.
        tversky_alpha: weight of wrongly found pixels in tversky, 0..1; missed ones get the rest.
        auxiliary: weight of the same loss on a second, small head behind the backbone, which is
            dropped after training; 0 has none. Source: 1612.01105 section 3.3, with 0.4.
        class_weights: weights of classes by name, ``{person = 2.5}``, 1 for those that are not
            named; ``"auto"`` is median frequency over the training pictures.
        top_k: share of the hardest pixels that count in cross_entropy (the original's
            top_k_percent_pixels).
        mining_steps: steps over which mining sets in (hard_example_mining_step).
        one_logit: tell two classes, background and object, apart by one logit: a sigmoid, and a
            threshold that is chosen on the split to judge by.
        every_scale: with an image pyramid, also score each scale by itself (v2).
        upsample_logits: compare at the picture's size (v3, v3+), not at the logits' (v1, v2).
        label_stride: compare at every n-th row and column of the picture only. On a CPU, with small
            networks, half of a step is the loss, and 2 spares most of that.
    """

    terms: Annotated[dict[str, float], Limits(0.0, 1e6)] = field(default_factory=dict)
    over: Literal["step", "picture"] = "step"
    label_smoothing: Annotated[float, Limits(0.0, 0.9999)] = 0.0
    focal_gamma: Annotated[float, Limits(0.0, 100.0)] = 2.0
    tversky_alpha: Annotated[float, Limits(0.0, 1.0)] = 0.3
    auxiliary: Annotated[float, Limits(0.0, 1e6)] = 0.0
    class_weights: Annotated[dict[str, float] | str, Limits(0.0, 1e6)] = field(default_factory=dict)
    top_k: Annotated[float, Limits(1e-6, 1.0)] = 1.0
    mining_steps: Annotated[int, Limits(0, 1e9)] = 0
    one_logit: bool = False
    every_scale: bool = False
    upsample_logits: bool = True
    label_stride: Annotated[int, Limits(1, 64)] = 1

    def __post_init__(self) -> None:
        for name in self.terms:
            if name not in NAMES and ":" not in name:
                raise InputError(
                    f"loss.terms.{name}: there is no such term.{near_matches(name, NAMES)} Known: "
                    f'{", ".join(NAMES)}; one of your own is "FILE.py:NAME" or "MODULE:NAME".'
                )
        if self.terms and not any(self.terms.values()):
            raise InputError("loss.terms: all weights are 0; nothing would be learned.")
        usual = not self.terms  # cross_entropy or bce, as the labels are
        self._ask("top_k", self.top_k != 1.0, usual or "cross_entropy" in self.terms)
        self._ask(
            "label_smoothing",
            self.label_smoothing != 0.0,
            usual or bool({"cross_entropy", "bce"} & set(self.terms)),
        )
        self._ask("focal_gamma", self.focal_gamma != 2.0, "focal" in self.terms)
        self._ask("tversky_alpha", self.tversky_alpha != 0.3, "tversky" in self.terms)
        self._ask("over", self.over != "step", bool(self.sums))
        if self.one_logit and (self.class_weights or "cross_entropy" in self.terms):
            raise InputError(
                "loss.one_logit: has no class_weights and no cross_entropy; take bce, focal, dice, "
                "tversky or lovasz."
            )
        if self.auxiliary and self.every_scale:
            raise InputError("loss.auxiliary: is for networks that look once, not every_scale.")

    @property
    def sums(self) -> tuple[str, ...]:
        """The terms that are quotients of sums over pixels."""
        return tuple(name for name in _SUMS if self.terms.get(name))

    def _ask(self, name: str, is_set: bool, is_read: bool) -> None:
        """Refuse a setting that no term reads."""
        if is_set and not is_read:
            raise InputError(
                f"loss.{name}: got {getattr(self, name)!r}, but none of the terms "
                f"({', '.join(self.terms) or 'cross_entropy'}) reads it; leave it out."
            )
