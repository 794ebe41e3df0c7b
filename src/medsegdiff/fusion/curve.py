"""Dice against the number of members, and how many members are enough: figure 3 of the paper.

Works on masks that were drawn already; `benchmark.ensemble` draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.fusion.vote_table import VoteTable, dice_of, fused, tables_of
from medsegdiff.seeding import derive_seed

WINDOW, CHANGE = 10, 0.001
"""The ensemble is stable when Dice changes by less than 0.1 % over the last ten members."""
GRID = (*range(1, 11), 12, 15, 20, 25, 30, 40, 50, 70, 100)
"""Sizes at which STAPLE is run, and at the full ensemble: each of its subsets is an iteration of its own."""
PIXELWISE = ("majority", "mean")
"""Fusions that look at a pixel alone, and are quick enough for every size."""

Subsets = Mapping[int, Int[np.ndarray, "r n"]]
"""Number of members → the subsets drawn, a row each."""
Scores = Mapping[int, Float[np.ndarray, " r"]]
"""Number of members → Dice of a case by subset."""


@dataclass(frozen=True)
class Curve:
    """Dice against the number of members."""

    num_members: Int[np.ndarray, " n"]
    """Rising; not each number need be there."""
    mean: Float[np.ndarray, " n"]
    """Mean Dice over cases and draws."""
    spread: Float[np.ndarray, " n"]
    """Standard deviation, over draws, of the mean Dice over cases. Draws share members: near the full ensemble it
    understates how much new ensembles would differ, and there it is 0."""
    num_cases: int

    def to_dict(self) -> dict[str, Any]:
        """Give the curve as plain values.

        Returns:
            ``members``, ``mean``, ``spread`` and ``cases``.
        """
        columns = {"members": self.num_members, "mean": self.mean, "spread": self.spread}
        return {**{name: column.tolist() for name, column in columns.items()}, "cases": self.num_cases}

    def at(self, num_members: int) -> float | None:
        """Look a value up.

        Args:
            num_members: Size of the ensemble.

        Returns:
            Mean Dice; ``None`` at a size that was not scored.
        """
        found = np.flatnonzero(self.num_members == num_members)
        return float(self.mean[found[0]]) if len(found) else None


def ensemble_curve(
    cases: Iterable[tuple[Bool[np.ndarray, "m k *s"], Bool[np.ndarray, "k *s"]]],
    *,
    fusion: str = "staple",
    exclusive: bool = False,
    repeats: int = 20,
    seed: int = 0,
) -> Curve:
    """Score fused subsets of members of several cases: draw n of them, without replacement, for every n.

    Source: Wu et al. (2024), figure 3.

    Args:
        cases: Of each the masks of its members and the reference, by structure; the background is none.
        fusion: ``staple``, ``majority`` or ``mean``. Members are masks, so that their mean is their majority.
        exclusive: Whether structures exclude each other, and are fused together.
        repeats: Subsets of each size; of all members there is one.
        seed: The subsets follow from it; they are the same for all cases.

    Returns:
        The curve, pooled over cases.

    Raises:
        DataError: If there is no case.
    """
    scores: list[Scores] = []
    subsets: Subsets = {}
    for members, reference in cases:
        subsets = subsets or draw_subsets(len(members), sizes(len(members), fusion), repeats=repeats, seed=seed)
        scores.append(score_subsets(tables_of(members, reference, exclusive=exclusive), subsets, fusion=fusion))
    return pool(scores)


def sizes(num_members: int, fusion: str) -> tuple[int, ...]:
    """List the sizes of ensembles to look at.

    Args:
        num_members: Of the full ensemble.
        fusion: ``staple``, ``majority`` or ``mean``.

    Returns:
        All up to ``num_members``; for STAPLE those of `GRID`, and ``num_members``.

    Raises:
        ConfigError: If subsets can't be fused so.
    """
    if fusion not in ("staple", *PIXELWISE):
        raise ConfigError(f"The curve of fusion '{fusion}' is not known; allowed are staple, {', '.join(PIXELWISE)}.")
    found = GRID if fusion == "staple" else range(1, num_members)
    return (*(size for size in found if size < num_members), num_members)


def draw_subsets(num_members: int, sizes: Iterable[int], *, repeats: int, seed: int) -> Subsets:
    """Draw members without replacement.

    Args:
        num_members: Of the full ensemble.
        sizes: Of subsets.
        repeats: Subsets of each size; of all members there is one.
        seed: The subsets of a size follow from it and the size alone.

    Returns:
        Numbers of members by size.
    """
    found: dict[int, Int[np.ndarray, "r n"]] = {}
    for size in sizes:
        rng = np.random.default_rng(derive_seed(seed, "subsets", num_members, size))
        count = repeats if size < num_members else 1
        found[size] = np.stack([np.sort(rng.permutation(num_members)[:size]) for _ in range(count)])
    return found


def score_subsets(tables: Sequence[VoteTable], subsets: Subsets, *, fusion: str) -> Scores:
    """Fuse and score subsets of the members of a case.

    Args:
        tables: From `tabulate`; one, or one per structure where structures may overlap.
        subsets: From `draw_subsets`.
        fusion: ``staple``, ``majority`` or ``mean``.

    Returns:
        Dice by subset, the mean over structures.
    """
    return {size: np.array([_mean_dice(tables, chosen, fusion) for chosen in rows]) for size, rows in subsets.items()}


def _mean_dice(tables: Sequence[VoteTable], chosen: Int[np.ndarray, " n"], fusion: str) -> float:
    return float(np.mean([value for table in tables for value in dice_of(table, fused(table, chosen, fusion))]))


def pool(scores: Sequence[Scores]) -> Curve:
    """Average over cases, then over draws.

    Args:
        scores: Of each case; all with the same subsets.

    Returns:
        The curve.

    Raises:
        DataError: If there is no case.
    """
    if not scores:
        raise DataError("There is no case to score; a curve needs one at least.")
    by_size = {size: np.mean([case[size] for case in scores], axis=0) for size in scores[0]}
    mean, spread = ([float(f(draws)) for draws in by_size.values()] for f in (np.mean, np.std))
    return Curve(np.array(list(by_size)), np.array(mean), np.array(spread), len(scores))


def convergence(curve: Curve, *, window: int = WINDOW, change: float = CHANGE) -> int | None:
    """Find how many members are enough: the mean Dice has changed by less than 0.1 % over the last ten.

    The smallest size n, of those scored, for which the largest and the smallest mean Dice from n − 10 to n members
    differ by less than 0.001. Between scored sizes the curve is a straight line.

    Source: Wu et al. (2024), Model Efficiency and Complexity: "a variance of performance less than 0.1% across the
    last ten ensembles".

    Args:
        curve: The curve.
        window: Over how many members it must be flat.
        change: What counts as flat, in Dice from 0 to 1.

    Returns:
        The number of members; ``None`` if it is not reached.
    """
    for end in curve.num_members[curve.num_members - window >= curve.num_members[0]].tolist():
        start = end - window
        last = curve.mean[(curve.num_members >= start) & (curve.num_members <= end)]
        if np.ptp([*last, np.interp(start, curve.num_members, curve.mean)]) < change:
            return int(end)
    return None
