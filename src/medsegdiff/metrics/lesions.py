"""Counting lesions: which are found, and how well each is drawn. A lesion is an instance of a structure.

What is made of the counts is in `medsegdiff.metrics.lesion_scores`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int32
from scipy.ndimage import binary_dilation, generate_binary_structure

from medsegdiff.errors import ConfigError
from medsegdiff.metrics.base import LESION_METRICS, SLACK, check_shapes
from medsegdiff.metrics.instances import UNIQUE, Overlaps, box_around, components, neighbourhood

Instances = Literal["components", "drawn"]
"""What the lesions of a reference are: connected components of its mask, or what annotators drew one by one."""


@dataclass(frozen=True)
class LesionRule:
    """What counts as a lesion, and when one is found."""

    instances: Instances = "components"
    iou: float = 0.5
    """A reference and a predicted lesion are a pair where their IoU is above; PQ has ½ whatever this is."""
    above: float = 0.0
    """Only larger lesions count: mm³ in volumes, pixels in pictures."""
    connectivity: int | None = None
    """Neighbours of a pixel in its component; ``None``: all, 8 in pictures and 26 in volumes."""
    dilation: int | None = None
    """Pixels by which lesions grow before those that meet count as one for ``lesion_dice``; ``None``: 3 in volumes, 0
    in pictures and of what was drawn one by one."""

    def settled(self, ndim: int) -> LesionRule:
        """Put numbers in the place of ``None``, and refuse what does not fit.

        Args:
            ndim: Axes of the masks.

        Returns:
            The rule for them.

        Raises:
            ConfigError: If a value is not allowed.
        """
        if not 0 <= self.iou < 1:
            raise ConfigError(f"The IoU of a pair must be above {self.iou:g}; allowed are 0 up to, but not, 1.")
        if self.above < 0 or (self.dilation or 0) < 0:
            raise ConfigError(f"Lesions above {self.above:g}, dilated by {self.dilation}: neither may be below 0.")
        drawn = self.instances == "drawn"
        if drawn and self.dilation:
            raise ConfigError(
                f"Lesions are as drawn, so none are joined, and a dilation by {self.dilation} has no meaning. Leave it "
                "out, or count connected components."
            )
        connectivity = {2: 8, 3: 26}[ndim] if self.connectivity is None else self.connectivity
        neighbourhood(connectivity, ndim)
        unasked = 0 if drawn or ndim < 3 else 3
        return replace(self, connectivity=connectivity, dilation=unasked if self.dilation is None else self.dilation)


def share(part: int | float, whole: int) -> float:
    """Divide, where there is anything.

    Args:
        part: Of it.
        whole: All of it.

    Returns:
        The share; NaN of nothing.
    """
    return part / whole if whole else float("nan")


@dataclass(frozen=True)
class Matching:
    """How many lesions were paired, and how many were not. ``a + b`` pools."""

    tp: int = 0
    """Pairs."""
    fp: int = 0
    """Predicted lesions without a partner."""
    fn: int = 0
    """Reference lesions without one."""
    iou: float = 0.0
    """Sum over the pairs."""

    def __add__(self, other: Matching) -> Matching:
        return Matching(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou + other.iou)

    @property
    def f1(self) -> float:
        """2TP / (2TP + FP + FN); NaN where there is no lesion."""
        return share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class Lesions:
    """What is counted of the lesions of one structure; a metric is a function of it. ``a + b`` pools cases."""

    matching: Matching
    """Above the IoU of the rule."""
    panoptic: Matching
    """Above ½."""
    dice: float
    """Sum over the reference lesions that count."""
    dice_of: int
    """How many these are, and the predicted ones that touch none, which add 0."""
    without: int = 0
    """Comparisons with no lesion on either side."""

    def __add__(self, other: Lesions) -> Lesions:
        return Lesions(
            self.matching + other.matching,
            self.panoptic + other.panoptic,
            self.dice + other.dice,
            self.dice_of + other.dice_of,
            self.without + other.without,
        )

    def __str__(self) -> str:
        """Say it in words."""
        of = self.matching
        alone = f"; {self.without} comparisons without any" if self.without else ""
        return f"{of.tp} of {of.tp + of.fn} found, {of.fp} false{alone}"

    def numbers(self) -> dict[str, float]:
        """Compute all registered metrics of lesions.

        Returns:
            By metric; NaN where it is not defined.
        """
        return {entry.name: entry.factory(self) for entry in LESION_METRICS}

    def to_dict(self) -> dict[str, Any]:
        """Give counts and metrics as plain values.

        Returns:
            The counts are those of ``matching``.
        """
        found = self.matching
        counts = {"tp": found.tp, "fp": found.fp, "fn": found.fn, "without": self.without}
        return {**counts, **self.numbers()}


def count_lesions(
    prediction: Bool[np.ndarray, "*s"],
    reference: Bool[np.ndarray, "*s"],
    *,
    rule: LesionRule,
    pixel: float = 1.0,
    drawn: Int32[np.ndarray, "*s"] | None = None,
) -> Lesions:
    """Count the lesions of a predicted mask against those of a reference.

    Pairs are made of all lesions, then those count whose reference lesion is large enough; one without a partner counts
    if it is large enough itself. So whoever finds a small lesion is not charged with a false one.

    Memory is about 20 bytes for each pixel of the box around both masks.

    Args:
        prediction: Predicted mask; its lesions are connected components.
        reference: Reference mask.
        rule: What counts.
        pixel: Size of a pixel, in the unit of ``rule.above``.
        drawn: Lesions of the reference, numbered from 1; ``None``: the connected components of its mask.

    Returns:
        The counts.

    Raises:
        ConfigError: If the rule does not fit masks of so many axes.
    """
    check_shapes(prediction=prediction, reference=reference, **({} if drawn is None else {"drawn": drawn}))
    rule = rule.settled(prediction.ndim)
    assert rule.connectivity is not None
    assert rule.dilation is not None
    box = box_around(prediction | (reference if drawn is None else drawn > 0))  # dilations that meet, meet inside
    if box is None:
        return Lesions(Matching(), Matching(), 0.0, 0, without=1)
    found = components(prediction[box], connectivity=rule.connectivity)
    true = components(reference[box], connectivity=rule.connectivity) if drawn is None else drawn[box]
    overlaps, limit = Overlaps.of(true, found), rule.above * (1 + SLACK) / pixel
    panoptic = _matching(overlaps, UNIQUE, limit)
    return Lesions(
        _matching(overlaps, rule.iou, limit),
        panoptic,
        *_dice(true, found, overlaps, limit=limit, dilation=rule.dilation, connectivity=rule.connectivity),
        without=int(not (panoptic.tp or panoptic.fp or panoptic.fn)),
    )


def _matching(overlaps: Overlaps, iou: float, limit: float) -> Matching:
    """Pair lesions, then leave out those of ``limit`` pixels and less."""
    chosen = overlaps.matched(iou)
    true, found = overlaps.pairs[chosen].T
    large, alone = overlaps.references > limit, overlaps.predictions > limit
    alone[found] = False
    counted = large[true]
    tp = int(np.count_nonzero(counted))
    missed = int(np.count_nonzero(large)) - tp
    return Matching(tp, int(np.count_nonzero(alone)), missed, float(overlaps.iou[chosen][counted].sum()))


def _dice(
    true: Int32[np.ndarray, "*s"],
    found: Int32[np.ndarray, "*s"],
    overlaps: Overlaps,
    *,
    limit: float,
    dilation: int,
    connectivity: int,
) -> tuple[float, int]:
    """Sum up the Dice of each reference lesion with all predicted ones in its reach, and tell of how many it is.

    Lesions whose dilations meet are one lesion, and a dilated component is what it reaches.
    """
    touching = overlaps
    if dilation:
        grown = binary_dilation(true > 0, generate_binary_structure(true.ndim, 2), iterations=dilation)
        reach = components(grown, connectivity=connectivity)
        overlaps, touching = (Overlaps.of(of, found) for of in (np.where(true > 0, reach, 0), reach))
    lesions = len(overlaps.references)
    common = np.bincount(overlaps.pairs[:, 0], weights=overlaps.common, minlength=lesions)
    reached, by = touching.pairs.T
    total = np.bincount(reached, weights=touching.predictions[by], minlength=lesions) + overlaps.references
    large = overlaps.references > limit
    alone = len(touching.predictions) - len(np.unique(by))
    return float((2 * common[large] / total[large]).sum()), int(np.count_nonzero(large)) + alone
