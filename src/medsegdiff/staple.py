"""STAPLE: expectation-maximisation over several segmentations, for one foreground or for many labels.

Works on lists of pixels; `fusion` brings ensembles of masks into that form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

LIMIT = 1e-7
"""Distance that probabilities keep from 0 and 1, so that no logarithm is infinite."""
START = 0.99999
"""Sensitivity and specificity before the first step."""


@dataclass(frozen=True)
class Estimate:
    """The hidden truth, and how well each sample sees it."""

    posterior: Float[Tensor, "k n"]
    """Probability of each channel at each pixel."""
    sensitivity: Float[Tensor, "m k"]
    specificity: Float[Tensor, "m k"]
    converged: bool


@dataclass(frozen=True)
class Patterns:
    """The distinct columns of a table of votes: pixels with the same votes share all computations."""

    votes: Integer[Tensor, "m p"]
    count: Float[Tensor, " p"]
    of_pixel: Int[Tensor, " n"]

    @classmethod
    def of(cls, votes: Integer[Tensor, "m n"], num_labels: int, weight: Float[Tensor, " n"] | None = None) -> Patterns:
        """Find the distinct columns.

        Args:
            votes: Labels from 0 to ``num_labels`` − 1 by sample and pixel.
            num_labels: Number of labels.
            weight: How many pixels each column stands for; ``None``: one.

        Returns:
            The patterns, how many pixels have each, and which each pixel has.
        """
        code = torch.zeros(votes.shape[1], dtype=torch.int64, device=votes.device)
        for row in votes:
            if int(code.max()) > 2**62 // num_labels - num_labels:
                code = torch.unique(code, return_inverse=True)[1]  # short names again, same distinctions
            code = code * num_labels + row
        names, of_pixel = torch.unique(code, return_inverse=True)
        count = torch.bincount(of_pixel, weights=weight, minlength=len(names))
        pixels = torch.arange(len(code), device=code.device)
        example = torch.empty_like(names).scatter_(0, of_pixel, pixels)  # some pixel of each pattern
        return cls(votes[:, example], count.double(), of_pixel)

    def share(self, label: int) -> Float[Tensor, ""]:
        """Compute the share of all votes that name a label.

        Args:
            label: The label.

        Returns:
            0 … 1.
        """
        return ((self.votes == label).double() @ self.count).sum() / (len(self.votes) * self.count.sum())


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
    patterns = Patterns.of(votes, 2, weight)
    yes, count = patterns.votes.double(), patterns.count
    f = patterns.share(1) if prior is None else torch.full_like(count[0], prior)
    prior_odds = torch.logit(f.clamp(LIMIT, 1 - LIMIT))
    p = q = torch.full_like(yes[:, 0], START)
    converged = False
    for _ in range(max_iterations):
        w = torch.sigmoid(prior_odds + _log_ratio(yes, p, q))
        next_p = _share(w * count, yes, p)
        next_q = _share((1 - w) * count, 1 - yes, q)
        moved = torch.maximum((next_p - p).abs().max(), (next_q - q).abs().max())
        p, q = next_p, next_q
        if converged := bool(moved <= tolerance):
            break
    w = torch.sigmoid(prior_odds + _log_ratio(yes, p, q))
    return Estimate(w[None, patterns.of_pixel], p[:, None], q[:, None], converged)


def _log_ratio(yes: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Compute how much each pattern of votes speaks for foreground: log of the ratio of likelihoods."""
    return (torch.log(p) - torch.log1p(-q)) @ yes + (torch.log1p(-p) - torch.log(q)) @ (1 - yes)


def _share(weight: Tensor, hit: Tensor, before: Tensor) -> Tensor:
    """Average hits by weight; where there is nothing to average (all votes empty, say), nothing is learned."""
    total = weight.sum()
    return before if total < LIMIT else ((hit * weight).sum(dim=1) / total).clamp(LIMIT, 1 - LIMIT)


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
    patterns = Patterns.of(votes, num_labels, weight)
    said = torch.nn.functional.one_hot(patterns.votes.long(), num_labels).double()  # (m, p, K)
    tally = said.sum(dim=0)  # (p, K)
    prior = (patterns.count @ tally / (len(votes) * patterns.count.sum())).clamp(min=LIMIT)
    w = torch.nn.functional.one_hot(tally.argmax(dim=1), num_labels).double()
    theta, converged = _confusion(said, w, patterns.count), False
    for _ in range(max_iterations):
        w = torch.softmax(torch.log(prior) + torch.einsum("mpr,mrs->ps", said, torch.log(theta)), dim=1)
        next_theta = _confusion(said, w, patterns.count)
        converged = bool((next_theta - theta).abs().max() <= tolerance)
        theta = next_theta
        if converged:
            break
    return Estimate(w.T[:, patterns.of_pixel], *_rates(theta, w, patterns.count), converged)


def _confusion(said: Tensor, w: Tensor, count: Tensor) -> Tensor:
    """Estimate θ (m, said, true) from the labels said and the weights of the true ones."""
    weight = w * count[:, None]
    joint = torch.einsum("mpr,ps->mrs", said, weight)
    return (joint / weight.sum(dim=0).clamp(min=LIMIT**2)).clamp(LIMIT, 1 - LIMIT)


def _rates(theta: Tensor, w: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Read sensitivity and specificity of each label from the confusion matrices."""
    share = count @ w / count.sum()
    sensitivity = theta.diagonal(dim1=1, dim2=2)
    said_though_other = (theta * share).sum(dim=2) - sensitivity * share
    return sensitivity, 1 - said_though_other / (1 - share).clamp(min=LIMIT)
