"""Models that come with installed packages: folders of runs, beside the code of a package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from medsegdiff.errors import ConfigError, DataError

GROUP = "medsegdiff.models"
"""Entry points of it name a package; each folder in that with a configuration is a model, called as the folder is."""
CONFIG = "config.json"


@dataclass(frozen=True)
class Installed:
    """A model of an installed package."""

    name: str
    folder: Path
    package: str
    """The distribution that brought it, with its version."""


def installed_models() -> list[Installed]:
    """List the models of installed packages, by name."""
    found = [model for entry in _entries() for model in _models_of(entry)]
    return sorted(found, key=lambda model: (model.name, model.package))


def installed_model(name: str) -> Installed | None:
    """Find a model by its name; two packages that have one of that name are an error."""
    found = [model for model in installed_models() if model.name == name]
    if len(found) > 1:
        packages = " and ".join(model.package for model in found)
        raise ConfigError(
            f"The model '{name}' is in {packages}. Give the folder of the one you mean, such as {found[0].folder}, or "
            "uninstall the other package."
        )
    return found[0] if found else None


def _models_of(entry: EntryPoint) -> Iterable[Installed]:
    try:
        spec = find_spec(entry.value)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"The models '{entry.name}' shall be in the package {entry.value}, which can't be found. Install the "
            "package anew, or uninstall it."
        )
    told = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
    folders = (Path(place) for place in spec.submodule_search_locations)
    configs = (file for folder in folders for file in sorted(folder.glob(f"*/{CONFIG}")))
    return [Installed(file.parent.name, file.parent, told) for file in configs]


def _entries() -> Iterable[EntryPoint]:
    return tuple(entry_points(group=GROUP))
