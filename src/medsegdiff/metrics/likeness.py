"""Whether an image is like those that something was learned from, by some numbers: of a network, or of its grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import skew

from medsegdiff.metrics.predicted_dice import dealt
from medsegdiff.metrics.tails import Tail

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
SCALES = (1, 2, 4, 8)
"""Pixels that are averaged along an axis before neighbours are compared."""
SLICES = 16
"""Of a volume, evenly spread, that are looked at."""
MOST = 1 << 22
"""Pixels of a picture that are looked at."""
SHRINK = 0.3
"""Share of the identity in the correlations of features, which few images tell badly."""
AXES = 24
"""Along which the variance of features is told apart, at most."""
LEVEL = 0.99
"""Share of images that lie nearer than what is unusual."""
TINY = 1e-6


def features_of(image: Float[np.ndarray, "c h w"]) -> Float[np.ndarray, " f"]:
    """Describe an image by some numbers: grey values, how they are spread, sharpness and noise, where it is bright.

    By channel mean and standard deviation as the file has them; the rest of the mean over channels, scaled between its
    5 % and 95 % quantiles: moments, quantiles, roughness at four scales, centre of brightness, likeness to its mirror.

    Of a picture of more than 4 million pixels every second, third … is looked at, so that memory is bounded.

    Args:
        image: A picture as read, or a slice as it is looked at.

    Returns:
        The numbers; images of as many channels have as many.
    """
    step = math.ceil(math.sqrt(image[0].size / MOST))
    image = image[:, ::step, ::step]
    absolute = [value for channel in image for value in (channel.mean(), channel.std())]
    grey = image.mean(axis=0, dtype=np.float64)
    low, high = np.quantile(grey, [0.05, 0.95])
    grey = np.clip((grey - low) / max(high - low, TINY), -1.0, 2.0)
    moments = (grey.mean(), grey.std(), float(np.nan_to_num(skew(grey, axis=None))))
    return np.array([*absolute, *moments, *np.quantile(grey, QUANTILES), *_roughness(grey), *_places(grey)], float)


def values_of(image: Float[np.ndarray, "c *s"]) -> tuple[float, float]:
    """Tell between what grey values lie, but for one in a hundred at each end.

    Args:
        image: As read; of large ones some pixels are looked at.

    Returns:
        Low and high.
    """
    step = max(1, image.size // MOST)
    low, high = np.quantile(image.reshape(-1)[::step], [0.01, 0.99])
    return float(low), float(high)


def _roughness(grey: Float[np.ndarray, "h w"]) -> list[float]:
    """Compare neighbours, on coarser and coarser grids."""
    found = []
    for scale in SCALES:
        h, w = (max(size // scale, 1) for size in grey.shape)
        coarse = grey[: h * scale, : w * scale]
        coarse = coarse.reshape(h, -1, w, coarse.shape[1] // w).mean(axis=(1, 3))
        steps = [np.abs(np.diff(coarse, axis=axis)) for axis in (0, 1) if coarse.shape[axis] > 1]
        found.append(float(np.log(TINY + np.mean([step.mean() for step in steps]))) if steps else 0.0)
    return found


def _places(grey: Float[np.ndarray, "h w"]) -> list[float]:
    """Tell where it is bright, and whether its halves are alike."""
    weights = np.maximum(grey, 0) + TINY
    centre = [
        float((weights.sum(axis=1 - axis) * np.linspace(-1, 1, size)).sum() / weights.sum())
        for axis, size in enumerate(grey.shape)
    ]
    varied = grey.std() > TINY
    mirrors = [
        float(np.corrcoef(grey.ravel(), np.flip(grey, axis).ravel())[0, 1]) if varied else 1.0 for axis in (0, 1)
    ]
    return [*centre, *mirrors]


class Likeness(NamedTuple):
    """What is usual of images, and how far from it some are."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]
    """Directions in which features vary together, most first: eigenvectors of their correlations."""
    variances: tuple[float, ...]
    """Along each, and at the end that along any other direction; shrunk towards 1."""
    seen: Tail
    """Distances of images like these that the mean was not taken of."""

    @property
    def usual(self) -> float:
        """Distance that one in a hundred of such images exceeds, as far as their number tells."""
        return self.seen.quantile(LEVEL)

    def distance(self, features: Float[np.ndarray, " f"]) -> float:
        r"""Measure how unlike an image is: the Mahalanobis distance :math:`\sqrt{z^T C^{-1} z / f}` of its features.

        z are the features less their mean, in standard deviations; C are the correlations, shrunk.

        Source: Mahalanobis (1936); Lee et al. (2018), arXiv:1807.03888, for images that are unlike training.

        Args:
            features: From `features_of`, or of a network.

        Returns:
            From 0 up; about 1 for images as they usually are. Infinite where there are other features.
        """
        if len(features) != len(self.mean):
            return float("inf")
        z = (np.asarray(features, float) - np.array(self.mean)) / np.array(self.std)
        along, (*variances, rest) = np.array(self.axes) @ z, self.variances
        beside = max(float(z @ z - along @ along), 0.0)
        return float(np.sqrt((float((along**2 / variances).sum()) + beside / rest) / len(z)))


def fit_likeness(
    features: Sequence[Float[np.ndarray, " f"]],
    others: Sequence[Float[np.ndarray, " f"]] = (),
    *,
    groups: Sequence[str] | None = None,
) -> Likeness:
    """Learn what is usual, and how far from it images lie that it was not learned from.

    Args:
        features: By image, at least three.
        others: Of further images, whose distances tell what is usual; none: the first ones are dealt into parts by
            group, and each part is measured by the others.
        groups: Of the first ones, by image (patients); ``None`` or empty names: each image is one.

    Returns:
        The likeness.
    """
    values = np.array(features)
    told = _fitted(values)
    if len(others):
        return told._replace(seen=Tail.of([told.distance(of) for of in others]))
    part = dealt(groups or [""] * len(values))
    folds = [part == fold for fold in np.unique(part)]
    apart = [_fitted(values[~fold]).distance(of) for fold in folds if not fold.all() for of in values[fold]]
    return told._replace(seen=Tail.of(apart or [told.distance(of) for of in values]))


def _fitted(values: Float[np.ndarray, "n f"]) -> Likeness:
    """Fit mean and correlations: those along the axes in which features vary most, and one number for all others."""
    mean, std = values.mean(axis=0), values.std(axis=0)
    std = np.maximum(std, TINY + 0.01 * np.abs(mean))  # what is the same in all may differ a little in others
    z = (values - mean) / std
    _, spread, axes = np.linalg.svd(z, full_matrices=False)
    found, kept = spread**2 / len(z), min(AXES, len(spread))
    left = max(float((z**2).sum() / len(z) - found[:kept].sum()), 0.0) / max(z.shape[1] - kept, 1)
    variances = (1 - SHRINK) * np.r_[found[:kept], left] + SHRINK
    numbers = [tuple(of.tolist()) for of in (mean, std, variances)]
    return Likeness(numbers[0], numbers[1], tuple(map(tuple, axes[:kept].tolist())), numbers[2], Tail.of([0.0]))
