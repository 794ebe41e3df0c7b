"""Structures that the model grid has no room for: what covers less than half of any pixel there is background."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from medsegdiff.config.data import DataConfig
from medsegdiff.data.masks import Masks, count_values
from medsegdiff.data.placement import place
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.transforms import to_grid
from medsegdiff.errors import some
from medsegdiff.types import Geometry


def vanishes(stored: UInt8[np.ndarray, "*s"], masks: Masks, geometry: Geometry, config: DataConfig) -> bool:
    """Tell whether a value of a mask would be lost; of a volume, where there is most of it."""
    if config.resize == "none":
        return False
    found = np.flatnonzero(count_values(stored)).astype(np.uint8)
    return any(not _fits(stored == value, geometry, config) for value in found[masks.structures(found)])


def _fits(mask: Bool[np.ndarray, "*s"], geometry: Geometry, config: DataConfig) -> bool:
    spacing: tuple[float, ...] = geometry.spacing
    if mask.ndim == 3:
        slicing = Slicing.of(geometry, config.plane)
        mask, spacing = slicing.cut(mask, slicing.where(mask)), slicing.spacing
    placement = place((mask.shape[0], mask.shape[1]), config, 1, spacing=spacing)
    if min(placement.resized[0] - mask.shape[0], placement.resized[1] - mask.shape[1]) >= 0 and _solid(mask):
        return True
    share: Tensor = to_grid(torch.from_numpy(np.ascontiguousarray(mask))[None].float(), placement)
    return bool(share.max() >= 0.5)


def _solid(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Tell whether a mask holds a square of three by three, in which a pixel of no coarser grid sees nothing else."""
    rows = mask[:-2] & mask[1:-1] & mask[2:]
    return bool((rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]).any())


def lost_in_words(names: list[str], total: int, config: DataConfig) -> str:
    """Say which images lose structures, and what to do."""
    return (
        f"In {len(names)} of {total} images structures vanish at data.image_size={config.image_size}, where they cover "
        f"less than half of any pixel: {some(names)}. They are trained as background, and count as missed in "
        "validation. Raise data.image_size, or cut the images into smaller ones."
    )
