"""The fingerprint of a data set: modality, spacing, sizes and intensities of some of its training cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.dataset import SPLITS, DataInfo, DataSource, Track, no_progress
from medsegdiff.data.intensity import DEFAULT_WINDOW, match_channels
from medsegdiff.data.modality import guess_modalities, lowest_value, told_modalities
from medsegdiff.data.open import VolumeSource
from medsegdiff.data.split import evenly
from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from medsegdiff.seeding import derive_seed

MOST = {"volumes": 25, "pictures": 100}
"""Training cases that are read at most."""
MOST_VOXELS = 20_000
"""Voxels of a case that are kept at most: of structures, and of all."""


@dataclass(frozen=True)
class Span:
    """What a number, or several, range over."""

    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What a data set is like; measured on `sampled` training cases."""

    kind: Literal["volumes", "pictures"]
    modalities: tuple[Modality, ...]
    """By channel."""
    told: str
    """How they are known: told by the data set or the user, or guessed from values."""
    window: tuple[float, float] | None
    """Hounsfield units that suit the structures; ``None`` without CT."""
    plane: str
    """How volumes are cut; empty for pictures."""
    spacing: Span | None
    """Of volumes: mm to the right, to the front and up."""
    size: Span
    """Height and width of slices or pictures, in pixels."""
    num_slices: Span | None
    """Of volumes."""
    channels: int
    labels: Labels
    intensity: tuple[tuple[float, ...], ...]
    """By channel: the 0.5th, 50th and 99.5th percentile of all voxels, in the units of the files."""
    structure_intensity: tuple[tuple[float, ...], ...]
    """The same of the voxels inside structures; empty if there are none."""
    foreground: float
    """Share of the voxels that lie inside a structure."""
    cases: dict[str, int]
    """By part."""
    sampled: int


@dataclass(frozen=True)
class _Sample:
    """What is kept of a case."""

    size: tuple[int, ...]
    """Height and width of a slice or picture, and number of slices."""
    spacing: tuple[float, ...]
    lowest: Float[np.ndarray, " c"]
    voxels: Float[np.ndarray, "c n"]
    structures: Float[np.ndarray, "c m"]
    foreground: float


def fingerprint(source: DataSource, config: DataConfig, *, track: Track = no_progress) -> Fingerprint:
    """Take the fingerprint of a data set from training cases, evenly chosen; what is tested on is not looked at.

    Of each case, as many voxels are drawn, by a fixed seed, so that large volumes do not outvote small ones.
    """
    info = source.info
    kind: Literal["volumes", "pictures"] = "volumes" if info.slices else "pictures"
    told, how = told_modalities(info, config)
    names = info.names("train")
    samples = [_sample(source, name) for name in track(evenly(names, MOST[kind]), "Taking the fingerprint")]
    modalities = told or guess_modalities(np.stack([sample.lowest for sample in samples]))
    structures = np.concatenate([sample.structures for sample in samples], axis=1)
    hounsfield = structures[[modality == "ct" for modality in modalities]]
    return Fingerprint(
        kind=kind,
        modalities=modalities,
        told=how or "guessed from values",
        window=(config.window or fit_window(hounsfield.ravel())) if "ct" in modalities else None,
        plane=info.plane,
        spacing=_span([sample.spacing for sample in samples]) if info.slices else None,
        size=_span([sample.size[:2] for sample in samples]),
        num_slices=_span([sample.size[2:] for sample in samples]) if info.slices else None,
        channels=info.channels,
        labels=info.labels,
        intensity=_percentiles(np.concatenate([sample.voxels for sample in samples], axis=1)),
        structure_intensity=_percentiles(structures),
        foreground=float(np.mean([sample.foreground for sample in samples])),
        cases={part: list(info.split.values()).count(part) for part in SPLITS},
        sampled=len(samples),
    )


def normalisation_of(
    source: DataSource, config: DataConfig, *, track: Track = no_progress
) -> tuple[tuple[Modality, ...], tuple[float, float] | None]:
    """Find modalities and window, reading cases only if values have to be asked."""
    told, _ = told_modalities(source.info, config)
    if told and ("ct" not in told or config.window):
        return told, config.window
    found = fingerprint(source, config, track=track)
    return found.modalities, config.window or found.window


def _sample(source: DataSource, name: str) -> _Sample:
    labels = source.info.labels
    if isinstance(source, VolumeSource):
        whole = source.volume(name)
        image = whole.slicing.turned(whole.image)
        counts: np.ndarray = np.any(labels.table[labels.foreground], axis=0)
        inside: np.ndarray = np.zeros(image.shape[1:], dtype=bool)
        for _, values in whole.masks:
            inside[counts[whole.slicing.turned(values)]] = True
        size = whole.slicing.cut(whole.image, 0).shape[1:]
        return _measured(name, image, inside, (*size, len(whole.slicing)), whole.slicing.canonical.spacing)
    items = source.info.slices.get(name, (name,))
    case = source.load(items[len(items) // 2])
    image = match_channels(case.image, source.info.channels, name)  # some may be grey and others coloured
    shape = case.image.shape[1:]
    inside = np.zeros(shape, dtype=bool)
    if case.mask is not None:
        inside[case.mask[:, labels.foreground].any(axis=(0, 1))] = True
    return _measured(name, image, inside, (*shape, len(items)), ())


def _measured(
    name: str,
    image: Float[np.ndarray, "c *s"],
    inside: Bool[np.ndarray, "*s"],
    size: tuple[int, ...],
    spacing: tuple[float, ...],
) -> _Sample:
    """Draw voxels of a case: of all of them, and of those inside structures."""
    rng = np.random.default_rng(derive_seed(0, "fingerprint", name))
    everywhere = np.arange(inside.size) if inside.size <= MOST_VOXELS else rng.integers(inside.size, size=MOST_VOXELS)
    places = np.flatnonzero(inside)
    if len(places) > MOST_VOXELS:
        places = places[rng.integers(len(places), size=MOST_VOXELS)]
    return _Sample(
        size=size,
        spacing=spacing,
        lowest=np.array([lowest_value(channel) for channel in image], np.float32),
        voxels=_at(image, everywhere),
        structures=_at(image, places),
        foreground=float(inside.mean()),
    )


def _at(image: Float[np.ndarray, "c *s"], places: Int[np.ndarray, " n"]) -> Float[np.ndarray, "c n"]:
    where = np.unravel_index(places, image.shape[1:])
    return np.stack([channel[where] for channel in image])


def _percentiles(values: Float[np.ndarray, "c n"]) -> tuple[tuple[float, ...], ...]:
    if not values.size:
        return ()
    return tuple(tuple(np.percentile(channel, (TAILS[0], 50, TAILS[1])).round(4).tolist()) for channel in values)


def _span(rows: Sequence[tuple[int, ...]] | Sequence[tuple[float, ...]]) -> Span:
    median, low, high = np.percentile(rows, (50, 0, 100), axis=0).round(4).tolist()
    return Span(tuple(median), tuple(low), tuple(high))


NARROWEST = 150.0
"""Hounsfield units that a window spans at least."""
TAILS = (0.5, 99.5)
"""Percentiles of the voxels of structures between which a window lies."""


def check_neighbours(info: DataInfo, config: DataConfig) -> None:
    """Refuse to take neighbouring slices along where there are none."""
    if config.neighbours and not info.slices:
        raise ConfigError(
            f"data.neighbours is {config.neighbours}, but these are pictures: only slices of volumes have neighbours. "
            "Leave it out."
        )


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
