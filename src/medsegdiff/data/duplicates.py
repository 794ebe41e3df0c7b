"""Images of different parts that look the same: what was trained on would be tested on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.data.split import evenly

ALIKE = 0.95
"""Correlation of edges at 32×32 from which two images are near-duplicates."""
MOST = 10_000
"""Pairs that are listed, the most alike."""
BLOCK = 4096
"""Images of a part that are compared with as many of another at once, which bounds memory."""
DIRECTIONS = 255
"""Of the space of thumbnails, in which all of them are compared first; a thumbnail has 2048."""
ROUNDING = 1e-4
"""By which sums of another order may differ."""
FEW = 64
"""One of so many pairs may pass the first comparison to be looked at by itself; of more, all are compared in full."""


class _Pair(NamedTuple):
    correlation: float
    first: int
    second: int


def thumbnail(image: np.ndarray) -> Float[Tensor, " n"]:
    """Reduce an image to its edges at 32×32, normalised, so that a dot product is a correlation."""
    grey = torch.from_numpy(image).mean(dim=0)
    small = F.interpolate(grey[None, None], size=(33, 33), mode="bilinear", antialias=True)[0, 0]
    edges = torch.stack([small[1:, :-1] - small[:-1, :-1], small[:-1, 1:] - small[:-1, :-1]]).flatten()
    return F.normalize(edges - edges.mean(), dim=0)


def near_duplicates(
    thumbnails: Mapping[str, Float[Tensor, " n"]],
    split: Mapping[str, str],
    *,
    most: int = MOST,
    block: int = BLOCK,
) -> list[dict[str, Any]]:
    """Find pairs of images in different parts that look the same, the most alike first.

    Every pair is compared; most of them by a few numbers, from which no correlation can be larger. 100,000 images take
    a few minutes on one core; what is kept beside their thumbnails is small.
    """
    named = [name for name in thumbnails if name in split]
    blocks = _blocks(named, split, block)
    if len({split[names[0]] for names in blocks}) < 2:
        return []
    basis = _directions([thumbnails[name] for name in evenly(named, DIRECTIONS)])
    sketches = [_sketch(_stacked(thumbnails, names), basis) for names in blocks]
    place = {name: number for number, name in enumerate(named)}
    found, least = list[_Pair](), ALIKE
    for one, two in itertools.combinations(range(len(blocks)), 2):
        if split[blocks[one][0]] == split[blocks[two][0]]:
            continue
        if least >= 1 - ROUNDING:  # as many as are listed are copies: none is more alike
            break
        close = (sketches[one] @ sketches[two].T > least - ROUNDING).nonzero()
        if len(close):
            a, b = blocks[one], blocks[two]
            for value, i, j in _alike(_stacked(thumbnails, a), _stacked(thumbnails, b), close, most=most):
                found.append(_Pair(value, *sorted((place[a[i]], place[b[j]]))))
            found = sorted(found, key=lambda pair: (-pair.correlation, pair.second, pair.first))[:most]
            least = found[-1].correlation if len(found) == most else ALIKE
    return [_told(named[pair.first], named[pair.second], pair.correlation, split) for pair in found]


def _told(a: str, b: str, correlation: float, split: Mapping[str, str]) -> dict[str, Any]:
    return {"a": a, "b": b, "correlation": correlation, "splits": [split[a], split[b]]}


def _blocks(names: Sequence[str], split: Mapping[str, str], size: int) -> list[list[str]]:
    """Put names of one part together, so many at most."""
    parts = {part: [name for name in names if split[name] == part] for part in dict.fromkeys(split.values())}
    return [of_part[start : start + size] for of_part in parts.values() for start in range(0, len(of_part), size)]


def _stacked(thumbnails: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, "b n"]:
    return torch.stack([thumbnails[name] for name in names])


def _directions(examples: Sequence[Tensor]) -> Float[Tensor, "n d"]:
    """Find orthonormal directions in which images differ: those of some of them."""
    return torch.linalg.qr(torch.stack(list(examples)).nan_to_num().T).Q


def _sketch(values: Float[Tensor, "b n"], basis: Float[Tensor, "n d"]) -> Float[Tensor, "b d_plus_1"]:
    r"""Keep what lies in some directions, and the length of the rest.

    With the rests r of two images :math:`u \cdot v = Pu \cdot Pv + r_u \cdot r_v \le Pu \cdot Pv + |r_u| |r_v|`, the
    dot product of sketches: it is never below the correlation.
    """
    kept = values @ basis
    rest = (values.square().sum(dim=1) - kept.square().sum(dim=1)).clamp(min=0).sqrt()
    return torch.cat([kept, rest[:, None]], dim=1)


def _alike(
    a: Float[Tensor, "b n"], b: Float[Tensor, "c n"], close: Int[Tensor, "p 2"], *, most: int
) -> Iterator[tuple[float, int, int]]:
    """Correlate pairs that may be alike, in full, and give those that are most."""
    if len(close) * FEW > len(a) * len(b):
        whole = a @ b.T
        close = (whole > ALIKE).nonzero()
        values = whole[close[:, 0], close[:, 1]]
    else:
        values = torch.cat([(a[i] * b[j]).sum(dim=1) for i, j in (part.T for part in close.split(BLOCK))])
    first = values.topk(min(most, int((values > ALIKE).sum()))).indices
    for value, (i, j) in zip(values[first].tolist(), close[first].tolist(), strict=True):
        yield value, i, j
