"""What a mask of an untrained model looks like: empty, full, scattered like noise, or drawn anew by each member.

Works from the mask alone; what members have in common is used where it is known. Knows no file and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8

Suspicion = Literal["", "empty", "full", "scattered", "unlike"]
"""What is wrong with a mask, if anything."""

FULL = 0.99
"""Share of foreground from which a mask is full."""
SPARSE = 0.005
"""Share of foreground below which a mask holds too little to tell scattered pixels from small structures."""
ROUGH = 0.7
"""Roughness from which a mask is scattered: lines that are a pixel wide have 0.5, a disc of 40 pixels less than 0.2."""
ALIKE = 0.2
"""Alikeness below which members share nothing."""
GRID = 64
"""Pixels per axis that are looked at, so that noise which was enlarged with its image is still seen as noise."""
WORDS: dict[Suspicion, str] = {
    "empty": "empty",
    "full": "full",
    "scattered": "scattered like noise",
    "unlike": "of members that agree no more than by chance",
}


@dataclass(frozen=True)
class Appearance:
    """What is seen of a mask."""

    foreground: float
    """Share of the grid."""
    roughness: float
    """See `roughness`."""
    alikeness: float | None = None
    """See `alikeness`; ``None`` where there are no members."""
    members: float | None = None
    """Mean share of foreground of the members."""

    @property
    def suspicion(self) -> Suspicion:
        """What is wrong with the mask; empty where nothing is."""
        if self.foreground >= FULL:
            return "full"
        if self.foreground >= SPARSE and self.roughness > ROUGH:
            return "scattered"
        if self.alikeness is not None and self.alikeness < ALIKE and (self.members or 0.0) >= SPARSE:
            return "unlike"
        return "" if self.foreground else "empty"


def appearance_of(
    mask: Bool[np.ndarray, "*s"] | UInt8[np.ndarray, "*s"],
    *,
    agreement: float | None = None,
    members: float | None = None,
) -> Appearance:
    """Look at a mask: a fused one with what its members have in common, or any mask alone.

    Args:
        mask: 0 and 1, in any number of dimensions; of several structures the largest.
        agreement: Mean Dice of pairs of members; ``None`` for a single mask.
        members: Mean share of foreground of the members; ``None`` takes the mask's.

    Returns:
        Its appearance.
    """
    foreground = float(mask.mean()) if mask.size else 0.0
    share = foreground if members is None else members
    alike = None if agreement is None else alikeness(agreement, share)
    return Appearance(foreground, roughness(mask), alike, None if agreement is None else share)


def roughness(mask: Bool[np.ndarray, "*s"] | UInt8[np.ndarray, "*s"]) -> float:
    r"""Compare how often neighbours differ with how often they would in a mask of independent pixels.

    Of those with a share p of foreground, :math:`2p(1-p)` differ. About 1 for noise, near 0 for compact structures.

    Args:
        mask: 0 and 1; every so many pixels of it are looked at, `GRID` per axis.

    Returns:
        From 0; 0 for a mask of one value.
    """
    coarse = mask[tuple(slice(None, None, max(1, -(-size // GRID))) for size in mask.shape)].astype(bool)
    share = float(coarse.mean()) if coarse.size else 0.0
    pairs = [np.diff(coarse, axis=axis) for axis in range(coarse.ndim)]
    count = sum(pair.size for pair in pairs)
    if not count or share in (0.0, 1.0):
        return 0.0
    return float(sum(int(pair.sum()) for pair in pairs) / count / (2 * share * (1 - share)))


def alikeness(agreement: float, foreground: float) -> float:
    """Correct the agreement of members for chance: independent masks with a share p of foreground have a Dice of p.

    Args:
        agreement: Mean Dice of pairs of members.
        foreground: p, their mean share of foreground.

    Returns:
        0 for independent members, 1 for equal ones, and for members that are full.
    """
    return 1.0 if foreground >= FULL else (agreement - foreground) / (1 - foreground)


def warning_of(seen: Sequence[Appearance], *, what: str = "masks") -> str:
    """Say so if masks look like those of a model that has not been trained long enough.

    That is, if all are empty, or if half of those that are not empty are full, scattered or unlike: single empty
    masks are common where not every image holds the structure.

    Args:
        seen: Of all masks.
        what: They are, in the plural.

    Returns:
        A sentence that tells what was seen in how many, or nothing.
    """
    return warning_of_kinds(Counter(appearance.suspicion for appearance in seen), what=what)


def warning_of_kinds(kinds: Counter[Suspicion], *, what: str = "masks") -> str:
    """Say the same of masks that were counted."""
    count = kinds.total()
    strange = count - kinds[""] - kinds["empty"]
    if not count or 2 * strange < count - kinds["empty"] or (strange == 0 and kinds["empty"] < count):
        return ""
    told = ", ".join(f"{kinds[kind]} {words}" for kind, words in WORDS.items() if kinds[kind])
    return f"Of {count} {what}: {told}. The model looks untrained, or the images are unlike those it was trained on."
