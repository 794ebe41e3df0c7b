"""Masks that were drawn on a DICOM series: the structures of DICOM-SEG and RTSTRUCT files, on the grid of the series.

One file holds several structures.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.masks import Kind, MaskFile, MaskReader, MaskRef, Masks, part_of
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.io.dicom_file import damage_named, open_dicom
from medsegdiff.io.dicom_seg import read_segmentation, segment_names
from medsegdiff.io.dicom_single import is_dicom_file, is_dicom_volume
from medsegdiff.io.image import read_geometry
from medsegdiff.io.listing import LeftOut, is_hidden, is_image_file, is_series, list_images
from medsegdiff.io.names import image_name
from medsegdiff.io.nifti import write_labels
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry


def dicom_mask_files(folder: Path) -> dict[str, Path]:
    """Find DICOM files with masks, where no other images are: ``CASE.dcm``, or the only DICOM file of ``CASE/``."""
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(p for p in folder.iterdir() if not is_hidden(p)):
        if is_series(path):
            files = sorted(p for p in path.iterdir() if is_dicom_file(p) and not is_hidden(p))
            if len(files) > 1:
                raise DataError(f"{path}: holds {len(files)} DICOM files; expected one DICOM-SEG or RTSTRUCT per case.")
            found[image_name(path)] = files[0]
        elif is_image_file(path) or (path.is_dir() and list_images(path).images):
            return {}
        elif path.is_file() and is_dicom_file(path):
            found[image_name(path)] = path
    return found


def dicom_masks(
    files: Mapping[str, Path],
    cases: Mapping[str, CaseFiles],
    *,
    where: Path,
    classes: tuple[str, ...] | None = None,
    left_out: Sequence[LeftOut] = (),
) -> Masks:
    """Take the structures of DICOM files as masks, or those of ``classes``, which are empty where a file lacks them."""
    held = {case: _by_folder(structures_in(file)) for case, file in files.items()}
    if not (known := sorted({name for names in held.values() for name in names})):
        raise DataError(f"{where}: no file holds a structure.")
    structures: dict[str, dict[str, MaskRef]] = {name: {} for name in classes or known}
    for (case, file), name in product(files.items(), structures):
        alike = held[case].get(folder_names([name])[0], [])
        found = [one for one in alike if one == name] or alike
        if len(found) > 1:
            raise DataError(
                f"{file}: structures share a name: {some(found)}. Rename them, or set data.classes to others."
            )
        if found or classes:
            structures[name][case] = MaskRef(file, *(found or [""]))
    if unknown := sorted(name for name, of in structures.items() if not any(ref.item for ref in of.values())):
        raise DataError(f"{where}: no file holds {some(unknown)}; there are {some(known, most=20)}.")
    if strange := [name for name in files if name in cases and not is_dicom_volume(cases[name].images[0])]:
        raise DataError(f"{where}: DICOM masks need the series on which they were drawn; {some(strange)} are none.")
    items = {ref for of in structures.values() for ref in of.values()}
    reader = SeriesReader({file: cases[case].images[0] for case, file in files.items() if case in cases}, items)
    kind: Kind = "structures" if len(structures) > 1 else "flat"
    coding = Labels("regions" if len(structures) > 1 else "binary", tuple(structures))
    of_folder = structures if len(structures) > 1 else {"": next(iter(structures.values()))}
    return Masks(of_folder, kind=kind, where=where, declared=coding, reader=reader, left_out=left_out)


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """Index structures by the names that their folders have."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[folder_names([name])[0]].append(name)
    return found


def lacking(masks: Masks) -> Iterator[str]:
    """Say which files hold no structure of a class."""
    assert masks.declared is not None
    for folder, name in zip(masks.folders, masks.declared.classes, strict=True):
        found = [part_of(of[folder]) for of in map(masks.by_folder, masks.names) if folder in of]
        if files := [file.name for file, item in found if not item]:
            yield f"{len(files)} of {len(found)} files hold no {name}, which is taken for empty there: {some(files)}"


class SeriesReader(MaskReader):
    """Reads structures onto the grids of their series, a file once for all of its structures."""

    def __init__(self, series: Mapping[Path, Path], structures: Iterable[MaskRef]) -> None:
        """Remember what was drawn on what, and which structures are read."""
        self.series, self.structures = dict(series), defaultdict[Path, set[str]](set)
        for ref in structures:
            self.structures[ref.file].add(ref.item)

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "i j k"]:
        """Read a structure; one that the file lacks is empty."""
        file, name = part_of(path)
        if not name:
            return np.zeros(self._grid(file).shape, np.uint8)
        names, drawn = self._drawn(file)
        return drawn[names.index(name)]

    def geometry(self, path: MaskFile) -> Geometry:
        """Give the grid of the series."""
        return self._grid(part_of(path)[0])

    @functools.lru_cache(maxsize=2)  # noqa: B019  (lives as long as the data set)
    def _grid(self, file: Path) -> Geometry:
        return read_geometry(self.series[file])[0]

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def _drawn(self, file: Path) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
        return read_masks(file, self._grid(file), wanted=self.structures[file])


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


def read_masks(
    path: Path, geometry: Geometry, *, wanted: Collection[str] | None = None
) -> tuple[tuple[str, ...], UInt8[np.ndarray, "s i j k"]]:
    """Read the structures of a DICOM-SEG or RTSTRUCT file, or those ``wanted``, onto the grid of its series."""
    modality = str(open_dicom(path, pixels=False).get("Modality", "none"))
    if modality not in READERS:
        raise DataError(f"{path}: has the modality {modality}; allowed are {', '.join(READERS)}.")
    return READERS[modality](path, geometry, wanted=wanted)


def convert_masks(series: Path, file: Path, out: Path) -> list[Path]:
    """Write the structures of a file as NIfTI, a folder each, as `masks/` of a data folder has them."""
    geometry = read_geometry(series)[0]
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
