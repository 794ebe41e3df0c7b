"""Code of others that registers models, data sets or metrics: installed packages and single files.

A package names its module in the entry-point group ``medsegdiff.plugins``; it is loaded with every command. A file is
loaded when the user names it, and never because a run does: whoever gave the run could have written the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from medsegdiff.errors import CheckpointError, DataError
from medsegdiff.registry import noted

GROUP = "medsegdiff.plugins"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """What was loaded: an entry point by its name, or a file."""

    name: str
    provides: frozenset[str]
    """Names that it registered."""
    file: Path | None = None
    sha256: str = ""

    def told(self) -> dict[str, str]:
        """Say which one it is, for a run to remember."""
        return {"name": self.name} if self.file is None else {"file": str(self.file), "sha256": self.sha256}


_loaded: dict[str, Plugin] = {}


def load_plugin(path: str | Path) -> None:
    """Run a user's Python file, so that it can register things; once, however often it is asked for."""
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise DataError(f"{path}: there is no such plugin; give a Python file.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    before = _loaded.get(str(file))
    if before is not None and before.sha256 == digest:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and worker processes look their module up
    with noted() as names:
        spec.loader.exec_module(module)
    _loaded[str(file)] = Plugin(file.stem, frozenset(names), file, digest)


def load_installed(names: Collection[str] | None = None) -> None:
    """Load the plug-ins of installed packages, or some of them; one that fails is an error that names it."""
    for entry in _installed():
        if entry.name in _loaded or (names is not None and entry.name not in names):
            continue
        try:
            with noted() as provided:
                entry.load()
        except Exception as error:
            raise DataError(
                f"The plug-in '{entry.name}' ({entry.value}) can't be loaded: {type(error).__name__}: {error}. "
                "Mend or uninstall its package."
            ) from error
        _loaded[entry.name] = Plugin(entry.name, frozenset(provided))


def used(names: Iterable[str | None]) -> list[dict[str, str]]:
    """Tell which plug-ins something rests on that uses these names: files always, packages if a name is theirs."""
    wanted = set(names)
    return [plugin.told() for plugin in _loaded.values() if plugin.file is not None or plugin.provides & wanted]


def require(told: Iterable[Mapping[str, Any]], *, where: Path) -> None:
    """Make sure that what a run was made with is there: packages are loaded, files must have been."""
    told = list(told)
    wanted = {str(plugin["name"]) for plugin in told if "name" in plugin}
    load_installed(wanted)
    if missing := sorted(wanted - set(_loaded)):
        raise CheckpointError(
            f"{where} was made with the plug-in '{missing[0]}', which is not installed. Install the package that has "
            "it."
        )
    digests = {plugin.sha256 for plugin in _loaded.values()}
    stems = {plugin.name for plugin in _loaded.values() if plugin.file is not None}
    for plugin in told:
        if "file" not in plugin or plugin.get("sha256") in digests:
            continue
        file = Path(str(plugin["file"]))
        if file.stem not in stems:
            raise CheckpointError(
                f"{where} was made with the plug-in {file}. Code that a run names is not run unasked: look at the "
                f"file, and add '--plugin {file}' to the command; in Python: medsegdiff.plugins.load_plugin('{file}')."
            )
        log.warning("%s was made with another version of the plug-in %s.", where, file.name)


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)
