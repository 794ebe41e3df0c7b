"""Volumes with masks, as a layout lists them, seen slice by slice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config.data import DataConfig, Plane
from medsegdiff.data.dataset import DataInfo, Track, in_silence
from medsegdiff.data.listing import Listing
from medsegdiff.data.planes import AXES, pick_plane, slice_of, spacing_of
from medsegdiff.data.source import ListedSource, check_grids
from medsegdiff.errors import DataError, some
from medsegdiff.io.grid import canonical_geometry, to_canonical
from medsegdiff.io.image import count_channels, read_channels, read_geometry
from medsegdiff.types import Case, Geometry


@dataclass(frozen=True)
class Canonical:
    """A volume turned to right, front and up, with its masks."""

    image: Float[np.ndarray, "c x y z"]
    masks: list[tuple[Path, UInt8[np.ndarray, "x y z"]]]
    geometry: Geometry
    intensity: Float[np.ndarray, "c 2"]


class VolumeSource(ListedSource):
    """Slices of volumes: each is a case of its own, normalised with the numbers of its volume."""

    def __init__(self, listing: Listing, config: DataConfig, *, track: Track = in_silence) -> None:
        """Look through the files, and at every mask for the slices that hold a structure."""
        cases = listing.cases.values()
        check_channels_alike({case.images[0]: count_channels(case.images) for case in cases})
        grids = {case.name: canonical_geometry(read_geometry(case.images[0])[0]) for case in cases}
        spacings = [grid.spacing for grid in grids.values()]
        shape = np.median([grid.shape for grid in grids.values()], axis=0).tolist()
        self.plane: Plane = pick_plane(np.median(spacings, axis=0).tolist(), config.plane, shape=shape)
        self.neighbours = config.neighbours
        self._slices = {name: slices_in(name, grid.shape[AXES[self.plane]]) for name, grid in grids.items()}
        self._foreground: set[str] = set()
        super().__init__(listing, config, track=track)
        self.info: DataInfo = dataclasses.replace(
            self.info, plane=self.plane, slices=self._slices, foreground=frozenset(self._foreground)
        )

    def check(self, name: str) -> set[int]:
        """Compare the grids of a volume and its masks, and find the slices with a structure."""
        geometry = check_grids(self.labelled[name], self.masks)
        stored = np.stack([values for _, values in self.masks.stored(name)])
        nobody = self.masks.declared.ignore if self.masks.declared else None
        turned, _ = to_canonical((stored > 0) & (stored != (-1 if nobody is None else nobody)), geometry)
        axis = 1 + AXES[self.plane]
        held = np.moveaxis(turned, axis, 0).reshape(turned.shape[axis], -1).max(axis=1).tolist()
        self._foreground |= {item for item, most in zip(self._slices[name], held, strict=True) if most}
        return {int(value) for value in np.unique(stored)}

    def load(self, name: str) -> Case:
        """Cut a slice."""
        volume, _, number = name.rpartition("/")
        whole, index = self.volume(volume), int(number)
        image = with_neighbours(whole.image, self.plane, index, self.neighbours)
        geometry = Geometry(shape=image.shape[1:], spacing=spacing_of(whole.geometry.spacing, self.plane))
        if not whole.masks:
            return Case(name, image, None, geometry, intensity=whole.intensity)
        stored = [(path, slice_of(values, self.plane, index)) for path, values in whole.masks]
        labels = self.info.labels
        mask, ignored = self.masks.coded(stored, labels), self.masks.ignored(stored, labels)
        return Case(name, image, mask, geometry, intensity=whole.intensity, ignored=ignored)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (slices are asked for volume by volume; the source lives as long)
    def volume(self, name: str) -> Canonical:
        """Read a whole volume."""
        image, geometry = read_channels(self.listing.cases[name].images)
        turned, canonical = to_canonical(image, geometry)
        masks = [(path, to_canonical(values, geometry)[0]) for path, values in self.masks.stored(name)]
        return Canonical(turned, masks, canonical, intensity_of(turned))


def slices_in(name: str, count: int) -> tuple[str, ...]:
    """Name the slices of a volume."""
    return tuple(f"{name}/{index:04d}" for index in range(count))


def with_neighbours(
    volume: Float[np.ndarray, "c x y z"], plane: Plane, index: int, neighbours: int
) -> Float[np.ndarray, "n h w"]:
    """Cut a slice, with those beside it as further channels: all channels of the lowest slice first."""
    last = volume.shape[1 + AXES[plane]] - 1
    beside = [min(max(index + offset, 0), last) for offset in range(-neighbours, neighbours + 1)]
    return np.concatenate([slice_of(volume, plane, number) for number in beside])


def intensity_of(image: Float[np.ndarray, "c *s"]) -> Float[np.ndarray, "c 2"]:
    """Measure a volume for its normalisation: its voxels, without the value that most of its corners have, if any."""
    return np.array([_mean_and_std(channel) for channel in image], dtype=np.float32)


def _mean_and_std(channel: Float[np.ndarray, "*s"]) -> tuple[float, float]:
    """Measure plane by plane, without a copy of the volume; from the first corner, so that the sums stay small."""
    corners = channel[tuple(np.meshgrid(*[[0, -1]] * channel.ndim, indexing="ij"))]
    values, counts = np.unique(corners, return_counts=True)
    background = values[counts.argmax()] if counts.max() > corners.size / 2 else None
    origin, count, total, squares = float(corners.flat[0]), 0, 0.0, 0.0
    for plane in channel:
        inside = (plane if background is None else plane[plane != background]).astype(np.float64) - origin
        count, total, squares = count + inside.size, total + inside.sum(), squares + np.square(inside).sum()
    if not count:
        return origin, 1.0  # every voxel is background
    mean = total / count
    return origin + mean, float(np.sqrt(max(squares / count - mean * mean, 0.0)))


def check_channels_alike(channels: Mapping[Path, int]) -> None:
    """Refuse volumes with different numbers of channels: which sequence would be which?"""
    examples = {count: path for path, count in channels.items()}
    if len(examples) > 1:
        shown = some([f"{path} has {count}" for count, path in examples.items()])
        raise DataError(
            f"The volumes differ in their channels: {shown}. Give each the same channels in the same order."
        )
