"""What an ensemble says of a picture on its native grid: made a strip at a time, so that memory stays bounded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from medsegdiff.data.transforms import Placement, from_grid
from medsegdiff.fusion.fusers import FUSERS, Decided, decide
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.fusion.protocol import Raters
from medsegdiff.fusion.whole import WHOLE, DecidedWhole
from medsegdiff.hardware import exact_dtype
from medsegdiff.inference.ensemble import Ensemble
from medsegdiff.io.atomic import make_room, release
from medsegdiff.labels import Labels

STRIP = 1 << 23
"""Values in a strip, of all members and channels."""
NARROWEST = 16
"""Columns of a strip: as many values as processors take at once, so that none is rounded otherwise than at once."""
LARGE = 1 << 26
"""Bytes of an array above which it lies in a temporary file."""


@dataclass(frozen=True)
class Strip:
    """Some columns of a picture."""

    columns: slice
    members: Float[Tensor, "m k h s"]
    anchor: Float[Tensor, "k h s"] | None
    probability: Float[Tensor, "k h s"]
    """Of each channel, by the mixture."""


@dataclass(frozen=True)
class Restored:
    """What an ensemble says of one picture of its batch, brought to the native grid.

    Deviation: the members are restored first and fused then, so that STAPLE or the majority of the saved
    members is the saved mask, and contours keep the precision of the members' continuous values.
    """

    ensemble: Ensemble
    index: int
    placement: Placement
    labels: Labels
    mixture: Mixture

    def strips(self) -> Iterator[Strip]:
        """Give the picture strip by strip; each value is the same whatever their width."""
        ensemble, index, placement = self.ensemble, self.index, self.placement
        time = self.mixture.nearest(ensemble.times)
        given = [ensemble.probability[:, index], ensemble.expected[time, index, None].float()]
        given += [] if ensemble.anchor is None else [ensemble.anchor[index, None]]
        cuts = cut(placement.native, per_pixel=given[0].shape[0] * given[0].shape[1])
        (height, width), rows = placement.native, placement.resized[0]
        if len(cuts) > 1:  # along rows first, as `from_grid` does it; then each strip along its columns
            given = [from_grid(values, Placement((rows, width), placement.resized, placement.grid)) for values in given]
        for columns in cuts:
            if len(cuts) > 1:
                size = (rows, columns.stop - columns.start)
                place = Placement((height, size[1]), size, size)
                members, expected, *anchors = (from_grid(values[..., columns], place) for values in given)
            else:
                members, expected, *anchors = (from_grid(values, placement) for values in given)
            anchor = anchors[0][0] if anchors else None
            yield Strip(columns, members, anchor, self._mixed(anchor, expected[0]))

    def _mixed(self, anchor: Float[Tensor, "k h s"] | None, expected: Float[Tensor, "k h s"]) -> Float[Tensor, "k h s"]:
        """Mix exactly: in float32 the last pixels of a strip, which fill no vector, have other logarithms."""
        exact = exact_dtype(expected.device)
        parts = (None if anchor is None else anchor.to(exact), expected.to(exact))
        return self.mixture(*parts, exclusive=self.labels.exclusive).to(expected.dtype)

    def whole(self) -> Strip:
        """Give all of it at once, for fusions that know no other way."""
        strips = list(self.strips())
        anchors = [strip.anchor for strip in strips if strip.anchor is not None]
        return Strip(
            slice(0, self.placement.native[1]),
            torch.cat([strip.members for strip in strips], dim=-1),
            torch.cat(anchors, dim=-1) if anchors else None,
            torch.cat([strip.probability for strip in strips], dim=-1),
        )


def cut(native: tuple[int, int], *, per_pixel: int) -> list[slice]:
    """Cut columns into strips, as few as their size allows; only the last one is no multiple of the narrowest."""
    height, width = native
    step = max(1, STRIP // (height * per_pixel * NARROWEST)) * NARROWEST
    starts = range(0, max(width - NARROWEST, 0) + 1, step)
    return list(itertools.starmap(slice, itertools.pairwise([*starts, width])))


class Canvas:
    """Arrays of a whole picture by name, put together of strips; what is large lies in temporary files."""

    def __init__(self, width: int) -> None:
        """Start with none."""
        self.width = width
        self.arrays: dict[str, Shaped[np.ndarray, "..."]] = {}

    def paste(self, columns: slice, **parts: Shaped[np.ndarray, "..."] | None) -> None:
        """Take in some columns of arrays; an array that is whole already stays as it is."""
        for name, part in parts.items():
            if part is None:
                continue
            if part.shape[-1] == self.width:
                self.arrays[name] = part
                continue
            if name not in self.arrays:
                self.arrays[name] = _room((*part.shape[:-1], self.width), part.dtype)
            self.arrays[name][..., columns] = part
        release(*self.arrays.values())

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "..."]:
        return self.arrays[name]


def _room(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Shaped[np.ndarray, "..."]:
    """Make room for an array; in a file column lies beside column, as strips are written."""
    if math.prod(shape) * dtype.itemsize <= LARGE:
        return np.empty(shape, dtype)
    return make_room(shape, dtype, outer=len(shape) - 1)


class Fusing:
    """How the members of a picture are fused: strip by strip where a fusion can, else when all of it is known."""

    def __init__(self, labels: Labels, *, fusion: str, raters: Raters) -> None:
        self.labels, self.fusion, self.raters = labels, fusion, raters
        self.each = "each" in FUSERS[fusion].facts

    def of_strip(self, strip: Strip) -> UInt8[np.ndarray, " *shape"] | None:
        """Decide some columns, by a fusion that decides each pixel by itself."""
        return self._decided(strip).mask if self.each else None

    def of_all(self, restored: Restored, canvas: Canvas) -> DecidedWhole:
        """Decide all of a picture, whose members and probability are on a canvas."""
        if self.each:
            return DecidedWhole(canvas["mask"])
        if self.fusion in WHOLE:
            fuse = WHOLE[self.fusion]
            return fuse(canvas["members"], self.labels, marginal=canvas["probability"], raters=self.raters)
        found = self._decided(restored.whole())
        if found.sensitivity is None or found.specificity is None:
            return DecidedWhole(found.mask, converged=found.converged)
        held = found.probability.double().sum(dim=(1, 2)).numpy()
        return DecidedWhole(found.mask, found.sensitivity.numpy(), found.specificity.numpy(), held, found.converged)

    def _decided(self, strip: Strip) -> Decided:
        told = strip.probability
        return decide(strip.members, self.labels, fusion=self.fusion, marginal=told, raters=self.raters)


def fused_mask(restored: Restored, fusing: Fusing) -> UInt8[np.ndarray, " *shape"]:
    """Fuse the members of a picture, and look at nothing else."""
    canvas = Canvas(restored.placement.native[1])
    for strip in restored.strips():
        canvas.paste(strip.columns, mask=fusing.of_strip(strip), **drawn(strip, restored.labels))
    return fusing.of_all(restored, canvas).mask


def drawn(strip: Strip, labels: Labels) -> dict[str, np.ndarray]:
    """Give what fusing a picture takes: the label map of each member, and the probability."""
    members = np.stack([labels.decide(member) for member in strip.members])
    return {"members": members, "probability": strip.probability.cpu().numpy()}
