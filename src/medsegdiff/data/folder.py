"""A folder with ``images/``, ``masks/`` and maybe ``split.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import DataInfo, Track, in_silence
from medsegdiff.data.masks import MaskFolder
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.grid import check_same_grid
from medsegdiff.io.image import SUFFIXES, image_name, images_in, is_volume, read_geometry, read_image
from medsegdiff.types import Case, Geometry


class FolderSource:
    """Images and masks of the same name, as most people have them."""

    def __init__(self, root: Path, config: DataConfig, *, track: Track = in_silence) -> None:
        """Look through the folder and make sure that images and masks fit together.

        Args:
            root: The folder.
            config: How to read it.
            track: Shows progress while masks are read.

        Raises:
            DataError: If something is missing or can't be understood.
            GeometryError: If an image and its mask differ in size.
        """
        self.images = find_images(root)
        self.masks = MaskFolder(root / "masks", kind=config.mask_folders, names=self.images)
        self._check_pairs()
        values: set[int] = set()
        for name in track(sorted(self.images), "Looking through the masks"):
            values |= self.check(name)
        if values == {0}:
            raise DataError(f"{self.masks.root}: every mask is empty (all values are 0). There is nothing to learn.")
        self.coding = self.masks.coding(values, task=config.task, classes=config.classes)
        self.info = DataInfo(
            channels=max(read_geometry(path)[1] for path in self.images.values()),
            task=self.coding.task,
            classes=self.coding.classes,
            raters=self.masks.folders if self.masks.kind == "raters" else ("reference",),
            split=make_split(self.images, root / "split.csv", config),
        )

    def check(self, name: str) -> set[int]:
        """Compare an image with its masks.

        Args:
            name: The case.

        Returns:
            All values of its masks.
        """
        return check_case(name, self.images[name], self.masks)

    def load(self, name: str) -> Case:
        """Read a case.

        Args:
            name: Stem of the image file.

        Returns:
            The case.
        """
        image, geometry = read_image(self.images[name])
        return Case(name, image, self.masks.read(name, self.coding), geometry)

    def _check_pairs(self) -> None:
        unpaired = sorted(set(self.images) - set(self.masks.names))
        if unpaired:
            raise DataError(
                f"{len(unpaired)} of {len(self.images)} images have no mask: {some(unpaired)}. "
                f"Put a mask of the same name under {self.masks.root}, or remove the images."
            )
        if incomplete := self.masks.incomplete(self.images):
            raise DataError(
                f"{self.masks.root}: structures are missing: {some(incomplete)}. Save an empty mask for each; "
                "if the sub-folders are raters, set data.mask_folders=raters."
            )


def check_case(name: str, image: Path, masks: MaskFolder) -> set[int]:
    """Compare the sizes of an image and its masks, and list the values of the masks.

    Args:
        name: The case.
        image: Its picture.
        masks: Where its masks are.

    Returns:
        All values that occur.

    Raises:
        GeometryError: If a mask has another size than the image.
    """
    check_grids(image, masks.files(name))
    return masks.values(name)


def check_grids(image: Path, masks: Sequence[Path]) -> Geometry:
    """Make sure that masks lie on the grid of their image.

    Args:
        image: A picture or a volume.
        masks: Of this image.

    Returns:
        Where the image lies.

    Raises:
        GeometryError: If a mask has another size, or lies elsewhere in the world.
    """
    geometry = read_geometry(image)[0]
    for path in masks:
        other = read_geometry(path)[0]
        if other.shape != geometry.shape:
            unit = " (height×width)" if len(geometry.shape) == 2 else ""
            raise GeometryError(
                f"{image} is {size(geometry.shape)} but {path} is {size(other.shape)}{unit}. "
                "They must lie on the same grid."
            )
        check_same_grid(geometry, other, names=(str(image), str(path)))
    return geometry


def find_images(root: Path) -> dict[str, Path]:
    """Index the images of ``images/`` by name.

    Args:
        root: The data folder.

    Returns:
        Stem → path.

    Raises:
        DataError: If there are none, two have the same name, or pictures and volumes are mixed.
    """
    folder = root / "images"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder.")
    paths = images_in(folder) if folder.is_dir() else []
    if not paths:
        seen = folder if folder.is_dir() else root
        here = some(sorted(p.name for p in seen.iterdir()), most=8) or "nothing"
        raise DataError(
            f"{root}: expected images ({', '.join(SUFFIXES)}, folders of DICOM) in images/ and masks in masks/; "
            f"found in {seen}: {here}."
        )
    kinds = {is_volume(path): path.name for path in paths}
    if len(kinds) > 1:
        raise DataError(f"{folder}: holds volumes ({kinds[True]}) and pictures ({kinds[False]}). Keep them apart.")
    found = {image_name(path): path for path in paths}
    if len(found) < len(paths):
        twice = [path.name for path in paths if found[image_name(path)] != path]
        raise DataError(f"{folder}: several images of one name: {some(twice)}. Keep one of each.")
    return found
