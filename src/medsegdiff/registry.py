"""One mechanism for everything pluggable: a name, a factory and some facts about it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Generic, TypeVar, cast

from medsegdiff.errors import ConfigError, nearest

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
        self._entries: dict[str, Entry[Factory, Facts]] = {}

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
        if name in self._entries:
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
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[Factory, Facts]]:
        return iter(self._entries.values())

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
