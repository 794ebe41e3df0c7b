"""STAPLE: expectation-maximisation over several segmentations, for one foreground or for many labels.

Works on lists of pixels; `fusion` brings ensembles of masks into that form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from medsegdiff.fusion.votes import Votes

LIMIT = 1e-7
"""Distance that probabilities keep from 0 and 1, so that no logarithm is infinite."""
NEVER = 1e-300
"""Prior of a label that nobody votes for: so little that no pixel is of it, whatever the number of pixels."""
LARGEST = 700.0
"""Log-odds against a foreground whose exponential is still a number."""
START = 0.99999
"""Sensitivity and specificity before the first step."""


@dataclass(frozen=True)
class Estimate:
    """The hidden truth, and how well each sample sees it."""

    of_votes: Float[np.ndarray, "k p"]
    """Probability of each channel where samples vote so."""
    votes: Votes
    """What they vote, and at which pixels."""
    sensitivity: Float[np.ndarray, "m k"]
    specificity: Float[np.ndarray, "m k"]
    converged: bool
    steps: int
    """Of expectation-maximisation."""

    @property
    def posterior(self) -> Float[np.ndarray, "k n"]:
        """Probability of each channel at each pixel."""
        return self.of_votes[:, self.votes.of_pixel]

    @property
    def held(self) -> Float[np.ndarray, " k"]:
        """Pixels of each channel, by its probability."""
        return self.of_votes.astype(np.float64) @ self.votes.count


def binary_staple(
    votes: Integer[np.ndarray, "m n"],
    *,
    prior: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    weight: Float[np.ndarray, " n"] | None = None,
) -> Estimate:
    r"""Estimate a foreground that m samples have voted on.

    The expectation step weighs each pixel with the votes :math:`D_j`:
    :math:`W = a / (a + b)`, :math:`a = f \prod_j p_j^{D_j} (1-p_j)^{1-D_j}`,
    :math:`b = (1-f) \prod_j q_j^{1-D_j} (1-q_j)^{D_j}`; the maximisation step sets :math:`p_j` to the share of W
    that sample j found, and :math:`q_j` to the share of 1 − W that it left out.

    Source: Warfield, Zou & Wells (2004), doi:10.1109/TMI.2004.828354, section II: the E-step and M-step of the
    binary case.

    Args:
        votes: 0 and 1 by sample and pixel.
        prior: f, the expected share of foreground in (0, 1); ``None`` takes the mean of the votes.
        tolerance: Largest change of any p or q at which to stop.
        max_iterations: Upper bound on steps.
        weight: How many pixels each column of ``votes`` stands for; ``None``: one.

    Returns:
        The estimate, with k = 1. Votes that are all empty or all full give that vote back.
    """
    packed = Votes.of(votes, 2, weight)
    m, n = len(votes), packed.count.sum()
    tally = packed.totals(packed.count[None])[0]  # (m, 2): how many pixels each sample leaves out, and finds
    f = np.clip(tally[:, 1].sum() / (m * n) if prior is None else prior, LIMIT, 1 - LIMIT)
    prior_odds = np.log(f / (1 - f))
    rates = np.full((2, m), START)  # p and q
    converged, steps = False, 0
    while not converged and steps < max_iterations:
        w = _sigmoid(prior_odds + packed.sums(_log_ratios(rates))[0])
        found = packed.totals((w * packed.count)[None])[0]  # (m, 2): foreground left out, and found
        hit, foreground = np.stack([found[:, 1], tally[:, 0] - found[:, 0]]), found[0].sum()
        next_rates = _shares(hit, np.stack([foreground, n - foreground]), rates)
        moved = np.abs(next_rates - rates).max()
        rates, converged, steps = next_rates, bool(moved <= tolerance), steps + 1
    w = _sigmoid(prior_odds + packed.sums(_log_ratios(rates))[0])
    sensitivity, specificity = rates[..., None]
    return Estimate(w.astype(np.float32)[None], packed, sensitivity, specificity, converged, steps)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(min=-LARGEST)))


def _log_ratios(rates: np.ndarray) -> np.ndarray:
    """Compute how much each sample's 0, and its 1, speaks for foreground (1, m, 2): log of the ratio of likelihoods."""
    (log_p, log_q), (log_not_p, log_not_q) = np.log(rates), np.log1p(-rates)
    return np.stack([log_not_p - log_q, log_p - log_not_q], axis=1)[None]


def _shares(hit: np.ndarray, total: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Divide (2, m) by (2,); where there is nothing to divide (all votes empty, say), nothing is learned."""
    shares = (hit / total.clip(min=LIMIT)[:, None]).clip(LIMIT, 1 - LIMIT)
    return np.where(total[:, None] < LIMIT, before, shares)


def multi_label_staple(
    votes: Integer[np.ndarray, "m n"],
    num_labels: int,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    weight: Float[np.ndarray, " n"] | None = None,
) -> Estimate:
    r"""Estimate a label map that m samples have voted on.

    Each sample has a confusion matrix :math:`\theta_j[s', s]`, the probability that it says s' where the truth
    is s. Steps as in the binary case: :math:`W_s \propto f_s \prod_j \theta_j[D_j, s]`, then :math:`\theta_j` from W.
    Starts from the majority vote; the prior of a label is its share of the votes.

    Source: Warfield, Zou & Wells (2004), section II: the extension to multicategory labels.

    Args:
        votes: Labels by sample and pixel.
        num_labels: K.
        tolerance: Largest change of any entry of a confusion matrix at which to stop.
        max_iterations: Upper bound on steps.
        weight: How many pixels each column of ``votes`` stands for; ``None``: one.

    Returns:
        The estimate, with k = K.
    """
    packed = Votes.of(votes, num_labels, weight)
    m, n = len(votes), packed.count.sum()
    own = np.eye(num_labels)
    tally = packed.sums(np.repeat(own[:, None], m, axis=1))  # (K, p): votes for each label
    prior = (tally @ packed.count / (m * n)).clip(min=NEVER)
    w = own[:, tally.argmax(axis=0)]
    theta, converged, steps = _confusion(packed, w), False, 0
    while not converged and steps < max_iterations:
        w = _softmax(np.log(prior)[:, None] + packed.sums(np.log(theta)))
        next_theta = _confusion(packed, w)
        moved = np.abs(next_theta - theta).max()
        theta, converged, steps = next_theta, bool(moved <= tolerance), steps + 1
    return Estimate(w.astype(np.float32), packed, *_rates(theta, w @ packed.count, n), converged, steps)


def _softmax(x: np.ndarray) -> np.ndarray:
    odds = np.exp(x - x.max(axis=0))
    return np.asarray(odds / odds.sum(axis=0))


def _confusion(packed: Votes, w: np.ndarray) -> np.ndarray:
    """Estimate θ (true, m, said) from the votes and the weights of the true labels (K, p)."""
    weight = w * packed.count
    total = weight.sum(axis=1)[:, None, None].clip(min=LIMIT**2)
    return np.asarray(packed.totals(weight) / total).clip(LIMIT, 1 - LIMIT)


def _rates(theta: np.ndarray, held: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Read sensitivity and specificity of each label from the confusion matrices and the pixels that it holds of n.

    Where it holds none, or all, one of them stays what it was before the first step, as in the binary case.
    """
    sensitivity = theta.diagonal(axis1=0, axis2=2)  # (m, K)
    said_though_other = np.einsum("smr,s->mr", theta, held) - sensitivity * held
    specificity = 1 - said_though_other / (n - held).clip(min=LIMIT)
    return np.where(held < LIMIT, START, sensitivity), np.where(n - held < LIMIT, START, specificity)
