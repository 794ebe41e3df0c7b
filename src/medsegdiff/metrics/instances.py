"""Instances of a structure: connected components, the pixels that instances of two masks share, and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from scipy.ndimage import find_objects, generate_binary_structure, label
from scipy.optimize import linear_sum_assignment

from medsegdiff.errors import ConfigError

NEIGHBOURS = {2: {4: 1, 8: 2}, 3: {6: 1, 18: 2, 26: 3}}
"""Axes → neighbours of a pixel → the most axes along which they differ from it."""
UNIQUE = 0.5
"""Above this IoU no instance has two partners among instances that do not overlap each other."""


def neighbourhood(connectivity: int, ndim: int) -> Bool[np.ndarray, "*n"]:
    """Make the structuring element of a pixel and its neighbours.

    Args:
        connectivity: Number of neighbours: 4 or 8 in two axes, 6, 18 or 26 in three.
        ndim: Axes.

    Returns:
        Three pixels along each axis.

    Raises:
        ConfigError: If there is no such number in so many axes.
    """
    known = NEIGHBOURS[ndim]
    if connectivity not in known:
        raise ConfigError(
            f"The connectivity is {connectivity}; in {ndim} axes allowed are {', '.join(map(str, known))} neighbours."
        )
    return np.asarray(generate_binary_structure(ndim, known[connectivity]), bool)


def components(mask: Bool[np.ndarray, "*s"], *, connectivity: int) -> Int32[np.ndarray, "*s"]:
    """Number the connected components of a mask.

    Args:
        mask: The mask.
        connectivity: Neighbours of a pixel that are connected to it, see `neighbourhood`.

    Returns:
        0 outside of the mask, else from 1 up.
    """
    return np.asarray(label(mask, neighbourhood(connectivity, mask.ndim))[0], np.int32)


def box_around(mask: Bool[np.ndarray, "*s"]) -> tuple[slice, ...] | None:
    """Find the smallest box around a foreground.

    Args:
        mask: The mask.

    Returns:
        A slice by axis; ``None`` of an empty mask.
    """
    found = find_objects(mask.view(np.uint8))
    return found[0] if found else None


@dataclass(frozen=True)
class Overlaps:
    """How large the instances of two label maps are, and which of them share pixels. Memory follows the foreground."""

    references: Int[np.ndarray, " n"]
    """Pixels of each reference instance."""
    predictions: Int[np.ndarray, " m"]
    """Pixels of each predicted one."""
    pairs: Int[np.ndarray, "p 2"]
    """Indices of a reference and of a prediction that share pixels; those of others are not listed."""
    common: Int[np.ndarray, " p"]
    """How many pixels they share."""

    @classmethod
    def of(cls, reference: Int32[np.ndarray, "*s"], prediction: Int32[np.ndarray, "*s"]) -> Overlaps:
        """Count the pixels of instances, which are numbered from 1, and of every two that meet.

        Args:
            reference: Label map.
            prediction: Another on the same grid.

        Returns:
            Index i is the instance i + 1.
        """
        references, predictions = (np.bincount(of[of > 0], minlength=1)[1:] for of in (reference, prediction))
        both = (reference > 0) & (prediction > 0)
        width = len(predictions) + 1
        codes, common = np.unique(reference[both].astype(np.int64) * width + prediction[both], return_counts=True)
        return cls(references, predictions, np.stack(np.divmod(codes, width), axis=1) - 1, common)

    @property
    def iou(self) -> Float[np.ndarray, " p"]:
        """Of each pair."""
        union = self.references[self.pairs[:, 0]] + self.predictions[self.pairs[:, 1]] - self.common
        return np.asarray(self.common / union)

    def matched(self, threshold: float) -> Int[np.ndarray, " k"]:
        """Pair instances one to one, where their IoU is above a threshold.

        From ½ on there is one way to do so; below, the pairs are those of the largest sum of IoU.

        Source: Kirillov et al. (2019), arXiv:1801.00868, section 4.1 (uniqueness above ½); Kuhn (1955), The Hungarian
        method for the assignment problem.

        Args:
            threshold: From 0 up to, but not, 1.

        Returns:
            Indices into ``pairs``.
        """
        iou = self.iou
        close = np.flatnonzero(iou > threshold)
        if threshold >= UNIQUE or not close.size:
            return close
        rows, i = np.unique(self.pairs[close, 0], return_inverse=True)
        columns, j = np.unique(self.pairs[close, 1], return_inverse=True)
        place = np.full((len(rows), len(columns)), -1)
        place[i, j] = close
        gain = np.where(place < 0, 0.0, iou[place])
        chosen = place[linear_sum_assignment(gain, maximize=True)]
        return np.sort(chosen[chosen >= 0])
