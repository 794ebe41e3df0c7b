"""What several raters are taken for where a metric wants one reference: majority, union, intersection, or each."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool

from medsegdiff.errors import ConfigError, nearest

Consensus = Literal["majority", "union", "intersection", "each"]
"""How; of a single rater all are the same."""


def check_consensus(name: str) -> None:
    """Refuse what is none."""
    if name not in (allowed := get_args(Consensus)):
        raise ConfigError(f"The reference is '{name}'; allowed are {', '.join(allowed)}.{nearest(name, allowed)}")


def references_of(raters: Bool[np.ndarray, "r *s"], consensus: Consensus) -> Bool[np.ndarray, "n *s"]:
    """Make the masks that metrics compare with: one, or of ``each`` all; scores against several are averaged."""
    if consensus == "each":
        return raters
    votes = raters.sum(axis=0, dtype=np.uint16)
    enough = {"majority": -(-len(raters) // 2), "union": 1, "intersection": len(raters)}[consensus]
    return np.asarray(votes >= enough)[None]


def in_words(consensus: Consensus, raters: tuple[int, int]) -> str:
    """Say what the reference is, given the fewest and the most raters of a case; nothing of a single rater."""
    least, most = raters
    if most < 2:
        return ""
    who = f"{most} raters" if least == most else f"{least} – {most} raters"
    if consensus == "majority":
        return f"Majority of {who}{_of_ties(least, most)}."
    return {
        "union": f"Union of {who}: what any of them drew.",
        "intersection": f"Intersection of {who}: what all of them drew.",
        "each": f"Each of {who}: what is computed against a reference is the mean over them.",
    }[consensus]


def _of_ties(least: int, most: int) -> str:
    """Say what becomes of a tie, which is less than people expect of a majority."""
    even = [count for count in range(least, most + 1) if count % 2 == 0]
    if not even:
        return ""
    if (least, most) == (2, 2):
        return ", a tie is foreground, which makes it their union"
    told = ["of 2 it is their union" if count == 2 else f"{count // 2} of {count} suffice" for count in even]
    return f", a tie is foreground: {', '.join(told)}"
