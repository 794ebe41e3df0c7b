"""Volumetric data sets of the paper in miniature, in the folders and under the names in which they are published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Listing
from medsegdiff.data.open import VolumeSource, list_cases, open_source

SHAPE = (5, 4, 3)
OLD, NEW = ("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f")


def volume(path: Path, voxels: np.ndarray | int) -> Path:
    """Write voxels, or the same number everywhere but in a corner."""
    if isinstance(voxels, int):
        voxels = np.full(SHAPE, voxels)
        voxels[0] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)), path)
    return path


def labels(highest: int) -> np.ndarray:
    """Every label up to the highest, one voxel each."""
    stored = np.zeros(SHAPE, np.int16)
    stored.reshape(-1)[: highest + 1] = np.arange(highest + 1)
    return stored


def amos(root: Path, *, validation: bool = True) -> Path:
    for kind, numbers in {"Tr": (1, 4, 507), "Va": (8, 13, 600), "Ts": (3, 540)}.items():
        for number in numbers:
            volume(root / f"images{kind}" / f"amos_{number:04d}.nii.gz", number)
            if kind == "Tr" or (kind == "Va" and validation):
                volume(root / f"labels{kind}" / f"amos_{number:04d}.nii.gz", labels(15))
    (root / "dataset.json").write_text("{}")
    return root


def btcv(root: Path, numbers: Iterable[int] = (1, 5, 6, 21, 22, 40)) -> Path:
    for number in numbers:
        volume(root / "Training" / "img" / f"img{number:04d}.nii.gz", number)
        volume(root / "Training" / "label" / f"label{number:04d}.nii.gz", labels(13) * (1 if number < 40 else 0))
    volume(root / "Testing" / "img" / "img0061.nii.gz", 61)
    return root


def brats(folder: Path, *, words: Iterable[str] = OLD, join: str = "_", ending: str = ".nii.gz") -> Path:
    """One case: each sequence holds its own number; in the plane 1 lie the labels 0, 1, 2 and that of ET."""
    words = tuple(words)
    for number, word in enumerate(words):
        volume(folder / f"{folder.name}{join}{word}{ending}", 10 * (number + 1))
    stored = np.zeros(SHAPE, np.int16)
    stored[1, :, 1] = 0, 1, 2, (3 if words == NEW else 4)
    volume(folder / f"{folder.name}{join}seg{ending}", stored)
    return folder


def brats_slices(folder: Path, patient: str, numbers: Iterable[int], *, axes: int = 2) -> None:
    for number in numbers:
        for value, word in enumerate(OLD):
            volume(folder / f"{patient}_{word}_{number}_w.nii.gz", np.full((6, 5, 1)[:axes], 10 * (value + 1)))
        stored = np.zeros((6, 5, 1)[:axes], np.int16)
        stored[2, :4] = np.array([0, 1, 2, 4]).reshape(4, *[1] * (axes - 2))
        volume(folder / f"{patient}_seg_{number}_w.nii.gz", stored)


def listing(root: Path, layout: str = "auto") -> Listing:
    return list_cases(root, DataConfig(layout=layout))


def source(root: Path, layout: str = "auto", **values: object) -> VolumeSource:
    opened = open_source(root, DataConfig(layout=layout, image_size=16, plane="axial", **values))
    assert isinstance(opened, VolumeSource)
    return opened


def parts(found: Listing) -> dict[str, str]:
    return {name: case.part for name, case in found.cases.items()}
