"""Masks that were drawn on a DICOM series: the structures of DICOM-SEG and RTSTRUCT files, on the grid of the series.

One file holds several structures.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.masks import MaskFile, MaskReader, MaskRef, Masks, part_of
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.dicom import read_series_geometry
from medsegdiff.io.dicom_file import SUFFIXES, damage_named, open_dicom
from medsegdiff.io.dicom_seg import read_segmentation, segment_names
from medsegdiff.io.image import read_geometry
from medsegdiff.io.listing import is_hidden, is_series
from medsegdiff.io.names import image_name
from medsegdiff.io.nifti import write_labels
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry


def dicom_mask_files(folder: Path) -> dict[str, Path]:
    """Find DICOM files with masks: ``CASE.dcm``, or the only DICOM file of a folder ``CASE/``."""
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(p for p in folder.iterdir() if not is_hidden(p)):
        if is_series(path):
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not is_hidden(p))
            if len(files) > 1:
                raise DataError(f"{path}: holds {len(files)} DICOM files; expected one DICOM-SEG or RTSTRUCT per case.")
            found[image_name(path)] = files[0]
        elif path.suffix.lower() in SUFFIXES:
            found[image_name(path)] = path
        else:
            return {}
    return found


def dicom_masks(
    files: Mapping[str, Path], cases: Mapping[str, CaseFiles], *, where: Path, classes: tuple[str, ...] | None = None
) -> Masks:
    """Take the structures of DICOM files as masks."""
    structures: dict[str, dict[str, MaskRef]] = defaultdict(dict)
    for case, file in files.items():
        names = folder_names(structures_in(file))
        if len(set(names)) < len(names):
            raise DataError(f"{file}: structures share a name: {some(names)}. Rename them.")
        for name in names:
            structures[name][case] = MaskRef(file, name)
    wanted = classes or tuple(sorted(structures))
    if unknown := sorted(set(wanted) - set(structures)):
        raise DataError(f"{where}: no file holds {some(unknown)}; there are {some(sorted(structures), most=20)}.")
    if strange := [name for name in files if name in cases and not cases[name].images[0].is_dir()]:
        raise DataError(f"{where}: DICOM masks need the series on which they were drawn; {some(strange)} are none.")
    reader = SeriesReader({file: cases[case].images[0] for case, file in files.items() if case in cases}, wanted)
    if len(wanted) == 1:
        coding = Labels("binary", wanted)
        return Masks({"": structures[wanted[0]]}, kind="flat", where=where, declared=coding, reader=reader)
    chosen = {name: structures[name] for name in wanted}
    return Masks(chosen, kind="structures", where=where, declared=Labels("regions", wanted), reader=reader)


class SeriesReader(MaskReader):
    """Reads structures onto the grids of their series, a file once for all of its structures."""

    def __init__(self, series: Mapping[Path, Path], structures: Collection[str]) -> None:
        """Remember what was drawn on what."""
        self.series, self.structures = dict(series), frozenset(structures)

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "i j k"]:
        """Read a structure."""
        file, name = part_of(path)
        names, drawn = self._drawn(file)
        return drawn[names.index(name)]

    def geometry(self, path: MaskFile) -> Geometry:
        """Give the grid of the series."""
        return self._grid(part_of(path)[0])

    @functools.lru_cache(maxsize=2)  # noqa: B019  (lives as long as the data set)
    def _grid(self, file: Path) -> Geometry:
        return read_geometry(self.series[file])[0]

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _drawn(self, file: Path) -> tuple[list[str], UInt8[np.ndarray, "s i j k"]]:
        names, masks = read_masks(file, self._grid(file))
        wanted = [index for index, name in enumerate(folder_names(names)) if name in self.structures]
        return [folder_names(names)[index] for index in wanted], masks[wanted]


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
    paths = [out / folder / f"{image_name(series)}.nii.gz" for folder in folder_names(names)]
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
