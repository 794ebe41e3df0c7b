"""STAPLE: expectation-maximisation over several segmentations, for one foreground or for many labels.

Works on lists of pixels; `fusion` brings ensembles of masks into that form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from medsegdiff.fusion.votes import Votes

LIMIT = 1e-7
"""Distance that probabilities keep from 0 and 1, so that no logarithm is infinite."""
START = 0.99999
"""Sensitivity and specificity before the first step."""


@dataclass(frozen=True)
class Estimate:
    """The hidden truth, and how well each sample sees it."""

    of_votes: Float[Tensor, "k p"]
    """Probability of each channel where samples vote so."""
    votes: Votes
    """What they vote, and at which pixels."""
    sensitivity: Float[Tensor, "m k"]
    specificity: Float[Tensor, "m k"]
    converged: bool
    steps: int
    """Of expectation-maximisation."""

    @property
    def posterior(self) -> Float[Tensor, "k n"]:
        """Probability of each channel at each pixel."""
        return self.of_votes.index_select(1, self.votes.of_pixel)

    @property
    def held(self) -> Float[Tensor, " k"]:
        """Pixels of each channel, by its probability."""
        return self.of_votes.double() @ self.votes.count


def binary_staple(
    votes: Integer[Tensor, "m n"],
    *,
    prior: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    weight: Float[Tensor, " n"] | None = None,
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
    f = tally[:, 1].sum() / (m * n) if prior is None else torch.tensor(prior, dtype=torch.float64)
    prior_odds = torch.logit(f.clamp(LIMIT, 1 - LIMIT))
    rates = torch.full((2, m), START, dtype=torch.float64)  # p and q
    converged, steps = False, 0
    while not converged and steps < max_iterations:
        w = torch.sigmoid(prior_odds + packed.sums(_log_ratios(rates))[0])
        found = packed.totals((w * packed.count)[None])[0]  # (m, 2): foreground left out, and found
        hit, foreground = torch.stack([found[:, 1], tally[:, 0] - found[:, 0]]), found[0].sum()
        next_rates = _shares(hit, torch.stack([foreground, n - foreground]), rates)
        moved = (next_rates - rates).abs().max()
        rates, converged, steps = next_rates, bool(moved <= tolerance), steps + 1
    w = torch.sigmoid(prior_odds + packed.sums(_log_ratios(rates))[0])
    sensitivity, specificity = rates[..., None]
    return Estimate(w.float()[None], packed, sensitivity, specificity, converged, steps)


def _log_ratios(rates: Tensor) -> Tensor:
    """Compute how much each sample's 0, and its 1, speaks for foreground (1, m, 2): log of the ratio of likelihoods."""
    (log_p, log_q), (log_not_p, log_not_q) = torch.log(rates), torch.log1p(-rates)
    return torch.stack([log_not_p - log_q, log_p - log_not_q], dim=1)[None]


def _shares(hit: Tensor, total: Tensor, before: Tensor) -> Tensor:
    """Divide (2, m) by (2,); where there is nothing to divide (all votes empty, say), nothing is learned."""
    shares = (hit / total.clamp(min=LIMIT)[:, None]).clamp(LIMIT, 1 - LIMIT)
    return torch.where(total[:, None] < LIMIT, before, shares)


def multi_label_staple(
    votes: Integer[Tensor, "m n"],
    num_labels: int,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    weight: Float[Tensor, " n"] | None = None,
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
    own = torch.eye(num_labels, dtype=torch.float64)
    tally = packed.sums(own[:, None].expand(-1, m, -1))  # (K, p): votes for each label
    prior = (tally @ packed.count / (m * n)).clamp(min=LIMIT)
    w = own[:, tally.argmax(dim=0)]
    theta, converged, steps = _confusion(packed, w), False, 0
    while not converged and steps < max_iterations:
        w = torch.softmax(torch.log(prior)[:, None] + packed.sums(torch.log(theta)), dim=0)
        next_theta = _confusion(packed, w)
        moved = (next_theta - theta).abs().max()
        theta, converged, steps = next_theta, bool(moved <= tolerance), steps + 1
    return Estimate(w.float(), packed, *_rates(theta, w @ packed.count / n), converged, steps)


def _confusion(packed: Votes, w: Tensor) -> Tensor:
    """Estimate θ (true, m, said) from the votes and the weights of the true labels (K, p)."""
    weight = w * packed.count
    total = weight.sum(dim=1)[:, None, None].clamp(min=LIMIT**2)
    return (packed.totals(weight) / total).clamp(LIMIT, 1 - LIMIT)


def _rates(theta: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Read sensitivity and specificity of each label from the confusion matrices and the labels' shares."""
    sensitivity = theta.diagonal(dim1=0, dim2=2)  # (m, K)
    said_though_other = torch.einsum("smr,s->mr", theta, share) - sensitivity * share
    return sensitivity, 1 - said_though_other / (1 - share).clamp(min=LIMIT)
