"""What a metric is: a function of two masks, with its unit, its direction and its values for empty masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from medsegdiff.errors import ShapeError
from medsegdiff.registry import Registry


@dataclass(frozen=True)
class Empty:
    """What a metric gives where one or both masks are empty. Libraries differ here; we say it."""

    no_reference: float
    """The reference is empty, the prediction is not."""
    no_prediction: float
    """The prediction is empty, the reference is not."""
    both: float
    """Both are empty."""


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


METRICS: Registry[Metric] = Registry("metric")


def check_masks(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Refuse masks that do not lie on the same grid.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.

    Raises:
        ShapeError: If the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ShapeError(f"The prediction is {prediction.shape}, the reference {reference.shape}; they must be equal.")


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


def value_if_empty(prediction: np.ndarray, reference: np.ndarray, empty: Empty) -> float | None:
    """Apply a table of empty cases.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        empty: The table.

    Returns:
        The value, or ``None`` where neither is empty.
    """
    if prediction.any() and reference.any():
        return None
    if reference.any():
        return empty.no_prediction
    return empty.no_reference if prediction.any() else empty.both
