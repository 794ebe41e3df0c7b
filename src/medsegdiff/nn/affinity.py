"""How much tokens weigh for each other: the affinity of the SS-Former, its filter, and softmax to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.nn.blocks import full_precision

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Queries and keys (b l d) → the weight of each key for each query (b l l), in full precision."""


def affinity(query: Float[Tensor, "b l d"], key: Float[Tensor, "b l d"]) -> Float[Tensor, "b l l"]:
    r"""Compare every query with every key: :math:`A = q k^T / \sqrt{d L}`, without a softmax.

    The paper's :math:`M = (F(e)W^q)(F(c)W^k)^T` is the 4-D Fourier transform of this A: F acts on the grid and
    W on the channels, so they commute, and the transform of each factor is the transform of the product.

    Args:
        query: Queries.
        key: Keys.

    Returns:
        A, in full precision.
    """
    _, num_tokens, dim = query.shape
    with full_precision(query):  # what the filter lets pass may be far smaller than what it stops
        return query.float() @ key.float().transpose(1, 2) / math.sqrt(dim * num_tokens)


def band_pass(
    a: Float[Tensor, "b l l"], h_filter: Float[Tensor, "#b h w h half"], h: int, w: int
) -> Float[Tensor, "b l l"]:
    r"""Filter an affinity map in the frequencies of its four axes: :math:`F^{-1}(F(A) \odot H)`.

    The real transform keeps half of the last axis; H is even, so the other half says nothing new.

    Source: MedSegDiff-V2, Semantic Condition with SS-Former: :math:`f = F^{-1}(M') (c W^v)`.

    Args:
        a: Affinity of query tokens and key tokens, in full precision.
        h_filter: H on the half spectrum; a batch of 1 serves all.
        h: Rows of tokens.
        w: Columns of tokens.

    Returns:
        The filtered map, real.
    """
    axes = (1, 2, 3, 4)
    spectrum = torch.fft.rfftn(a.reshape(-1, h, w, h, w), dim=axes, norm="ortho")  # M, (b, h, w, h, w/2 + 1)
    filtered = torch.fft.irfftn(spectrum * h_filter, s=(h, w, h, w), dim=axes, norm="ortho")  # F⁻¹(M ⊙ H)
    return filtered.reshape(-1, h * w, h * w)


def softmax_affinity(query: Float[Tensor, "b l d"], key: Float[Tensor, "b l d"]) -> Float[Tensor, "b l l"]:
    r"""Compare as plain cross-attention does, in space: :math:`\mathrm{softmax}(q k^T / \sqrt d)`.

    It is none of the paper's; the SS-Former is compared with it.

    Source: Vaswani et al. (2017), arXiv:1706.03762, equation 1.

    Args:
        query: Queries.
        key: Keys.

    Returns:
        Weights that sum to 1 for each query, in full precision.
    """
    with full_precision(query):
        return torch.softmax(query.float() @ key.float().transpose(1, 2) / math.sqrt(query.shape[-1]), dim=-1)
