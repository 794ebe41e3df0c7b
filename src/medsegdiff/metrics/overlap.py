"""Overlap of masks: Dice and IoU."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from medsegdiff.metrics.base import METRICS, Empty, check_masks, value_if_empty

EMPTY = Empty(no_reference=0.0, no_prediction=0.0, both=1.0)


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
    check_masks(prediction, reference)
    value = value_if_empty(prediction, reference, empty or EMPTY)
    if value is not None:
        return value
    return float(
        2 * np.count_nonzero(prediction & reference) / (np.count_nonzero(prediction) + np.count_nonzero(reference))
    )


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
        In [0, 1]; never below Dice / (2 − Dice) on average over cases.
    """
    check_masks(prediction, reference)
    value = value_if_empty(prediction, reference, empty or EMPTY)
    if value is not None:
        return value
    return float(np.count_nonzero(prediction & reference) / np.count_nonzero(prediction | reference))
