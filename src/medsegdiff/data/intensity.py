"""What the values of an image are to a network: measured, scaled by modality, with the channels that it expects."""

from __future__ import annotations

import logging
import math

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError
from medsegdiff.types import Case, Modality, Values

log = logging.getLogger(__name__)

DEFAULT_WINDOW = (-160.0, 240.0)
"""Hounsfield units of soft tissue: centre 40, width 400."""
BYTE = 255.0
"""White of a volume with 8 bits. Pictures are read 0 … 1, whatever their type (`scale_by_type`)."""
LUMINANCE = np.array([[0.299, 0.587, 0.114]], dtype=np.float32)


def intensities(
    case: Case,
    *,
    channels: int,
    modalities: tuple[Modality, ...],
    window: tuple[float, float] | None,
    values: Values,
) -> Float[np.ndarray, "d h w"]:
    """Make of an image what a network with so many channels takes; refuse what would be something else to it."""
    check_channels(case, channels)
    if values == "unit" and "ct" not in modalities:
        check_unit(case)
    if "ct" in modalities and case.intensity is None:
        raise DataError(
            f"{case.name}: the model was trained on CT, and a picture or an array holds no Hounsfield units. Give "
            "a volume: NIfTI, or the folder of a DICOM series."
        )
    matched = match_channels(case.image, channels, case.name)
    return normalise(matched, intensity=case.intensity, modalities=modalities, window=window, values=values)


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
) -> Float[np.ndarray, "c h w"]:
    """Normalise by modality: CT by its window, everything else as ``values`` says.

    A slice of a volume has an ``intensity`` and its file's own units; a picture has none, and 0 … 1 from black to
    white: here alone it is known what that means for ``unit``.
    """
    given = np.ascontiguousarray(image, dtype=np.float32)
    if values == "standard":
        own = [None] * len(given) if intensity is None else np.tile(intensity, (len(given) // len(intensity), 1))
        scaled = np.stack([_standard(channel, measured) for channel, measured in zip(given, own, strict=True)])
    else:
        scaled = given / np.float32(BYTE) if values == "unit" and intensity is not None else given.copy()
    for channel in _ct_channels(modalities, len(image)):
        low, high = window or DEFAULT_WINDOW
        scaled[channel] = ((given[channel] - low) / (high - low)).clip(0, 1) * 2 - 1
    return scaled


def _standard(channel: Float[np.ndarray, "h w"], measured: Float[np.ndarray, " 2"] | None) -> Float[np.ndarray, "h w"]:
    """Give a channel mean 0 and standard deviation 1: its own, or those that were measured of its volume."""
    mean = channel.mean(dtype=np.float64) if measured is None else measured[0]
    centred = channel - np.float32(mean)
    if measured is None:
        std = math.sqrt(float(np.square(centred).sum(dtype=np.float64)) / max(centred.size - 1, 1))
    else:
        std = float(measured[1])
    return centred / np.float32(std) if std > 0 else centred


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
