"""The band pass of the SS-Former as products of real matrices, for runtimes of graphs that know no FFT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.nn.nbp_filter import Filtering, distinct_radii


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def hartley(n: int, device: torch.device) -> Float[Tensor, "n n"]:
    r"""Write the discrete Hartley transform as a matrix: :math:`(\cos + \sin)(2 \pi j k / n) / \sqrt n`.

    It is real, symmetric and its own inverse.

    Source: Bracewell (1983), Discrete Hartley transform, doi:10.1364/JOSA.73.001832.

    Args:
        n: Places along an axis.
        device: Where it shall be; kept there.

    Returns:
        The matrix.
    """
    places = torch.arange(n, dtype=torch.float64, device="cpu")
    angles = 2 * math.pi / n * (places[:, None] * places % n)
    return ((angles.cos() + angles.sin()) / math.sqrt(n)).float().to(device)


def spread_by_columns(table: Float[Tensor, "b rq rk"], h: int, w: int) -> Float[Tensor, "b k q"]:
    """Lay a table of radii out over all frequencies, keys first, column by column: as `band_pass_by_products` has them.

    Args:
        table: H by radius.
        h: Rows of tokens.
        w: Columns of tokens.

    Returns:
        H at each frequency.
    """
    places = distinct_radii(h, w, table.device)[1].T.reshape(-1)
    return table.transpose(1, 2).index_select(1, places).index_select(2, places)


def band_pass_by_products(
    a: Float[Tensor, "b l l"], h_filter: Float[Tensor, "#b l l"], h: int, w: int
) -> Float[Tensor, "b l l"]:
    r"""Filter an affinity map, as `medsegdiff.nn.nbp_filter.band_pass` does, with Hartley's transform for Fourier's.

    H is real, and even along each of the four axes. Then :math:`\cos` and :math:`\sin` of a frequency are weighted
    alike, and so is any pair of orthogonal combinations of them: :math:`F^{-1}(F(A) \odot H) = C\,(C A C \odot H)\,C`,
    where C applies `hartley` along rows and columns.

    Args:
        a: Affinity of query tokens and key tokens, in full precision.
        h_filter: From `spread_by_columns`; a batch of 1 serves all.
        h: Rows of tokens.
        w: Columns of tokens.

    Returns:
        The filtered map.
    """
    along_h, along_w = hartley(h, a.device), hartley(w, a.device)

    def forth(x: Tensor) -> Tensor:  # (b, p, h*w) → (b, p, w*h)
        columns = (x.unflatten(2, (h, w)) @ along_w).transpose(2, 3)
        return (columns @ along_h).flatten(2)

    def back(x: Tensor) -> Tensor:  # (b, p, w*h) → (b, p, h*w)
        rows = (x.unflatten(2, (w, h)) @ along_h).transpose(2, 3)
        return (rows @ along_w).flatten(2)

    spectrum = forth(forth(a).transpose(1, 2))  # (b, k, q)
    return back(back(spectrum * h_filter).transpose(1, 2))


BY_PRODUCTS = Filtering(spread_by_columns, band_pass_by_products)


@contextmanager
def by_products(network: nn.Module) -> Iterator[None]:
    """Let a network filter by products meanwhile."""
    filtering = [module for module in network.modules() if hasattr(module, "filtering")]
    for module in filtering:
        module.filtering = BY_PRODUCTS  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in filtering:
            del module.filtering
