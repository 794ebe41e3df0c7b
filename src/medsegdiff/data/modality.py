"""What the values of image channels are: Hounsfield units, or units of no meaning. Told by who knows, else guessed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.intensity import DEFAULT_WINDOW
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.image import modality_of
from medsegdiff.types import Case, Geometry

log = logging.getLogger(__name__)

HOUNSFIELD = -200.0
"""Below fat (−100): where most volumes of a channel go down to this, it holds Hounsfield units, and air or lung."""
PADDING = -4096.0
"""So low is no tissue and no air: what was put around a scan is not looked at."""
WITHOUT_UNITS = ("MR", "PT", "NM", "US", "XA", "RF", "CR", "DX", "MG", "OPT")
"""DICOM's words for what makes images whose values mean nothing by themselves, or nothing that is used."""
DICOM: dict[str, Modality] = {"CT": "ct", **dict.fromkeys(WITHOUT_UNITS, "mr")}
"""Its words for what makes images, and what their values are; other words say nothing of values."""


def common_modalities(made_by: Mapping[str, tuple[str, ...]]) -> tuple[Modality, ...]:
    """Find the modalities that all cases have of which files say any, in DICOM's words by channel; empty: none do."""
    examples: dict[tuple[Modality, ...], str] = {}
    for name, words in made_by.items():
        if words and all(word in DICOM for word in words):
            examples.setdefault(tuple(DICOM[word] for word in words), f"{name} is {' + '.join(words)}")
    if len(examples) > 1:
        raise DataError(
            f"The modalities differ: {some(list(examples.values()))}. All volumes are normalised alike: keep them "
            "apart, or say with data.modalities what all are taken for."
        )
    return next(iter(examples), ())


def warn_of_modality(case: Case, modalities: tuple[Modality, ...]) -> None:
    """Warn where a file says that its values are not what the model was trained on."""
    if told := strange_modality(case.geometry, modalities):
        log.warning("%s: %s, and normalises it as such.", case.name, told)


def strange_modality(geometry: Geometry, modalities: tuple[Modality, ...]) -> str:
    """Say what a file tells of its values, if that is not what a model was trained on."""
    word = modality_of(geometry)
    if word not in DICOM or (DICOM[word] == "ct") == ("ct" in modalities):
        return ""
    return f"its files say that it is {word}, but the model was trained on {' + '.join(modalities) or 'pictures'}"


def told_modalities(info: DataInfo, config: DataConfig) -> tuple[tuple[Modality, ...], str]:
    """Find out what is known of the modalities without looking at values; what the user says wins."""
    told: tuple[Modality, ...] = info.modalities
    who = "told by the data set"
    if config.modalities is not None:
        told, who = config.modalities, "given as data.modalities"
    elif not told and not info.slices:
        natural: Modality = "natural"
        told, who = (natural,) * info.channels, "pictures"
    check_modalities(told, config, channels=info.channels, volumes=bool(info.slices))
    return (told, who) if told else ((), "")


def check_modalities(told: Sequence[Modality], config: DataConfig, *, channels: int, volumes: bool) -> None:
    """Refuse modalities that are more or fewer than the channels, or that pictures can't have."""
    who = "told by the data set" if config.modalities is None else "given as data.modalities"
    if told and len(told) != channels:
        raise ConfigError(
            f"The modalities {', '.join(told)} ({who}) are {len(told)}, but the images have {channels} channels. "
            "Set data.modalities to one of ct, mr, natural for each channel, in order."
        )
    if "ct" in told and not volumes:
        raise ConfigError(
            f"The modality ct ({who}) needs volumes in Hounsfield units, and these are pictures, whose values were "
            "scaled. Set data.modalities to natural for each channel, or give the volumes."
        )


def lowest_value(channel: Float[np.ndarray, "*s"]) -> float:
    """Find the lowest value of a volume that may be tissue or air."""
    return float(np.min(channel, where=channel > PADDING, initial=np.inf))


def guess_modalities(lowest: Float[np.ndarray, "n c"]) -> tuple[Modality, ...]:
    """Guess the modalities of volumes by their lowest values.

    Air is −1000 in Hounsfield units, and there is air in or around nearly every scan; other units start near 0.
    The median volume decides, so that one MR volume with an undershoot of its resampling does not.
    """
    return tuple("ct" if value <= HOUNSFIELD else "mr" for value in np.median(lowest, axis=0).tolist())


def shown_modalities(modalities: Sequence[Modality], window: tuple[float, float] | None) -> str:
    """Word the modalities for people."""
    kinds = modalities[:1] if len(set(modalities)) == 1 else modalities
    low, high = window or DEFAULT_WINDOW
    span = f", window {low:g} … {high:g} HU".replace("-", "−") if "ct" in modalities else ""
    return " + ".join(kinds) + span
