"""What STAPLE says of the members: their sensitivity and specificity, over the slices of a volume and on file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.atomic import write_text

COLUMNS = ("name", "structure", "member", "sensitivity", "specificity")
NONE = 1e-12
"""Weight of a slice that holds nothing of a channel; it counts only if all slices are so."""


class VolumeRates:
    r"""Rates of a volume that is fused slice by slice: each slice's count as much as it holds of the channel.

    The share of the hidden truth that a member finds, :math:`p = \sum W D / \sum W`, is so the sum over all
    voxels, as if it were computed from the volume's posterior W; that of what it leaves out likewise.
    """

    def __init__(self) -> None:
        self._hits: np.ndarray | None = None
        self._weight: np.ndarray | None = None

    def add(self, part: Segmentation) -> None:
        """Take a slice into account; slices of other fusions have no rates."""
        if part.sensitivity is None or part.specificity is None:
            return
        inside = part.probability.sum(axis=(1, 2), dtype=np.float64)  # (k,)
        weight = np.stack([inside, part.probability[0].size - inside])[:, None].clip(min=NONE)  # (2, 1, k)
        hits = weight * np.stack([part.sensitivity, part.specificity])
        self._hits = hits if self._hits is None else self._hits + hits
        self._weight = weight if self._weight is None else self._weight + weight

    def result(self) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]] | tuple[None, None]:
        """Divide."""
        if self._hits is None or self._weight is None:
            return None, None
        sensitivity, specificity = (self._hits / self._weight).astype(np.float32)
        return sensitivity, specificity


def rates_of(result: Segmentation) -> list[dict[str, Any]]:
    """List the rates of a result, by structure and member."""
    if result.sensitivity is None or result.specificity is None:
        return []
    first = result.labels.foreground.start  # the background is no structure
    return [
        {
            "name": result.name,
            "structure": structure,
            "member": f"{member:02d}",  # as its folder is called
            "sensitivity": f"{result.sensitivity[member, channel]:.6f}",
            "specificity": f"{result.specificity[member, channel]:.6f}",
        }
        for channel, structure in enumerate(result.labels.structures, start=first)
        for member in range(len(result.sensitivity))
    ]


def write_rates(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rates as CSV, or nothing if there are none."""
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
