"""What the channels of images measure, and the Hounsfield units that are told apart. Nothing is read here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.transforms import DEFAULT_WINDOW
from medsegdiff.errors import ConfigError

HOUNSFIELD = -200.0
"""Below fat (−100): where most volumes of a channel go down to this, it holds Hounsfield units, and air or lung."""
NARROWEST = 150.0
"""Hounsfield units that a window spans at least."""
TAILS = (0.5, 99.5)
"""Percentiles of the voxels of structures between which a window lies."""


def told_modalities(info: DataInfo, config: DataConfig) -> tuple[tuple[Modality, ...], str]:
    """Find out what is known of the modalities without looking at values; what the user says wins."""
    told: tuple[Modality, ...] = info.modalities
    who = "told by the data set"
    if config.modalities is not None:
        told, who = config.modalities, "given as data.modalities"
    elif not told and not info.slices:
        natural: Modality = "natural"
        told, who = (natural,) * info.channels, "pictures"
    if told and len(told) != info.channels:
        raise ConfigError(
            f"The modalities {', '.join(told)} ({who}) are {len(told)}, but the images have {info.channels} channels. "
            "Set data.modalities to one of ct, mr, natural for each channel, in order."
        )
    if "ct" in told and not info.slices:
        raise ConfigError(
            f"The modality ct ({who}) needs volumes in Hounsfield units, and these are pictures, whose values were "
            "scaled. Set data.modalities to natural for each channel, or give the volumes."
        )
    return (told, who) if told else ((), "")


def check_neighbours(info: DataInfo, config: DataConfig) -> None:
    """Refuse to take neighbouring slices along where there are none."""
    if config.neighbours and not info.slices:
        raise ConfigError(
            f"data.neighbours is {config.neighbours}, but these are pictures: only slices of volumes have neighbours. "
            "Leave it out."
        )


def guess_modalities(lowest: Float[np.ndarray, "n c"]) -> tuple[Modality, ...]:
    """Guess the modalities of volumes by their lowest values.

    Air is −1000 in Hounsfield units, and there is air in or around nearly every scan; other units start near 0.
    The median volume decides, so that one MR volume with an undershoot of its resampling does not.
    """
    return tuple("ct" if value <= HOUNSFIELD else "mr" for value in np.median(lowest, axis=0).tolist())


def fit_window(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Choose the Hounsfield units that become −1 and 1: those that the voxels of structures have.

    From the 0.5th to the 99.5th percentile, between which nnU-Net clips, too: metal and mislabelled voxels must not
    stretch the window. A structure of one tissue may span very little; below 150 HU the noise of a scan (some 10 to
    30 HU) would fill the window, and its surroundings would be cut off alike on both sides, so it is widened about
    its middle. Whole numbers, as Hounsfield units are.
    """
    if not values.size:
        return DEFAULT_WINDOW
    low, high = np.percentile(values, TAILS).tolist()
    missing = max(0.0, NARROWEST - (high - low)) / 2
    return float(np.floor(low - missing)), float(np.ceil(high + missing))


def shown_modalities(modalities: Sequence[Modality], window: tuple[float, float] | None) -> str:
    """Word the modalities for people."""
    kinds = modalities[:1] if len(set(modalities)) == 1 else modalities
    low, high = window or DEFAULT_WINDOW
    span = f", window {low:g} … {high:g} HU".replace("-", "−") if "ct" in modalities else ""
    return " + ".join(kinds) + span
