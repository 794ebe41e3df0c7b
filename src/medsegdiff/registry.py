"""One mechanism for everything pluggable: a name, a factory and some facts about it; and code of others.

A package names its module in the entry-point group ``medsegdiff.plugins``; it is loaded with every command. A file is
loaded when the user names it, and never because a run does: whoever gave the run could have written the file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, cast

from medsegdiff.errors import CheckpointError, ConfigError, DataError, nearest

Factory = TypeVar("Factory", bound=Callable[..., Any])
Facts = TypeVar("Facts")
Registered = TypeVar("Registered", bound=Callable[..., Any])
_NOTED: list[set[str]] = []


@dataclass(frozen=True)
class Entry(Generic[Factory, Facts]):
    """A registered factory and the facts that `medsegdiff list` prints about it."""

    name: str
    factory: Factory
    facts: Facts

    def described(self) -> dict[str, Any]:
        """Name and facts as plain values."""
        facts: Any = self.facts
        return {"name": self.name, **(dict(facts) if isinstance(facts, Mapping) else asdict(facts))}


class Registry(Generic[Factory, Facts]):
    """Names of one kind (models, samplers, …) and how to build what they stand for.

    ``facts`` makes the record of what is known of each from keywords: a dataclass where all have the same facts, else
    ``dict``.
    """

    def __init__(self, kind: str, facts: Callable[..., Facts]) -> None:
        self.kind, self.facts = kind, facts
        self._entries: dict[str, Entry[Factory, Facts] | str] = {}  # a string names the module that will register it

    def expect(self, module: str, *names: str) -> None:
        """Say what a module will register: it is imported when one of these names is asked for."""
        self._entries.update(dict.fromkeys(names, module))

    def register(self, name: str, **facts: Any) -> Callable[[Registered], Registered]:
        """Decorate a factory so that it is known by name.

        Args:
            name: The name users write.
            **facts: What there is to know about it without building it.

        Returns:
            The decorator, which gives the factory back unchanged.

        Raises:
            ConfigError: If the name is taken, or the facts are not those of its kind.
        """
        if self._entries.get(name, _importing()) != _importing():
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name.")
        try:
            record = self.facts(**facts)
        except TypeError:
            known = ", ".join(inspect.signature(self.facts).parameters)
            raise ConfigError(
                f"{self.kind} '{name}' is registered with the facts {', '.join(facts) or 'none'}; "
                f"those of a {self.kind} are {known}. Give those."
            ) from None

        def decorate(factory: Registered) -> Registered:
            self._entries[name] = Entry(name, cast(Factory, factory), record)
            for names in _NOTED:
                if not _importing().startswith("medsegdiff."):
                    names.add(name)
            return factory

        return decorate

    def __getitem__(self, name: str) -> Entry[Factory, Facts]:
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise ConfigError(f"No {self.kind} '{name}'. Known: {known}.{nearest(name, self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            importlib.import_module(entry)
            return self[name]
        return entry

    def __iter__(self) -> Iterator[Entry[Factory, Facts]]:
        return (self[name] for name in tuple(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def build(self, name: str, *args: Any, **options: Any) -> Any:
        """Call the factory registered under a name.

        Args:
            name: The registered name.
            *args: Passed on.
            **options: Passed on.

        Returns:
            What the factory makes.
        """
        return self[name].factory(*args, **options)


@contextmanager
def noted() -> Iterator[set[str]]:
    """Note the names that others than this package register meanwhile, in any registry."""
    names = set[str]()
    _NOTED.append(names)
    try:
        yield names
    finally:
        _NOTED.pop()


def _importing() -> str:
    """Name the module that is being imported."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals["__name__"])


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
                f"file, and add '--plugin {file}' to the command; in Python: medsegdiff.registry.load_plugin('{file}')."
            )
        log.warning("%s was made with another version of the plug-in %s.", where, file.name)


def _installed() -> Iterable[EntryPoint]:
    return tuple(entry_points(group=GROUP))
