"""Kernel herding: a few of many masks that together stand for all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def herd(distance: Float[np.ndarray, "c c"], count: int) -> list[int]:
    r"""Choose candidates so that the squared energy distance between those chosen and all is small.

    One after the other, the k-th is the candidate j, not chosen before, that makes

    .. math:: \frac{2}{k} \Bigl(\sum_{s \in A} \mu_s + \mu_j\Bigr)
        - \frac{1}{k^2} \Bigl(\sum_{s, s' \in A} d_{ss'} + 2 \sum_{s \in A} d_{sj}\Bigr), \qquad
        \mu_a = \frac1c \sum_b d_{ab},

    smallest: twice the distance to all candidates, less the distance among those chosen. With d = 1 − IoU, which is of
    negative type, this is GED² of the chosen set and all candidates, but for what does not depend on j. The first is
    the candidate nearest to all; the first k are the choice of k.

    Chosen members are not independent: what is estimated from them (GED², its expectation for a perfect sampler)
    is not what as many independent draws would give.

    Source: Chen, Welling & Smola (2010), Super-Samples from Kernel Herding, arXiv:1203.3472, with −d as the kernel,
    which makes the discrepancy the energy distance of Székely & Rizzo (2013).

    Args:
        distance: Of every two candidates, ≥ 0, with zeros on the diagonal; symmetric.
        count: Candidates to choose, at most c.

    Returns:
        Their numbers, in the order of choice.
    """
    to_all, to_chosen = distance.mean(axis=1), np.zeros(len(distance))
    chosen: list[int] = []
    for k in range(1, min(count, len(distance)) + 1):
        gain = to_all / k - to_chosen / k**2  # half of what depends on j
        gain[chosen] = np.inf
        chosen.append(int(gain.argmin()))
        to_chosen += distance[:, chosen[-1]]
    return chosen
