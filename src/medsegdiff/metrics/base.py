"""What a metric is: a function with its definition, its direction and its values for empty masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from medsegdiff.errors import ShapeError
from medsegdiff.registry import Registry

SLACK = 1e-6
"""Relative error of floating-point distances and volumes: ten pixels of 0.7 mm are within 7 mm."""


@dataclass(frozen=True)
class Empty:
    """What a metric gives where one or both masks are empty. Libraries differ here; we say it."""

    no_reference: float
    """The reference is empty, the prediction is not."""
    no_prediction: float
    """The prediction is empty, the reference is not."""
    both: float
    """Both are empty."""

    def value(self, *, prediction: bool, reference: bool) -> float:
        """Choose by what holds anything.

        Args:
            prediction: Whether the prediction does.
            reference: Whether the reference does; not both do.

        Returns:
            The value.
        """
        if reference:
            return self.no_prediction
        return self.no_reference if prediction else self.both


@runtime_checkable
class Metric(Protocol):
    """Compares a predicted mask with a reference."""

    def __call__(
        self,
        prediction: Bool[np.ndarray, "*s"],
        reference: Bool[np.ndarray, "*s"],
        *,
        spacing: tuple[float, ...],
        empty: Empty | None = None,
    ) -> float:
        """Compute.

        Args:
            prediction: Predicted mask.
            reference: Reference mask.
            spacing: Size of a pixel by array axis.
            empty: Values for empty masks; ``None`` takes the metric's own.

        Returns:
            The value.
        """
        ...


METRICS: Registry[Metric, dict[str, Any]] = Registry("metric", dict)
"""Metrics of two masks, with their ``definition`` and ``better``: ``higher`` or ``lower``."""
ENSEMBLE_METRICS: Registry[Callable[..., Any], dict[str, Any]] = Registry("ensemble metric", dict)
"""Numbers of members, probabilities or several raters; ``better`` is empty where neither way is."""
LESION_METRICS: Registry[Callable[..., float], dict[str, Any]] = Registry("lesion metric", dict)
"""Numbers of the lesions that were counted, with the same facts as metrics of masks."""


def better(metric: str) -> str:
    """Tell which way a metric gets better.

    Args:
        metric: Its name.

    Returns:
        ``higher``, ``lower``, or nothing where neither is, or it is not known.
    """
    return _fact(metric, "better")


def definition(metric: str) -> str:
    """Tell how a metric is defined, with its values where masks are empty.

    Args:
        metric: Its name.

    Returns:
        Words; nothing of a metric that does not say it.
    """
    return _fact(metric, "definition")


def _fact(metric: str, name: str) -> str:
    known = next((of for of in (METRICS, ENSEMBLE_METRICS, LESION_METRICS) if metric in of), None)
    return "" if known is None else str(known[metric].facts.get(name, ""))


def check_shapes(**arrays: np.ndarray) -> None:
    """Refuse arrays that do not lie on the same grid.

    Args:
        **arrays: By what they are.

    Raises:
        ShapeError: If the shapes differ.
    """
    if len({array.shape for array in arrays.values()}) > 1:
        given = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ShapeError(f"The shapes are {given}; they must be equal.")
