"""How many members an image needs: a few more, until the fused mask is stable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from medsegdiff.fusion.curve import CHANGE, WINDOW
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.labels import Labels
from medsegdiff.metrics.overlap import dice

ROUND = 5
"""Members that are drawn at once."""
PROBED = 5
"""Slices of a volume that decide for all of it."""

Masks = Bool[np.ndarray, "k *s"]


class GrowingEnsemble:
    """An image whose ensemble grows, round by round, as its fused masks are asked for.

    Each run has a sampler, and the image on its grid. ``decided`` makes a label map on the native grid of what the
    runs have drawn, as the result will have it.
    """

    def __init__(
        self,
        samplers: Sequence[EnsembleSampler],
        images: Sequence[Float[Tensor, "1 c _ _"]],
        *,
        key: str,
        seed: int,
        labels: Labels,
        decided: Callable[[Sequence[Ensemble]], UInt8[np.ndarray, "..."]],
    ) -> None:
        self.runs = list(zip(samplers, images, strict=True))
        self.key, self.seed, self.labels, self.decided = key, seed, labels, decided
        self.rounds: list[tuple[Ensemble, ...]] = []

    def __iter__(self) -> Iterator[Masks]:
        """Fuse after every round, on the native grid."""
        of_runs = (sampler.rounds(image, [self.key], seed=self.seed, size=ROUND) for sampler, image in self.runs)
        for drawn in zip(*of_runs, strict=True):
            self.rounds.append(drawn)
            yield self.labels.masks(self.decided(self.whole())).astype(bool)

    def whole(self) -> list[Ensemble]:
        """Put the rounds together, run by run."""
        return [Ensemble.joined(rounds) for rounds in zip(*self.rounds, strict=True)]

    def holds(self) -> bool:
        """Tell whether an anchor sees any structure, without drawing members."""
        anchors = (sampler.look(image).anchor for sampler, image in self.runs)
        return any(anchor is not None and bool(self.labels.decide(anchor[0]).any()) for anchor in anchors)


def until_stable(fused: Iterable[Masks]) -> int:
    """Draw members, five at a time, until ten more have hardly changed the fused mask.

    Stops at n members if Dice(fused_n, fused_{n−10}) > 0.999, the mean over the structures that either mask holds:
    those that are nowhere would make any change small. So n is 15 at least, ten more than the first round, and 100 at
    most. The rule of the paper, where the fused mask of ten members before takes the place of the reference: if it
    changes so little, its Dice with a reference that is like it changes by about 0.1 %, with any by 0.4 % at most.

    Source: Wu et al. (2024), Model Efficiency and Complexity: "a variance of performance less than 0.1% across the
    last ten ensembles".
    """
    masks: list[Masks] = []
    for mask in fused:
        masks.append(mask)
        before = len(masks) - 1 - WINDOW // ROUND
        if before >= 0 and stable(mask, masks[before]):
            break
    return ROUND * len(masks)


def stable(now: Masks, before: Masks) -> bool:
    """Tell whether ten members have hardly changed the fused masks of the structures that are there."""
    found = [dice(a, b) for a, b in zip(now, before, strict=True) if a.any() or b.any()]
    return not found or float(np.mean(found)) > 1 - CHANGE


def together(slices: Sequence[Iterable[Masks]]) -> Iterator[Masks]:
    """Look at slices of a volume as one mask, so that their Dice is that of all their pixels."""
    for masks in zip(*slices, strict=True):
        yield np.concatenate([mask.reshape(len(mask), -1) for mask in masks], axis=1)
