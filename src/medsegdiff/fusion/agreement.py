"""Label maps of several members, taken apart where these agree and where they differ: of most images few pixels do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from medsegdiff.fusion.cells import Ballots

APART = 255
"""No label: members differ."""


@dataclass(frozen=True)
class Agreement:
    """What members say of some pixels."""

    agreed: UInt8[np.ndarray, " n"]
    """What all of them say, or `APART`."""
    where: Int[np.ndarray, " d"]
    """Pixels in which they differ."""
    differing: UInt8[np.ndarray, "m d"]
    """What they say there."""

    @classmethod
    def of(cls, maps: UInt8[np.ndarray, "m n"]) -> Agreement:
        """Look at label maps."""
        where = np.flatnonzero(np.bitwise_or.reduce(maps ^ maps[0]))
        agreed = maps[0].copy()
        agreed[where] = APART
        return cls(agreed, where, maps[:, where])

    def ballots(self, label: int) -> Ballots:
        """Pack the votes for a label."""
        alike, apart = self.agreed == label, Ballots.of(self.differing == label)
        everyone = Ballots.of(np.ones((len(self.differing), 1), bool)).numbers
        numbers = np.where(alike, everyone, np.zeros_like(everyone))
        numbers[self.where] = apart.numbers
        return Ballots(numbers, apart.sizes + np.count_nonzero(alike))
