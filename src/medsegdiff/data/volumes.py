"""A folder with volumes in ``images/`` and ``masks/``, seen slice by slice."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import DATASETS, DataInfo, Track, in_silence
from medsegdiff.data.folder import FolderSource, find_images
from medsegdiff.data.planes import AXES, Plane, pick_plane, slice_of, spacing_of
from medsegdiff.io.grid import check_same_grid, to_canonical
from medsegdiff.io.image import is_volume, read_geometry, read_image
from medsegdiff.types import Case, Geometry


@dataclass(frozen=True)
class Canonical:
    """A volume turned to right, front and up, with its masks."""

    image: Float[np.ndarray, "c x y z"]
    masks: list[tuple[Path, UInt8[np.ndarray, "x y z"]]]
    geometry: Geometry
    plane: Plane
    intensity: Float[np.ndarray, "c 2"]


class VolumeFolderSource(FolderSource):
    """Slices of volumes: each is a case of its own, normalised with the numbers of its volume."""

    def __init__(self, root: Path, config: DataConfig, *, track: Track = in_silence) -> None:
        """Look through the folder, and at every mask for the slices that hold a structure.

        Args:
            root: The folder.
            config: How to read it.
            track: Shows progress while masks are read.
        """
        self.plane = config.plane
        self._slices: dict[str, tuple[str, ...]] = {}
        self._foreground: set[str] = set()
        super().__init__(root, config, track=track)
        self.info: DataInfo = dataclasses.replace(
            self.info, slices=self._slices, foreground=frozenset(self._foreground)
        )

    def check(self, name: str) -> set[int]:
        """Compare the grids of a volume and its masks, and find the slices with a structure.

        Args:
            name: The volume.

        Returns:
            All values of its masks.
        """
        geometry, _ = read_geometry(self.images[name])
        for path in self.masks.files(name):
            check_same_grid(geometry, read_geometry(path)[0], names=(str(self.images[name]), str(path)))
        stored = np.stack([values for _, values in self.masks.stored(name)])
        turned, canonical = to_canonical(stored, geometry)
        axis = 1 + AXES[pick_plane(canonical.spacing, self.plane)]
        held = np.moveaxis(turned, axis, 0).reshape(turned.shape[axis], -1).max(axis=1).tolist()
        self._slices[name] = tuple(f"{name}/{index:04d}" for index in range(len(held)))
        self._foreground |= {item for item, most in zip(self._slices[name], held, strict=True) if most}
        return {int(value) for value in np.unique(stored)}

    def load(self, name: str) -> Case:
        """Cut a slice.

        Args:
            name: Volume and number of the slice, ``case/0012``.

        Returns:
            The slice as a case.
        """
        volume, _, number = name.rpartition("/")
        whole, index = self._volume(volume), int(number)
        image = slice_of(whole.image, whole.plane, index)
        stored = [(path, slice_of(values, whole.plane, index)) for path, values in whole.masks]
        geometry = Geometry(shape=image.shape[1:], spacing=spacing_of(whole.geometry.spacing, whole.plane))
        return Case(name, image.copy(), self.masks.coded(stored, self.coding), geometry, whole.intensity)

    @functools.lru_cache(maxsize=1)  # noqa: B019  (slices are asked for volume by volume; the source lives as long)
    def _volume(self, name: str) -> Canonical:
        image, geometry = read_image(self.images[name])
        turned, canonical = to_canonical(image, geometry)
        masks = [(path, to_canonical(values, geometry)[0]) for path, values in self.masks.stored(name)]
        plane = pick_plane(canonical.spacing, self.plane)
        return Canonical(turned, masks, canonical, plane, intensity_of(turned))


def intensity_of(image: Float[np.ndarray, "c *s"]) -> Float[np.ndarray, "c 2"]:
    """Measure a volume for its normalisation: over the voxels that are not background, which is its lowest value.

    Args:
        image: In the file's own units.

    Returns:
        Mean and standard deviation by channel.
    """
    found = []
    for channel in image:
        inside = channel[channel > channel.min()]
        found.append((inside.mean(), inside.std()) if inside.size else (channel.mean(), 1.0))
    return np.array(found, dtype=np.float32)


@DATASETS.register(
    "folder",
    layout="images/NAME.png|jpg|tif|nii|nii.gz or NAME/*.dcm, masks/[rater or structure/]NAME.png|nii.gz, split.csv",
)
def open_folder(root: Path, config: DataConfig, *, track: Track = in_silence) -> FolderSource:
    """Open a folder of images and masks, pictures or volumes.

    Args:
        root: The folder.
        config: How to read it.
        track: Shows progress while masks are read.

    Returns:
        The source.
    """
    volumes = any(is_volume(path) for path in find_images(root).values())
    return (VolumeFolderSource if volumes else FolderSource)(root, config, track=track)
