"""A folder with ``images/``, ``masks/`` and maybe ``split.csv``."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import DATASETS, DataInfo, Track, in_silence
from medsegdiff.data.masks import MaskFolder
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, GeometryError, some
from medsegdiff.io.raster import SUFFIXES, picture_channels, picture_size, pictures_in, read_image
from medsegdiff.types import Case


@DATASETS.register("folder", layout="images/NAME.png|jpg|tif, masks/[rater or structure/]NAME.png, split.csv")
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
            values |= check_case(name, self.images[name], self.masks)
        if values == {0}:
            raise DataError(f"{self.masks.root}: every mask is empty (all values are 0). There is nothing to learn.")
        self.coding = self.masks.coding(values, task=config.task, classes=config.classes)
        self.info = DataInfo(
            channels=max(picture_channels(path) for path in self.images.values()),
            task=self.coding.task,
            classes=self.coding.classes,
            raters=self.masks.folders if self.masks.kind == "raters" else ("reference",),
            split=make_split(self.images, root / "split.csv", config),
        )

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
    size = picture_size(image)
    for path in masks.files(name):
        h, w = picture_size(path)
        if (h, w) != size:
            raise GeometryError(
                f"{image} is {size[0]}×{size[1]} but {path} is {h}×{w} (height×width). They must lie on the same grid."
            )
    return masks.values(name)


def find_images(root: Path) -> dict[str, Path]:
    """Index the pictures of ``images/`` by name.

    Args:
        root: The data folder.

    Returns:
        Stem → path.

    Raises:
        DataError: If there are none, or two have the same name.
    """
    folder = root / "images"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder.")
    paths = pictures_in(folder) if folder.is_dir() else []
    if not paths:
        seen = folder if folder.is_dir() else root
        here = some(sorted(p.name for p in seen.iterdir()), most=8) or "nothing"
        raise DataError(
            f"{root}: expected pictures ({', '.join(SUFFIXES)}) in images/ and masks in masks/; "
            f"found in {seen}: {here}."
        )
    found = {path.stem: path for path in paths}
    if len(found) < len(paths):
        twice = [path.name for path in paths if found[path.stem] != path]
        raise DataError(f"{folder}: several images of one name: {some(twice)}. Keep one of each.")
    return found
