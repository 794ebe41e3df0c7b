"""How the numbers of an evaluation come about, in words that are written with them."""

from __future__ import annotations

from medsegdiff.evaluation.lesions import rule_in_words
from medsegdiff.evaluation.results import Setup

CONVENTIONS = {
    "case": "Each case is scored on its native grid; of several structures, a case has the mean.",
    "mean": "The mean over cases; where cases belong to groups (patients), over the means of groups.",
    "ci95": "Bootstrap over cases, or groups: 2000 resamples, percentile interval, seed 0.",
}
"""How the numbers come about; written with every result, and the definitions of metrics with them."""

CHOSEN = (
    "They stand for all candidates: ged, hm_iou, d_max, size_crps and agreement are those of this choice, no estimates "
    "from as many independent draws. What a perfect sampler's independent members have (expected_ged) is no floor for "
    "their ged."
)
"""What chosen members do to the metrics of ensembles."""
DIFFERENT = "With more of them hm_iou and d_max are larger, ged and size_crps smaller: means over all cases mix both."
"""What numbers of members that differ do to them."""
FAILURE = {
    "failure": "Over cases, the most certain first: aurc is the mean, over all numbers of cases kept, of their mean "
    "1 − Dice; excess_aurc is what exceeds the best order's; spearman the rank correlation with risk. random: cases in "
    "any order."
}
"""How failure detection is scored."""


def of_setup(setup: Setup) -> dict[str, str]:
    """Say what depends on what was scored: the tolerance, the members, where the probability comes from."""
    said = {}
    if setup.tolerance is not None:
        said["tolerance"] = f"Of nsd here: {setup.tolerance:g} {setup.unit}."
    if setup.lesions is not None:
        said["lesion"] = rule_in_words(setup.lesions)
    if setup.members_are:
        said["members"] = f"{setup.members_are}. {CHOSEN}"
    elif setup.members and setup.members_least != setup.members:
        said["members"] = f"Cases have {setup.members_least or 0} to {setup.members} of them. {DIFFERENT}"
    if setup.probability_is:
        said["probability"] = setup.probability_is
    return said
