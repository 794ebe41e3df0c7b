"""How volumes are cut into pictures and put together: one way for training, segmenting, converting and showing."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, Shaped

from medsegdiff.data.intensity import intensity_of
from medsegdiff.io.arrays import image_key
from medsegdiff.io.image import canonical_geometry, canonical_view, native_axis
from medsegdiff.types import Case, Geometry, Plane

AXES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Plane → the axis of a canonical (right, front, up) volume that counts its slices."""
CLEARLY = 1.2
"""How many times as thick voxels must be along another axis for it to be cut."""


@dataclass(frozen=True)
class Slicing:
    """The slices of a volume, as they are looked at; arrays are given and changed on its native grid.

    A slice has the upper end or the front on top, and its columns run to the right or to the front.
    """

    native: Geometry
    plane: Plane

    @classmethod
    def of(cls, geometry: Geometry, plane: Plane | Literal["auto"] = "auto") -> Slicing:
        """Cut a volume along a plane; ``auto`` takes the one that suits it."""
        return cls(geometry, common_plane([geometry], plane))

    def __len__(self) -> int:
        return self.canonical.shape[AXES[self.plane]]

    @property
    def spacing(self) -> tuple[float, float]:
        """Height and width of a slice's pixels, in mm."""
        across, down = (s for axis, s in enumerate(self.canonical.spacing) if axis != AXES[self.plane])
        return down, across

    @property
    def native_axis(self) -> int:
        """The axis of the native grid that counts the slices."""
        return native_axis(self.native, AXES[self.plane])

    def names(self, volume: str) -> tuple[str, ...]:
        """Name the slices of a volume for people."""
        return tuple(f"{volume}/{index:04d}" for index in range(len(self)))

    def cut(self, array: Shaped[np.ndarray, "*c i j k"], index: int) -> Shaped[np.ndarray, "*c h w"]:
        """Look at one slice of an array, without a copy."""
        turned = np.moveaxis(self.turned(array), AXES[self.plane] - 3, 0)
        return turned[index].swapaxes(-1, -2)[..., ::-1, :]

    def paste(self, into: Shaped[np.ndarray, "*c i j k"], index: int, part: Shaped[np.ndarray, "*c h w"]) -> None:
        """Write one slice into an array."""
        self.cut(into, index)[...] = part

    def turned(self, array: Shaped[np.ndarray, "*c i j k"]) -> Shaped[np.ndarray, "*c x y z"]:
        """Look at an array as if its axes ran right, front and up."""
        return canonical_view(array, self.native)

    def areas(self, mask: Shaped[np.ndarray, "*s i j k"]) -> Integer[np.ndarray, " n"]:
        """Count the voxels of structures by slice."""
        turned = self.turned(mask)
        counting = turned.ndim - 3 + AXES[self.plane]
        return np.asarray(turned.sum(axis=tuple(axis for axis in range(turned.ndim) if axis != counting)))

    def where(self, mask: Shaped[np.ndarray, "*s i j k"]) -> int:
        """Find the slice with most of the structures; the middle one where there is none."""
        areas = self.areas(mask)
        return int(areas.argmax()) if areas.any() else self.middle

    @property
    def middle(self) -> int:
        """The slice in the middle."""
        return len(self) // 2

    def case(
        self,
        name: str,
        image: Float[np.ndarray, "c i j k"],
        index: int,
        *,
        intensity: Float[np.ndarray, "c 2"],
        neighbours: int = 0,
    ) -> Case:
        """Cut a picture, with the slices beside it as further channels: all channels of the lowest slice first."""
        beside = [min(max(index + offset, 0), len(self) - 1) for offset in range(-neighbours, neighbours + 1)]
        pixels = np.concatenate([self.cut(image, number) for number in beside])
        return Case(name, pixels, None, Geometry(shape=pixels.shape[1:], spacing=self.spacing), intensity=intensity)

    @functools.cached_property
    def canonical(self) -> Geometry:
        """The grid that `turned` gives."""
        return canonical_geometry(self.native)


def common_plane(geometries: Iterable[Geometry], asked: Plane | Literal["auto"] = "auto") -> Plane:
    """Choose how volumes are cut, all alike: where they are pictures as those, else axially, by the middle of them.

    Where voxels are clearly thicker along one other axis, along which neighbours tell least, it is cut instead.
    """
    if asked != "auto":
        return asked
    turned = [canonical_geometry(geometry) for geometry in geometries]
    shape = np.median([geometry.shape for geometry in turned], axis=0).tolist()
    spacing = np.median([geometry.spacing for geometry in turned], axis=0).tolist()
    for plane in reversed(AXES):
        if shape[AXES[plane]] == 1:
            return plane
    thickest = max(AXES, key=lambda plane: spacing[AXES[plane]])
    _, second, most = sorted(spacing)
    return thickest if most > CLEARLY * second else "axial"


def slices_of(
    volume: Case, plane: Plane | Literal["auto"], *, shared_noise: bool, neighbours: int = 0
) -> Iterator[Case]:
    """Cut a volume into pictures."""
    slicing, key = Slicing.of(volume.geometry, plane), image_key(volume.image)
    intensity = intensity_of(slicing.turned(volume.image))
    for index, name in enumerate(slicing.names(volume.name)):
        case = slicing.case(name, volume.image, index, intensity=intensity, neighbours=neighbours)
        yield replace(case, key=key if shared_noise else f"{key}/{index}")
