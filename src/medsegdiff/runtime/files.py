"""Files of the runtime: pictures take Pillow, volumes nibabel; neither is loaded before it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.names import case_name, class_folders, image_name, is_volume
from medsegdiff.runtime.result import Result
from medsegdiff.types import Case, Geometry


def read_file(path: Path) -> Case:
    """Read an image."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    reader: Callable[[Path], tuple[Any, Geometry]]
    if is_volume(path) or path.is_dir():
        with _needing("nibabel", what=f"{path} is a volume"):
            from medsegdiff.io.image import read_image as reader
    else:
        with _needing("pillow", what=f"{path} is a picture"):
            from medsegdiff.io.raster import read_image as reader
    pixels, geometry = reader(path)
    return Case(image_name(path), pixels, None, geometry)


@dataclass(frozen=True)
class _Writers:
    """How arrays on a grid become files."""

    ending: str
    labels: Callable[[Path, np.ndarray], None]
    values: Callable[[Path, np.ndarray], None]
    inside: int
    """Value of a pixel in the mask of a structure."""

    @classmethod
    def of(cls, geometry: Geometry) -> _Writers:
        """Load what writes files of a geometry."""
        if geometry.affine is None:
            with _needing("pillow", what="PNG files are written"):
                from medsegdiff.io.raster import write_map, write_mask
            return cls(".png", write_mask, write_map, 255)
        with _needing("nibabel", what="NIfTI files are written"):
            from medsegdiff.io import nifti
        return cls(
            ".nii.gz",
            lambda path, labels: nifti.write_labels(path, labels, geometry),
            lambda path, values: nifti.write_map(path, values, geometry),
            1,
        )


def write_files(result: Result, out: Path, *, members: bool = False, overwrite: bool = False) -> list[Path]:
    """Write masks, labels, probability and entropy, under the names that ``medsegdiff segment`` gives them.

    Args:
        result: What was found.
        out: The folder.
        members: Whether the mask of each member is written too.
        overwrite: Whether files of that name may be replaced.

    Returns:
        The files.

    Raises:
        ConfigError: If the folder holds images, or results of that name.
    """
    if (out / "images").exists():
        raise ConfigError(f"{out} holds images, so its masks may be your references. Choose another --out.")
    writers, name = _Writers.of(result.geometry), case_name(result.name, where="A result")
    files = [
        (out / folder / f"{name}{writers.ending}", write, values)
        for folder, write, values in _parts(result, writers, members=members)
    ]
    there = [str(path) for path, _, _ in files if path.exists()]
    if there and not overwrite:
        raise ConfigError(f"{some(there)} exist already. Add --overwrite to replace them, or choose another --out.")
    for path, write, values in files:
        write(path, values)
    return [path for path, _, _ in files]


Part = tuple[Path, Callable[[Path, np.ndarray], None], np.ndarray]
"""A folder, what writes into it, and what is written."""


def _parts(result: Result, writers: _Writers, *, members: bool) -> Iterator[Part]:
    labels = result.labels
    maps = {"": result.mask} | {f"members/{number:02d}": of for number, of in enumerate(result.members) if members}
    folders = class_folders(labels.structures) if len(labels.structures) > 1 else ("",)
    for above, label_map in maps.items():
        for index, folder in enumerate(folders):
            mask = labels.mask(label_map, index) * np.uint8(writers.inside)
            yield Path(above, "masks", folder), writers.labels, mask
        if (written := labels.write(label_map)) is not None:
            yield Path(above, "labels"), writers.labels, written
    channels = class_folders(labels.classes) if len(labels.classes) > 1 else ("",)
    for folder, values in zip(channels, result.probability, strict=True):
        yield Path("probability", folder), writers.values, values
    yield Path("uncertainty"), writers.values, result.uncertainty.entropy


@contextmanager
def _needing(package: str, *, what: str) -> Iterator[None]:
    """Say which package is missing."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{what}, which takes the package '{package}' ({error}). Install it: pip install {package}"
        ) from error
