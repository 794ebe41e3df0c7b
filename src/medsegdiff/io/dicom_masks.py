"""Masks that DICOM files hold, DICOM-SEG or RTSTRUCT alike, written as NIfTI on the grid of their series."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.dicom import read_series_geometry
from medsegdiff.io.dicom_file import damage_named, open_dicom
from medsegdiff.io.dicom_seg import read_segmentation, segment_names
from medsegdiff.io.nifti import write_labels
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.types import Geometry

READERS = {"SEG": read_segmentation, "RTSTRUCT": read_rtstruct}
"""By modality."""


def structures_in(path: Path) -> tuple[str, ...]:
    """List the structures of a DICOM-SEG or RTSTRUCT file."""
    dataset = open_dicom(path, pixels=False)
    with damage_named(path):
        match dataset.get("Modality", "none"):
            case "SEG":
                return tuple(segment_names(dataset).values())
            case "RTSTRUCT":
                return tuple(str(region.ROIName) for region in dataset.StructureSetROISequence)
            case other:
                raise DataError(f"{path}: has the modality {other}; allowed are {', '.join(READERS)}.")


def read_masks(path: Path, geometry: Geometry) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
    """Read the structures of a DICOM-SEG or RTSTRUCT file onto the grid of its series."""
    modality = str(open_dicom(path, pixels=False).get("Modality", "none"))
    if modality not in READERS:
        raise DataError(f"{path}: has the modality {modality}; allowed are {', '.join(READERS)}.")
    return READERS[modality](path, geometry)


def convert_masks(series: Path, file: Path, out: Path) -> list[Path]:
    """Write the structures of a file as NIfTI, a folder each, as `masks/` of a data folder has them."""
    geometry = read_series_geometry(series)
    names, masks = read_masks(file, geometry)
    paths = [out / folder / f"{series.resolve().name}.nii.gz" for folder in folder_names(names)]
    if there := [str(path) for path in paths if path.exists()]:
        raise ConfigError(f"{some(there)}: there already. Move it away, or choose another --out.")
    if len(set(paths)) < len(paths):
        raise DataError(f"{file}: structures share a name: {some(sorted(names))}. Rename them.")
    for path, mask in zip(paths, masks, strict=True):
        write_labels(path, mask, geometry)
    return paths


def folder_names(names: Iterable[str]) -> list[str]:
    """Turn names of structures into names of folders."""
    return [re.sub(r"[^\w.-]+", "-", name.strip()).strip(".-") or "structure" for name in names]
