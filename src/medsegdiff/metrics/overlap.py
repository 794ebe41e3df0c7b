"""Overlap of masks: Dice, IoU, sensitivity, specificity, precision, error of volume; all from one count of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool

from medsegdiff.metrics.base import METRICS, Empty
from medsegdiff.metrics.counts import Counts

EMPTY = Empty(no_reference=0.0, no_prediction=0.0, both=1.0)


FORMULAS: dict[str, Callable[[Counts], float]] = {
    "dice": lambda c: 2 * c.both / (c.prediction + c.reference),
    "iou": lambda c: c.both / (c.prediction + c.reference - c.both),
    "sensitivity": lambda c: c.both / c.reference,
    "specificity": lambda c: c.specificity,
    "precision": lambda c: c.both / c.prediction,
    "volume_error": lambda c: abs(c.difference),
}
"""What each metric makes of the counts where neither mask is empty."""


def overlap_scores(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Mapping[str, Empty] | None = None,
) -> dict[str, float]:
    """Compute all metrics of overlap from one count.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference: all pixels are equally large.
        empty: Values for empty masks by metric; those not named keep their own.

    Returns:
        By metric, equal to those of the functions of these names.
    """
    counts = Counts.of(prediction, reference)
    tables = {name: _table(name, counts) for name in FORMULAS} | dict(empty or {})
    return {name: counts.value(formula, tables[name]) for name, formula in FORMULAS.items()}


def volume_difference(prediction: Bool[np.ndarray, "*s"], reference: Bool[np.ndarray, "*s"]) -> float:
    r"""Compute the signed relative difference of volumes, :math:`100 (|P| - |R|) / |R|`.

    Its mean over cases shows whether volumes come out too large or too small; ``volume_error`` is its size.

    Source: Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.

    Returns:
        In %, from −100 up, above 0 where the prediction is the larger; no reference 100, both empty 0.
    """
    counts = Counts.of(prediction, reference)
    return counts.value(lambda c: c.difference, Empty(no_reference=100.0, no_prediction=-100.0, both=0.0))


def _table(name: str, counts: Counts) -> Empty:
    """Say what a metric gives for empty masks."""
    if name == "specificity":
        return Empty(no_reference=counts.specificity, no_prediction=1.0, both=1.0)
    return Empty(no_reference=100.0, no_prediction=100.0, both=0.0) if name == "volume_error" else EMPTY


def _score(name: str, prediction: np.ndarray, reference: np.ndarray, empty: Empty | None) -> float:
    counts = Counts.of(prediction, reference)
    return counts.value(FORMULAS[name], empty or _table(name, counts))


@METRICS.register(
    "dice",
    better="higher",
    definition="2|P∩R| / (|P|+|R|); no reference 0, no prediction 0, both empty 1.",
)
def dice(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute the Dice coefficient :math:`2|P \cap R| / (|P| + |R|)`.

    Source: Dice (1945).

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference: all pixels are equally large.
        empty: Values for empty masks; ``None``: 0, 0, and 1 for both empty.

    Returns:
        In [0, 1].

    Example:
        >>> dice(np.array([True, True]), np.array([True, False]))
        0.6666666666666666
    """
    return _score("dice", prediction, reference, empty)


@METRICS.register(
    "iou",
    better="higher",
    definition="|P∩R| / |P∪R|; no reference 0, no prediction 0, both empty 1.",
)
def iou(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute intersection over union :math:`|P \cap R| / |P \cup R|`.

    Source: Jaccard (1912).

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference.
        empty: Values for empty masks; ``None``: 0, 0, and 1 for both empty.

    Returns:
        In [0, 1]; Dice / (2 − Dice) in each case, and never below that on average over cases.
    """
    return _score("iou", prediction, reference, empty)


@METRICS.register(
    "sensitivity",
    better="higher",
    definition="|P∩R| / |R|; no reference 0, no prediction 0, both empty 1.",
)
def sensitivity(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute the share of the reference that is found, :math:`|P \cap R| / |R|`; also called recall.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference.
        empty: Values for empty masks; ``None``: 0, 0, and 1 for both empty.

    Returns:
        In [0, 1].
    """
    return _score("sensitivity", prediction, reference, empty)


@METRICS.register(
    "specificity",
    better="higher",
    definition="Share of what is outside of R that is outside of P; no reference by the same formula, no prediction 1, "
    "both empty 1; nothing outside of R 1.",
)
def specificity(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute the share of the outside that is left out, :math:`|\bar P \cap \bar R| / |\bar R|`.

    It depends on how much background the picture shows: in most pictures it is close to 1.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference.
        empty: Values for empty masks; ``None``: the formula without a reference, 1, and 1 for both empty.

    Returns:
        In [0, 1]; 1 where the reference fills the grid.
    """
    return _score("specificity", prediction, reference, empty)


@METRICS.register(
    "precision",
    better="higher",
    definition="|P∩R| / |P|; no reference 0, no prediction 0, both empty 1.",
)
def precision(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute the share of the prediction that is right, :math:`|P \cap R| / |P|`.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference.
        empty: Values for empty masks; ``None``: 0, 0, and 1 for both empty.

    Returns:
        In [0, 1].
    """
    return _score("precision", prediction, reference, empty)


@METRICS.register(
    "volume_error",
    better="lower",
    definition="100 ||P|−|R|| / |R| in %; no reference 100, no prediction 100, both empty 0.",
)
def volume_error(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    spacing: tuple[float, ...] = (),
    empty: Empty | None = None,
) -> float:
    r"""Compute the relative error of the volume (or area), :math:`100\,\bigl||P| - |R|\bigr| / |R|`.

    The sign is in ``volume_difference``.

    Source: Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.

    Args:
        prediction: Predicted mask.
        reference: Reference mask.
        spacing: Makes no difference: it is relative.
        empty: Values for empty masks; ``None``: 100, 100, and 0 for both empty.

    Returns:
        In %, from 0 up: without bound where the prediction is much too large.
    """
    return _score("volume_error", prediction, reference, empty)
