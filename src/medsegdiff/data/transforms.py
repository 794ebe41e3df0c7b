"""From the native grid to the model grid, and back: normalise, resize, pad; crop, resize."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.intensity import intensities
from medsegdiff.data.placement import Placement, place
from medsegdiff.errors import GeometryError, size
from medsegdiff.types import Case


def to_grid(values: Float[Tensor, "c h w"], placement: Placement) -> Float[Tensor, "c gh gw"]:
    """Lay an image or masks on the model grid: antialiased bilinear resizing, then zeros around."""
    if placement.resized != placement.native:
        values = F.interpolate(values[None], size=placement.resized, mode="bilinear", antialias=True)[0]
    top, left = placement.offset
    bottom, right = (g - r - o for g, r, o in zip(placement.grid, placement.resized, placement.offset, strict=True))
    return F.pad(values, (left, right, top, bottom))


def from_grid(values: Float[Tensor, "n c gh gw"], placement: Placement) -> Float[Tensor, "n c h w"]:
    """Bring what the model made back to the native grid: crop, then bilinear resizing."""
    (top, left), (h, w) = placement.offset, placement.resized
    values = values[..., top : top + h, left : left + w]
    if placement.resized == placement.native:
        return values
    return F.interpolate(values, size=placement.native, mode="bilinear", antialias=True)


def check_mask(case: Case) -> None:
    """Refuse a mask of another size than its image."""
    for what, mask in (("mask", case.mask), ("map of what nobody labelled", case.ignored)):
        if mask is not None and mask.shape[-2:] != case.image.shape[-2:]:
            raise GeometryError(
                f"{case.name}: the image is {size(case.image.shape[-2:])} but its {what} is {size(mask.shape[-2:])} "
                "(height×width). They must lie on the same grid: turn or resample one of them."
            )


@dataclass(frozen=True)
class Prepared:
    """A case on the model grid."""

    name: str
    image: Float[Tensor, "c gh gw"]
    mask: UInt8[Tensor, "r k gh gw"] | None
    """0 and 1 by rater and channel."""
    placement: Placement
    ignored: UInt8[Tensor, "r gh gw"] | None = None
    """1 by rater where nobody labelled."""
    lost: UInt8[Tensor, " k"] | None = None
    """1 by channel that the reference holds on the native grid, and no more on this one; ``None``: none is."""

    @property
    def labelled(self) -> Bool[Tensor, "gh gw"]:
        """Where all raters labelled; what lies around the image, where it fills the grid up, is none of it."""
        (top, left), (height, width) = self.placement.offset, self.placement.resized
        inside = torch.zeros(self.image.shape[1:], dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        return inside if self.ignored is None else inside & ~self.ignored.bool().any(dim=0)


def prepare(case: Case, config: ResolvedConfig, *, stride: int) -> Prepared:
    """Bring a case onto the model grid."""
    spec, channels = config.spec, config.image_channels
    placement = place((case.image.shape[1], case.image.shape[2]), config.data, stride, spacing=case.geometry.spacing)
    check_mask(case)
    normalised = intensities(
        case, channels=channels, modalities=spec.modalities, window=spec.window, values=config.data.values
    )
    mask = None if case.mask is None else grid_mask(case.mask, placement, exclusive=spec.labels.exclusive)
    ignored = None if case.ignored is None else grid_mask(case.ignored[:, None], placement, exclusive=False)[:, 0]
    lost = None if case.mask is None or mask is None else _lost(_held(case.mask, case.ignored), _held(mask, ignored))
    return Prepared(case.name, to_grid(torch.from_numpy(normalised), placement), mask, placement, ignored, lost)


def grid_mask(mask: np.ndarray, placement: Placement, *, exclusive: bool) -> UInt8[Tensor, "r k gh gw"]:
    """Lay masks on the model grid, still 0 and 1: a pixel takes the class that covers most of it."""
    r, k = mask.shape[:2]
    share = to_grid(torch.from_numpy(mask).flatten(0, 1).float(), placement).unflatten(0, (r, k))
    if not exclusive:
        return (share >= 0.5).to(torch.uint8)
    return F.one_hot(share.argmax(dim=1), k).movedim(-1, 1).to(torch.uint8)


def _held(
    mask: UInt8[np.ndarray | Tensor, "r k h w"], ignored: UInt8[np.ndarray | Tensor, "r h w"] | None
) -> Bool[np.ndarray, " k"]:
    """Tell which channels the reference holds: the majority of the raters, where somebody labelled."""
    drawn = np.asarray(mask)
    majority = drawn[0] > 0 if len(drawn) == 1 else 2 * drawn.sum(axis=0, dtype=np.uint16) >= len(drawn)
    if ignored is not None:
        majority = majority & (np.asarray(ignored).max(axis=0) == 0)
    return np.asarray(majority.any(axis=(1, 2)))


def _lost(before: Bool[np.ndarray, " k"], after: Bool[np.ndarray, " k"]) -> UInt8[Tensor, " k"] | None:
    gone = before & ~after
    return torch.from_numpy(gone.astype(np.uint8)) if gone.any() else None
