"""One mechanism for everything pluggable: a name, a factory and some facts about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from medsegdiff.errors import ConfigError, nearest

Factory = TypeVar("Factory", bound=Callable[..., Any])
Registered = TypeVar("Registered", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[Factory]):
    """A registered factory and the facts that `medsegdiff list` prints about it."""

    name: str
    factory: Factory
    facts: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[Factory]):
    """Names of one kind (models, samplers, …) and how to build what they stand for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[Factory]] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Registered], Registered]:
        """Decorate a factory so that it is known by name.

        Args:
            name: The name users write.
            **facts: What there is to know about it without building it.

        Returns:
            The decorator, which gives the factory back unchanged.

        Raises:
            ConfigError: If the name is taken.
        """
        if name in self._entries:
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name.")

        def decorate(factory: Registered) -> Registered:
            self._entries[name] = Entry(name, cast(Factory, factory), facts)
            return factory

        return decorate

    def __getitem__(self, name: str) -> Entry[Factory]:
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise ConfigError(f"No {self.kind} '{name}'. Known: {known}.{nearest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[Factory]]:
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
