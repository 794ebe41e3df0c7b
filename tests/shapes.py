"""Types of every call, and shapes where there are any, are checked in tests, at the price of what is checked.

``--jaxtyping-packages`` gives every function of the package a context for the names of axes. That costs 0.05 ms a call
and four compilations when it is defined; the tests took twice as long. Only functions whose annotations hold arrays
need it: to the others beartype alone says the same.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping

LIBRARIES = ("accelerate", "matplotlib.pyplot", "monai.transforms", "nibabel", "scipy.ndimage", "scipy.stats")
"""Imported before the package: while one of its modules is loaded, the hook has others compiled from their source."""

_in_context = jaxtyping.jaxtyped


def checked(target: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Decorate a function or dataclass, as `jaxtyping.jaxtyped` does."""
    if target is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(target):
        if dataclasses.is_dataclass(target) and "__init__" in vars(target):
            target.__init__ = checked(target.__init__, typechecker=typechecker)
        return target
    hints = {name: _resolved(hint, target.__globals__) for name, hint in target.__annotations__.items()}
    if any(map(_has_shape, hints.values())):
        return _in_context(target, typechecker=typechecker)
    told = target.__annotations__
    target.__annotations__ = hints
    wrapped = typechecker(target)
    target.__annotations__ = wrapped.__annotations__ = told
    return wrapped


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Evaluate an annotation; what cannot be yet, such as the class whose method it belongs to, is not checked."""

    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001
        return Any


def _has_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape, get_args(hint))) if not isinstance(hint, list) else any(map(_has_shape, hint))


for library in LIBRARIES:
    importlib.import_module(library)
jaxtyping.jaxtyped = checked
