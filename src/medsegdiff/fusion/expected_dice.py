"""The mask of largest expected Dice: decided from masks that were drawn together, not pixel by pixel.

One structure of one image or volume, pixels as a list. `medsegdiff.fusion.cells` counts pixels that are alike;
`medsegdiff.fusion.protocol` lets drawn masks stand for a reference of several raters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from medsegdiff.errors import ConfigError, ShapeError
from medsegdiff.fusion.cells import LEVELS, Ballots, Cells, Places

SIZES = 5
"""Sizes of the mask that are tried first, evenly spaced."""
SLACK = 1e-10
"""What the best expected Dice may be missed by: rounding."""
KEPT = 8
"""Rankings that are kept while the best size is searched; each is as long as there are cells."""

Slabs = Callable[[], Iterable[tuple[Bool[np.ndarray, "m n"], Float[np.ndarray, " n"] | None]]]
"""Gives the pixels part by part, in the same order each time: what each sample says, and the marginal if there is."""


@dataclass(frozen=True)
class Decision:
    """A mask, and what is expected of it."""

    mask: Bool[np.ndarray, " n"]
    gain: Float[np.ndarray, " n"]
    """What each pixel of the mask adds to the expected Dice; 0 outside."""
    expected: float
    """Expected Dice with a mask of the law that the samples tell of; with a marginal, an estimate of it."""


def largest_expected_dice(
    votes: Bool[np.ndarray, "m n"],
    marginal: Float[np.ndarray, " n"] | None = None,
    *,
    weights: Float[np.ndarray, " m"] | None = None,
    smoothing: float = 1.0,
) -> Decision:
    r"""Find the mask whose expected Dice with the unknown true mask is largest.

    A mask A of k pixels has the expected Dice :math:`\sum_{i \in A} h_i(k)` with
    :math:`h_i(k) = E[2 Y_i / (k + |Y|)]`: for each k the k largest :math:`h_i` are best, and then the best k. It is
    compared with the empty mask, whose Dice is 1 with empty masks, else 0; a tie is foreground.

    Samples :math:`s_m` of :math:`n_m` pixels estimate h. With a marginal :math:`p_i`, which is smoother than their
    share, they tell only how large the mask is where a pixel is in it: :math:`h_i(k) = p_i r_i(k)`,
    :math:`r_i(k) = (\sum_m s_{im} w_m(k) + λ \bar w(k)) / (\sum_m s_{im} + λ)`, :math:`w_m(k) = 2 / (k + n_m)`.

    Source: Dembczyński, Waegeman, Cheng & Hüllermeier (2011), An exact algorithm for F-measure maximization (the
    decomposition); Waegeman et al. (2014), On the Bayes-optimality of F-measure maximizers. The split into a marginal
    and what the samples tell is our own.

    Args:
        votes: Masks that were drawn together; m samples of n pixels.
        marginal: How probable each pixel is, 0 … 1, calibrated; counted in steps of 1/1024. ``None``: the share of
            samples, so that nothing is smoothed and the mask is exactly best for the law of the samples.
        weights: How probable each sample is, up to a factor; ``None``: all alike.
        smoothing: λ, in samples: how much the mean over all samples counts in r; 0 … ∞.

    Returns:
        The mask and its expected Dice.

    Raises:
        ConfigError: If weights, smoothing or marginal are out of range.
        ShapeError: If shapes differ.

    Example:
        >>> largest_expected_dice(np.array([[True, True, False], [True, False, False]])).mask
        array([ True,  True, False])
    """
    ((decision),) = decide_in_slabs(lambda: [(votes, marginal)], weights=weights, smoothing=smoothing)
    return decision


def decide_in_slabs(
    slabs: Slabs, *, weights: Float[np.ndarray, " m"] | None = None, smoothing: float = 1.0
) -> Iterator[Decision]:
    """Find the mask of largest expected Dice of a volume that does not fit into memory.

    Args:
        slabs: Read twice: to count, and to decide.
        weights: As in `largest_expected_dice`.
        smoothing: As in `largest_expected_dice`.

    Yields:
        The decision on each slab; what is expected is that of the whole.
    """
    tally = Tally(weights=weights, smoothing=smoothing)
    for votes, marginal in slabs():
        tally.add(Ballots.of(votes), marginal)
    rule = tally.rule()
    for votes, marginal in slabs():
        gain = rule.gains(Ballots.of(votes), marginal)
        yield Decision(gain > 0, gain, rule.expected)


class Tally:
    """Counts the pixels of a structure, slab by slab, until a rule follows from them."""

    def __init__(self, *, weights: Float[np.ndarray, " m"] | None = None, smoothing: float = 1.0) -> None:
        if not 0 <= smoothing < np.inf:
            raise ConfigError(f"smoothing is {smoothing}; it is a number of samples: give 0 or more.")
        if weights is not None and not (weights.min() >= 0 and 0 < weights.sum() < np.inf):
            raise ConfigError(f"Weights are {weights}; give each sample 0 or more, and one of them more than 0.")
        self.weights, self.smoothing = weights, smoothing
        self._sizes: Int[np.ndarray, " m"] | None = None
        self._cells: list[Cells] = []
        self._places: list[Places] = []
        self._told: bool | None = None

    def add(self, ballots: Ballots, marginal: Float[np.ndarray, " n"] | None) -> None:
        """Count a slab."""
        sizes = ballots.sizes
        if self.weights is not None and len(self.weights) != len(sizes):
            raise ShapeError(f"There are {len(self.weights)} weights for {len(sizes)} samples; give one for each.")
        if self._told not in (None, marginal is not None):
            raise ShapeError("Some slabs come with a marginal, others without; give one for each slab, or for none.")
        self._told = marginal is not None
        self._sizes = sizes if self._sizes is None else self._sizes + sizes
        cells, places = Cells.of(ballots, marginal)
        self._places = [] if self._cells else [places]
        self._cells = [Cells.joined([*self._cells, cells])]

    def rule(self) -> Rule:
        """Find the best mask of what was counted."""
        if self._sizes is None or not len(self._sizes):
            raise ShapeError("There is no sample to decide from; give one at least.")
        weights = np.ones(len(self._sizes)) if self.weights is None else self.weights.astype(np.float64)
        law = _Law(self._cells[0], self._sizes, weights / weights.mean(), bool(self._told), self.smoothing)
        rule = law.rule()
        rule.places = self._places[0] if self._places else None
        return rule


@dataclass
class Rule:
    """Which pixels are in the mask, by what they are like."""

    cells: Cells
    gain: Float[np.ndarray, " c"]
    """Of a pixel of each cell; 0: not in the mask."""
    expected: float
    cut: int = -1
    """The cell of which only some pixels are taken, the first ones."""
    left: int = 0
    """How many of these are still to come."""
    places: Places | None = None
    """Where the pixels are, if all came in one slab: what was found in counting need not be found again."""

    def gains(self, ballots: Ballots, marginal: Float[np.ndarray, " n"] | None) -> Float[np.ndarray, " n"]:
        """Decide the pixels of a slab; slabs come in their order."""
        found = np.zeros(len(ballots.numbers))
        where, cells = self.places or self.cells.places(ballots, marginal)
        found[where] = self.gain[cells]
        of_cut = where[cells == self.cut]
        found[of_cut[self.left :]] = 0
        self.left -= min(self.left, len(of_cut))
        return found


@dataclass(frozen=True)
class _Law:
    """What samples and marginal say of the true mask, by cells."""

    cells: Cells
    sizes: Int[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    """Their mean is 1."""
    told: bool
    """Whether there is a marginal."""
    smoothing: float

    def rule(self) -> Rule:
        """Decide which cells, and how many pixels of the last one, make the mask of largest expected Dice."""
        empty = float(self.weights[self.sizes == 0].sum() / len(self.sizes))
        size, expected = self.best_size()
        gain = np.zeros(len(self.cells.count))
        if size == 0 or expected < empty - SLACK:
            return Rule(self.cells, gain, empty)
        h = self.h(size)
        order = np.argsort(-h, kind="stable")
        ends = np.cumsum(self.cells.count[order])
        last = int(np.searchsorted(ends, size))
        taken, cut = order[: last + 1], int(order[last])
        gain[taken] = h[taken]
        return Rule(self.cells, gain, expected, cut, int(self.cells.count[cut] - (ends[last] - size)))

    def h(self, size: int) -> Float[np.ndarray, " c"]:
        """Compute h_i(k) of the pixels of each cell."""
        told = 2 / (size + np.maximum(self.sizes, 1))  # where any pixel is, a mask has one at least
        drawn = self.cells.summed(self.weights * told)
        if not self.told:
            return drawn / len(self.sizes)
        prior, among = self.smoothing * float((self.weights * told).mean()), self.cells.summed(self.weights)
        mean = (drawn + prior) / np.maximum(among + self.smoothing, np.finfo(float).tiny)
        return self.cells.levels / LEVELS * mean

    def best_size(self) -> tuple[int, float]:
        """Find the number of pixels k of the best mask, and its expected Dice, by branch and bound.

        The sum T_κ(k) of the κ largest h_i(k) is convex in k, since each h_i is and so is a sum of largest ones. So
        between two sizes a < κ < b the expected Dice T_κ(κ) is at most what lies on the line from T_κ(a) to T_κ(b).
        """
        most = int(self.cells.count.sum())
        ranking = _Ranking(self)
        curve = lru_cache(maxsize=KEPT)(ranking.curve)

        def value(size: int) -> float:
            return float(curve(size)(np.array([size]))[0])

        sizes = np.unique(np.linspace(1, most, min(SIZES, most)).round().astype(int)).tolist() if most else [0]
        expected, best = max((value(size), -size) for size in sizes)
        open_ = list(itertools.pairwise(sizes))[::-1]
        while open_:
            a, b = open_.pop()
            between = np.arange(a + 1, b)
            if not len(between):
                continue
            bound = curve(a)(between) * (b - between) + curve(b)(between) * (between - a)
            if bound.max() <= (expected + SLACK) * (b - a):
                continue
            middle = int(between[bound.argmax()])
            expected, best = max((expected, best), (value(middle), -middle))
            open_ += [(middle, b), (a, middle)]
        return -best, expected


class _Ranking:
    """Cells from the largest h on, at one size after another: from one to the next few change their places."""

    def __init__(self, law: _Law) -> None:
        self.law, self.order = law, np.arange(len(law.cells.count))

    def curve(self, size: int) -> Callable[[Int[np.ndarray, " k"]], Float[np.ndarray, " k"]]:
        """Sum the κ largest h(k) of all pixels, for any κ."""
        h = self.law.h(size)
        self.order = self.order[np.argsort(-h[self.order], kind="stable")]  # takes runs that are in order as they are
        count = self.law.cells.count[self.order]
        ends, sums = (np.concatenate([[0], np.cumsum(of)]) for of in (count, count * h[self.order]))
        return lambda kappa: np.interp(kappa, ends, sums)
