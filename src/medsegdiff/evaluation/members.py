"""Dice against the number of members, from the members that were saved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medsegdiff.data.dataset import Track
from medsegdiff.evaluation.case import structures_of
from medsegdiff.evaluation.matching import Pairing
from medsegdiff.fusion.curve import Curve, ensemble_curve

MOST_CASES = 100
"""Cases that are looked at, evenly spread over all of them: what a curve over members shows needs no more."""
REPEATS = 5
"""Subsets of each size."""


def curve_of(pairing: Pairing, track: Track) -> Curve | None:
    """Score subsets of the members, fused by majority, each structure by itself.

    ``medsegdiff benchmark ensemble`` does it with the model's own fusion and more draws.
    """
    least = min((pairing.predictions.count(name) for name in pairing.names), default=0)
    if least < 3:
        return None
    step = -(-len(pairing.names) // MOST_CASES)

    def cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for name in track(pairing.names[::step], "Members"):
            found = list(structures_of(name, pairing))
            members = [structure.members for structure in found if structure.members is not None]
            yield np.stack(members, axis=1)[:least], np.stack([structure.reference for structure in found])

    return ensemble_curve(cases(), fusion="majority", repeats=REPEATS)
