"""From the native grid to the model grid, and back: normalise, resize, pad; crop, resize."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.data import DataConfig, Modality, Values, next_multiple
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import DataError, GeometryError, size
from medsegdiff.types import Case

log = logging.getLogger(__name__)

DEFAULT_WINDOW = (-160.0, 240.0)
"""Hounsfield units of soft tissue: centre 40, width 400."""
BYTE = 255.0
"""White of a volume with 8 bits. Pictures are read 0 … 1, whatever their type (`scale_by_type`)."""
LUMINANCE = np.array([[0.299, 0.587, 0.114]], dtype=np.float32)


@dataclass(frozen=True)
class Placement:
    """Where the native image lies on the model grid: the record that undoes the way there."""

    native: tuple[int, int]
    """Height and width of the image as it came."""
    resized: tuple[int, int]
    """Height and width after resizing."""
    grid: tuple[int, int]
    """Height and width of the model grid, multiples of the stride."""

    @property
    def offset(self) -> tuple[int, int]:
        """Rows above and columns left of the image on the grid."""
        return (self.grid[0] - self.resized[0]) // 2, (self.grid[1] - self.resized[1]) // 2


def place(
    native: tuple[int, int], config: DataConfig, stride: int, *, spacing: tuple[float, ...] = (1.0, 1.0)
) -> Placement:
    """Decide how an image is laid on the model grid."""
    resized = _resized(native, config.image_size, config.resize, spacing)
    square = resized if config.resize == "none" else (config.image_size, config.image_size)
    return Placement(native, resized, (next_multiple(square[0], stride), next_multiple(square[1], stride)))


def _resized(
    native: tuple[int, int], size: int, how: Literal["fit", "stretch", "none"], spacing: tuple[float, ...]
) -> tuple[int, int]:
    if how == "none":
        return native
    if how == "stretch":
        return size, size
    h, w = native[0] * spacing[0], native[1] * spacing[1]
    return max(1, round(size * h / max(h, w))), max(1, round(size * w / max(h, w)))


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


def intensity_of(image: Float[np.ndarray, "c *s"]) -> Float[np.ndarray, "c 2"]:
    """Measure a volume for its normalisation: its voxels, without the value that most of its corners have, if any."""
    return np.array([_mean_and_std(channel) for channel in image], dtype=np.float32)


def _mean_and_std(channel: Float[np.ndarray, "*s"]) -> tuple[float, float]:
    """Measure plane by plane, without a copy of the volume; from the first corner, so that the sums stay small."""
    corners = channel[tuple(np.meshgrid(*[[0, -1]] * channel.ndim, indexing="ij"))]
    values, counts = np.unique(corners, return_counts=True)
    background = values[counts.argmax()] if counts.max() > corners.size / 2 else None
    origin, count, total, squares = float(corners.flat[0]), 0, 0.0, 0.0
    for plane in map(np.ascontiguousarray, channel):  # whichever way the file turns its axes, one order of adding
        inside = (plane if background is None else plane[plane != background]).astype(np.float64) - origin
        count, total, squares = count + inside.size, total + inside.sum(), squares + np.square(inside).sum()
    if not count:
        return origin, 1.0  # every voxel is background
    mean = total / count
    return origin + mean, float(np.sqrt(max(squares / count - mean * mean, 0.0)))


def normalise(
    image: Float[np.ndarray, "c h w"],
    *,
    intensity: Float[np.ndarray, "v 2"] | None = None,
    modalities: tuple[Modality, ...] | None = None,
    window: tuple[float, float] | None = None,
    values: Values = "standard",
) -> Float[Tensor, "c h w"]:
    """Normalise by modality: CT by its window, everything else as ``values`` says.

    A slice of a volume has an ``intensity`` and its file's own units; a picture has none, and 0 … 1 from black to
    white: here alone it is known what that means for ``unit``.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    mean, std = tensor.mean(dim=(1, 2), keepdim=True), tensor.std(dim=(1, 2), keepdim=True)
    if intensity is not None:
        mean, std = torch.from_numpy(np.tile(intensity, (len(image) // len(intensity), 1))).T[..., None, None]
    scaled = (tensor - mean).div_(torch.where(std > 0, std, 1.0)) if values == "standard" else tensor.clone()
    if values == "unit" and intensity is not None:
        scaled = tensor / BYTE
    for channel in _ct_channels(modalities, len(image)):
        low, high = window or DEFAULT_WINDOW
        scaled[channel] = ((tensor[channel] - low) / (high - low)).clamp(0, 1) * 2 - 1
    return scaled


def _ct_channels(modalities: tuple[Modality, ...] | None, count: int) -> list[int]:
    if not modalities:
        return []
    return [channel for channel in range(count) if modalities[channel % len(modalities)] == "ct"]


def check_channels(case: Case, channels: int) -> None:
    """Refuse a volume with other channels than the model was trained on: only pictures may be grey or coloured."""
    volume = case.image.ndim == 4 or case.intensity is not None
    if len(case.image) != channels and (volume or {len(case.image), channels} != {1, 3}):
        what = "volume" if volume else "image"
        raise DataError(
            f"{case.name}: the {what} has {len(case.image)} channels; the model expects {channels}. Give the channels "
            "that it was trained on, in their order."
        )


def check_unit(case: Case) -> None:
    """Refuse values that are no shares of white; resampling may overshoot a little."""
    white = 1.0 if case.intensity is None else BYTE
    low, high = float(case.image.min()), float(case.image.max())
    if low < -white or high > 2 * white:
        raise DataError(
            f"{case.name}: the values go from {low:g} to {high:g}; data.values is 'unit', for which 0 is black and "
            f"{white:g} is white. Scale the image so, or set data.values=raw if the model was trained on its units."
        )


def check_mask(case: Case) -> None:
    """Refuse a mask of another size than its image."""
    for what, mask in (("mask", case.mask), ("map of what nobody labelled", case.ignored)):
        if mask is not None and mask.shape[-2:] != case.image.shape[-2:]:
            raise GeometryError(
                f"{case.name}: the image is {size(case.image.shape[-2:])} but its {what} is {size(mask.shape[-2:])} "
                "(height×width). They must lie on the same grid: turn or resample one of them."
            )


def match_channels(image: Float[np.ndarray, "c h w"], channels: int, name: str) -> Float[np.ndarray, "d h w"]:
    """Give an image the channels that the model expects: grey is repeated, colour becomes luminance with a warning."""
    given = image.shape[0]
    if given == channels:
        return image
    if given == 1:
        return np.repeat(image, channels, axis=0)
    if given == 3 and channels == 1:
        if (image != image[:1]).any():
            log.warning("%s is coloured, the model was trained on grey images: taking its luminance.", name)
        return np.tensordot(LUMINANCE, image, axes=1)
    raise DataError(f"{name} has {given} channels; the model expects {channels}.")


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
    check_channels(case, channels)
    check_mask(case)
    if config.data.values == "unit" and "ct" not in spec.modalities:
        check_unit(case)
    if "ct" in spec.modalities and case.intensity is None:
        raise DataError(
            f"{case.name}: the model was trained on CT, and a picture or an array holds no Hounsfield units. Give "
            "a volume: NIfTI, or the folder of a DICOM series."
        )
    matched = match_channels(case.image, channels, case.name)
    normalised = normalise(
        matched,
        intensity=case.intensity,
        modalities=spec.modalities,
        window=spec.window,
        values=config.data.values,
    )
    mask = None if case.mask is None else grid_mask(case.mask, placement, exclusive=spec.labels.exclusive)
    ignored = None if case.ignored is None else grid_mask(case.ignored[:, None], placement, exclusive=False)[:, 0]
    lost = None if case.mask is None or mask is None else _lost(_held(case.mask, case.ignored), _held(mask, ignored))
    return Prepared(case.name, to_grid(normalised, placement), mask, placement, ignored, lost)


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
