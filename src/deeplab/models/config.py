"""``DeepLabConfig``: everything that decides what a network computes, in one frozen record.

The fields are in :mod:`deeplab.models.config_fields`. Those that are not given are derived when the
configuration is made, and what cannot work is refused (:mod:`deeplab.models.config_check`);
afterwards every field has its value, and ``to_dict`` writes all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deeplab.errors import ConfigError, near_matches
from deeplab.models.config_check import check_config, derive_config
from deeplab.models.config_fields import CellBranch, ConfigFields


@dataclass(frozen=True, kw_only=True)
class DeepLabConfig(ConfigFields):
    """A DeepLab network, complete.

    >>> DeepLabConfig(version="v3+", backbone="xception_65").rates(8)
    (12, 24, 36)

    Raises:
        ConfigError: a value is unknown, or two values contradict each other; the message says
            what to change.
    """

    def __post_init__(self) -> None:
        for name, value in derive_config(self).items():
            object.__setattr__(self, name, value)
        check_config(self)

    @property
    def title(self) -> str:
        """What it is, in words."""
        return self.own or f"DeepLab {self.version} on {self.backbone}"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON knows."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeepLabConfig:
        """Make a configuration from what ``to_dict`` gave.

        Raises:
            ConfigError: a name is unknown, or a value does not fit.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        known: dict[str, Any] = {}
        for name, value in values.items():
            if name not in names:
                raise ConfigError(
                    f"Network configuration: unknown field '{name}'.{near_matches(name, names)} "
                    "Correct the name, or remove it."
                )
            if name == "dense_prediction_cell":
                known[name] = tuple(_read_branch(branch) for branch in value)
            else:
                known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)


def _read_branch(values: Mapping[str, Any]) -> CellBranch:
    try:
        rate, source = tuple(values["rate"]), values["input"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"dense_prediction_cell: cannot read the branch {values!r}. "
            'Give {"rate": [1, 6], "input": -1, "kernel": 3}.'
        ) from error
    return CellBranch(rate=rate, input=source, kernel=values.get("kernel", 3))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
