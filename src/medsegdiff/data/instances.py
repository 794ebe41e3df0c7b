"""Masks of one structure that lie in several files, an instance each: they are read as one, and on request apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from scipy.ndimage import find_objects

from medsegdiff.data.mask_values import MAX_CLASSES
from medsegdiff.data.masks import MaskFile, MaskReader, Masks, whole
from medsegdiff.errors import DataError, GeometryError, size
from medsegdiff.io.image import check_same_grid
from medsegdiff.io.listing import LeftOut
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry


class UnitedReader(MaskReader):
    """Reads instances as the mask of all of them, which goes by the name of the first."""

    def __init__(self, instances: Mapping[Path, Sequence[Path]]) -> None:
        """Remember which files belong together."""
        self.instances = dict(instances)

    def files(self, path: MaskFile) -> Sequence[Path]:
        """List the instances of a mask, a file each."""
        return self.instances.get(whole(path), (whole(path),))

    @property
    def apart(self) -> bool:
        """Whether the instances of a mask lie in files of their own."""
        return True

    def parts(self, path: MaskFile) -> Iterator[UInt8[np.ndarray, " *s"]]:
        """Read the instances of a mask one by one."""
        yield from map(super().values, self.files(path))

    def values(self, path: MaskFile) -> UInt8[np.ndarray, " *s"]:
        """Read the instances of a mask, and unite them."""
        first, *others = self.files(path)
        united = super().values(first)
        for file in others:
            values = super().values(file)
            if values.shape != united.shape:
                raise GeometryError(
                    f"{first} is {size(united.shape)} but {file} is {size(values.shape)}. "
                    "Instances of one image must lie on the same grid."
                )
            overlap = values[(values > 0) & (united > 0) & (values != united)]
            if max(values.max(), united.max()) <= MAX_CLASSES and overlap.size:
                raise DataError(
                    f"{file}: holds another class than {first} in one place; instances of one structure are united. "
                    "If they are structures or raters, set data.mask_folders."
                )
            united = np.maximum(united, values)
        return united

    def geometry(self, path: MaskFile) -> Geometry:
        """Find out where the instances lie: all on one grid."""
        first, *others = self.files(path)
        grid = super().geometry(first)
        for file in others:
            check_same_grid(grid, super().geometry(file), names=(str(first), str(file)))
        return grid


def united(folders: Mapping[str, Mapping[str, MaskFile]], *, where: Path, left_out: Sequence[LeftOut] = ()) -> Masks:
    """Take the masks of a case in all folders for instances of one structure."""
    found: dict[str, list[Path]] = defaultdict(list)
    for of_cases in folders.values():
        for name, path in of_cases.items():
            found[name].append(whole(path))
    files = {name: paths[0] for name, paths in found.items()}
    reader = UnitedReader({paths[0]: paths for paths in found.values()})
    return Masks({"": files}, kind="flat", where=where, reader=reader, left_out=left_out)


def kept_apart(masks: Masks, name: str, labels: Labels, *, index: int) -> Int32[np.ndarray, "r *s"]:
    """Number the instances of one channel of a case as they were drawn, from 1 on: a label map by rater."""
    files = [(path, index) for path in masks.files(name)]
    of_channel = [(files[index][0], 0)] if masks.kind == "structures" else files
    return np.stack(
        [
            _numbered(labels.read_channel(values, path, channel) for values in masks.reader.parts(path))
            for path, channel in of_channel
        ]
    )


def _numbered(instances: Iterable[UInt8[np.ndarray, " *s"]]) -> Int32[np.ndarray, " *s"]:
    """Number instances; where some overlap, a pixel is of the smallest, so that one that lies in another stays."""
    crops, shape = [], tuple[int, ...]()
    for mask in instances:  # of each only the box around it is kept
        shape = mask.shape
        crops += [(box, mask[box] > 0) for box in find_objects(mask)]
    labels = np.zeros(shape, np.int32)
    crops.sort(key=lambda crop: -np.count_nonzero(crop[1]))
    for number, (box, drawn) in enumerate(crops, start=1):
        labels[box][drawn] = number
    return labels
