"""What numbers of ensembles and probabilities mean, and which way they get better. Metrics of masks tell themselves."""

from __future__ import annotations

from dataclasses import dataclass

from medsegdiff.metrics.base import METRICS


@dataclass(frozen=True)
class Described:
    """A number that is computed from members, probabilities or several raters."""

    definition: str
    """With its values where masks are empty."""
    better: str = ""
    """``higher``, ``lower``, or nothing where neither is."""


ENSEMBLE = {
    "ged": Described(
        "Squared generalised energy distance of members and raters, 2E[d(S,R)] − E[d(S,S')] − E[d(R,R')] with"
        " d = 1 − IoU over all pairs, 0 for two empty masks; only for cases with two raters or more; compares"
        " only at the same number of members.",
        "lower",
    ),
    "hm_iou": Described(
        "IoU of members and raters matched one to one (Hungarian), both repeated to their least common "
        "multiple; two empty masks 1.",
        "higher",
    ),
    "d_max": Described(
        "Mean over raters of the Dice of the member that suits each best; two empty masks 1.",
        "higher",
    ),
    "rater_dice": Described(
        "Mean Dice of each member with each rater; two empty masks 1. dice@RATER: of the fused mask.",
        "higher",
    ),
    "agreement": Described(
        "Mean Dice of all pairs of members; two empty masks 1; the paper's CI is not defined, this stands for it.",
    ),
    "ece": Described(
        "Expected calibration error of the foreground's probability, 15 bins of equal width, over all pixels "
        "of a case; against the share of raters.",
        "lower",
    ),
    "ece_near": Described(
        "The same over pixels up to 10 steps away from the masks, where it is not easy; left out where both are empty.",
        "lower",
    ),
    "brier": Described(
        "Mean squared difference of the probability and the share of raters.",
        "lower",
    ),
    "aurc": Described(
        "Area under the error rate of the pixels kept, against the share kept, the most certain first; "
        "uncertainty is the map that was saved with the masks, else the entropy of the probability.",
        "lower",
    ),
    "excess_aurc": Described(
        "aurc minus that of the best order there can be.",
        "lower",
    ),
}
"""By name, as they stand in ``metrics.json``."""


def better(metric: str) -> str:
    """Tell which way a number gets better.

    Args:
        metric: Its name; that of a structure (``dice/cup``) or of a rater (``dice@rater1``) may follow.

    Returns:
        ``higher``, ``lower``, or nothing where neither is, or it is not known.
    """
    name = metric.partition("/")[0].partition("@")[0]
    if name in ENSEMBLE:
        return ENSEMBLE[name].better
    return str(METRICS[name].facts.get("better", "")) if name in METRICS else ""
