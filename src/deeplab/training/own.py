"""What a recipe names is found before any work, so that a wrong name costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deeplab.errors import InputError
from deeplab.models.pieces import find_piece, name_piece
from deeplab.training.augment_settings import find_own
from deeplab.training.losses import find_terms
from deeplab.training.settings import Settings
from deeplab.training.trackers import check_trackers


def find_pieces(settings: Settings) -> None:
    """Import all that a recipe names.

    Raises:
        InputError: something is not there, or cannot be imported.
    """
    if settings.model.get("own"):
        find_piece(settings.model["own"], "model.own")
    find_terms(settings.loss)
    if ":" in settings.optimiser.name:
        find_piece(settings.optimiser.name, "optimiser.name")
    find_own(settings.augment)
    check_trackers(settings.run.track)


def name_pieces(
    *,
    network: Callable[[int], Any] | str | None = None,
    loss: Callable[..., Any] | str | Mapping[Any, float] | None = None,
    optimiser: Callable[..., Any] | str | None = None,
    augmentation: Callable[..., Any] | Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Return the settings that name what a program hands over; see :func:`deeplab.train`.

    Raises:
        InputError: something cannot be called.
    """
    values: dict[str, Any] = {}
    if network is not None:
        if hasattr(network, "state_dict") and not isinstance(network, type):
            raise InputError(
                "network: got a module, expected what makes one of a number of classes: its class, "
                "or a function."
            )
        values["model.own"] = name_piece(network, "network")
    if loss is not None:
        terms = loss if isinstance(loss, Mapping) else {loss: 1.0}
        values["loss.terms"] = {name_piece(one, "loss"): float(w) for one, w in terms.items()}
    if optimiser is not None:
        values["optimiser.name"] = name_piece(optimiser, "optimiser")
    if augmentation is not None:
        single = callable(augmentation) or isinstance(augmentation, str)
        every = [augmentation] if single else list(augmentation)  # type: ignore[arg-type]
        values["augment.own"] = tuple(name_piece(one, "augmentation") for one in every)
    for setting, given in (("loss", loss), ("augmentation", augmentation)):
        names = values.get({"loss": "loss.terms", "augmentation": "augment.own"}[setting], ())
        if isinstance(given, Mapping | list | tuple) and len(set(names)) != len(given):
            raise InputError(f"{setting}: two of them have one name; give each its own.")
    return values
