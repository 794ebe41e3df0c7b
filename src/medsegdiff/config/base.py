"""The base of all parts of a configuration, and the registry of the settings of networks."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from medsegdiff.registry import Registry


class Component(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is not finite: JSON has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class NetworkConfig(Component):
    """Base of the settings of a network; one that has none but its name needs no more."""

    targets: ClassVar[tuple[str, ...]] = ("eps", "x0", "v")
    """What the network can predict."""
    name: str
    """Entry of the registry of models."""


class PretrainedConfig(NetworkConfig):
    """Base of the settings of a network whose authors began with weights that others had trained."""

    weights: str | tuple[str, ...] | None = None
    """Local file of such weights that training begins with, or several of them; ``null`` begins from scratch. Nothing
    is ever downloaded, and later nothing needs the file."""

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The files, if any."""
        return (self.weights,) if isinstance(self.weights, str) else self.weights or ()


DEFAULT_NETWORK = "medsegdiff-v2"
"""Whose settings a configuration has that names no network, or one that brings no settings of its own."""

NETWORKS: Registry[type[NetworkConfig], dict[str, Any]] = Registry("network", dict)
"""Settings by the name of the network: the same name as in the registry of models."""


def settings_of(name: object) -> type[NetworkConfig]:
    """Find the settings that a network takes."""
    return NETWORKS[name if isinstance(name, str) and name in NETWORKS else DEFAULT_NETWORK].factory
