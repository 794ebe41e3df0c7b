"""What the settings of every network have, and the registry of settings."""

from __future__ import annotations

from typing import Any, ClassVar

from medsegdiff.config.base import Component
from medsegdiff.registry import Registry


class NetworkConfig(Component):
    """Base of the settings of a network; one that has none but its name needs no more."""

    targets: ClassVar[tuple[str, ...]] = ("eps", "x0", "v")
    """What the network can predict."""
    name: str
    """Entry of the registry of models."""


DEFAULT_NETWORK = "medsegdiff-v2"
"""Whose settings a configuration has that names no network, or one that brings no settings of its own."""

NETWORKS: Registry[type[NetworkConfig], dict[str, Any]] = Registry("network", dict)
"""Settings by the name of the network: the same name as in the registry of models."""


def settings_of(name: object) -> type[NetworkConfig]:
    """Find the settings that a network takes."""
    return NETWORKS[name if isinstance(name, str) and name in NETWORKS else DEFAULT_NETWORK].factory
