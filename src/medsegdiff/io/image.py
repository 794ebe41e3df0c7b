"""Images of any format with their geometry, and what turning an array does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from medsegdiff.errors import DataError, GeometryError, size
from medsegdiff.io import dicom, dicom_single, nifti, picture, raster
from medsegdiff.types import Geometry


def is_volume(path: Path) -> bool:
    """Tell whether an image has three axes of space."""
    return nifti.is_volume(path) or (_is_dicom(path) and dicom_single.is_dicom_volume(path))


def modality_of(geometry: Geometry) -> str:
    """Tell what made an image, in DICOM's words (``CT``, ``MR`` …); empty where its file does not say."""
    return geometry.header.modality if isinstance(geometry.header, dicom.DicomHeader) else ""


def patient_of(geometry: Geometry) -> str:
    """Tell of which patient an image is, as its DICOM file says; empty where it does not. It is never written."""
    header = geometry.header
    return header.patient if isinstance(header, dicom.DicomHeader | dicom_single.DicomPicture) else ""


def read_patient(path: Path) -> str:
    """Find the same in the header of a file alone: of a series, the first."""
    return dicom_single.read_patient(path) if _is_dicom(path) else ""


def read_image(path: Path) -> tuple[Float[np.ndarray, "c *s"], Geometry]:
    """Read an image and where it lies."""
    if _is_dicom(path):
        return dicom_single.read_dicom(path)
    return nifti.read_volume(path) if nifti.is_volume(path) else raster.read_image(path)


def _is_dicom(path: Path) -> bool:
    """Tell whether an image is DICOM: a folder, or a file that is no picture and no NIfTI by its name."""
    if path.is_dir():
        return True
    named = nifti.is_volume(path) or path.name.lower().endswith(picture.SUFFIXES)
    return not named and path.is_file() and dicom_single.is_dicom_file(path)


def read_channels(paths: Sequence[Path]) -> tuple[Float[np.ndarray, "c *s"], Geometry]:
    """Read an image whose channels may lie in several files."""
    found = [read_image(path) for path in paths]
    (first, geometry), others = found[0], found[1:]
    for path, (pixels, other) in zip(paths[1:], others, strict=True):
        if pixels.shape[1:] != first.shape[1:]:
            sizes = f"{paths[0]} is {size(first.shape[1:])} but {path} is {size(pixels.shape[1:])}"
            raise GeometryError(f"{sizes}. The channels of an image must lie on one grid.")
        check_same_grid(geometry, other, names=(str(paths[0]), str(path)))
    return (np.concatenate([pixels for pixels, _ in found]) if others else first), geometry


def read_mask(path: Path) -> UInt8[np.ndarray, " *s"]:
    """Read the values of a mask as they are stored."""
    if not nifti.is_volume(path):
        return raster.read_mask(path)
    labels, _ = nifti.read_labels(path)
    if labels.dtype != np.uint8:
        raise DataError(f"{path}: labels go up to {labels.max()}; allowed are 0 … 255. Number the classes from 0.")
    return labels


def write_mask(folder: Path, name: str, mask: UInt8[np.ndarray, " *s"], geometry: Geometry) -> None:
    """Write one structure: 0 and 255 as PNG for a picture, 0 and 1 as NIfTI for a volume."""
    write_labels(folder, name, mask * np.uint8(255 if geometry.affine is None else 1), geometry)


def write_labels(folder: Path, name: str, labels: UInt8[np.ndarray, " *s"], geometry: Geometry) -> None:
    """Write class indices, as PNG or NIfTI."""
    if geometry.affine is None:
        raster.write_mask(folder / f"{name}.png", labels)
    else:
        nifti.write_labels(folder / f"{name}.nii.gz", labels, geometry)


def write_map(folder: Path, name: str, values: Float[np.ndarray, " *s"], geometry: Geometry) -> None:
    """Write values between 0 and 1: 16-bit grey PNG for a picture, float32 NIfTI for a volume."""
    if geometry.affine is None:
        raster.write_map(folder / f"{name}.png", values)
    else:
        nifti.write_map(folder / f"{name}.nii.gz", values, geometry)


def read_map(path: Path) -> Float[np.ndarray, " *s"]:
    """Read values between 0 and 1."""
    values = nifti.read_volume(path)[0] if nifti.is_volume(path) else raster.read_map(path)[None]
    if len(values) > 1 or values.ndim not in (3, 4):
        raise DataError(
            f"{path}: holds {len(values)} channels; expected one map. Save each class in a folder of its own."
        )
    return values[0]


def read_geometry(path: Path) -> tuple[Geometry, int]:
    """Read where an image lies and how many channels it has; of files, from the header alone."""
    if _is_dicom(path):
        return dicom_single.read_dicom_geometry(path)
    if nifti.is_volume(path):
        return nifti.read_geometry(path)
    shape, channels = picture.header_of(path)
    return Geometry(shape=shape, spacing=(1.0, 1.0)), channels


TOLERANCE = 0.1
"""How far corners of one grid may lie apart, in voxels: programs round affines, and a qform is good to 3e-4 a voxel."""


def check_same_grid(image: Geometry, mask: Geometry, *, names: tuple[str, str] = ("image", "mask")) -> None:
    """Refuse two volumes whose voxels do not lie on each other."""
    one, other = names
    if image.shape != mask.shape:
        raise GeometryError(
            f"{one} and {other} have different shapes: {image.shape} and {mask.shape}. "
            f"Resample {other} to the grid of {one}, by the nearest neighbour if it holds labels."
        )
    if image.affine is None or mask.affine is None:
        return
    if _displacement(image, mask) > TOLERANCE * min(*image.spacing, *mask.spacing):
        raise GeometryError(
            f"{one} and {other} lie {_displacement(image, mask):.3g} mm apart at the worst corner; allowed is "
            f"{TOLERANCE:g} of a voxel. Resample {other} to the grid of {one}, or correct the "
            "header that is wrong."
        )


def canonical_view(voxels: Shaped[np.ndarray, "*c i j k"], geometry: Geometry) -> Shaped[np.ndarray, "*c x y z"]:
    """Reorder and flip axes so that they run most nearly right, front and up; nothing is resampled.

    It is a view, without a copy: what is written into it is in the array.
    """
    _check_shape(voxels, geometry.shape)
    return _turned(voxels, io_orientation(_affine(geometry)))


def native_axis(geometry: Geometry, canonical: int) -> int:
    """Find the axis of a volume that becomes one of the canonical axes."""
    return int(np.flatnonzero(io_orientation(_affine(geometry))[:, 0] == canonical)[0])


def canonical_geometry(geometry: Geometry) -> Geometry:
    """Tell where a volume lies as `canonical_view` shows it."""
    affine, turn = _affine(geometry), io_orientation(_affine(geometry))
    order = np.argsort(turn[:, 0])
    return replace(
        geometry,
        shape=tuple(geometry.shape[axis] for axis in order),
        spacing=tuple(geometry.spacing[axis] for axis in order),
        affine=affine @ inv_ornt_aff(turn, geometry.shape),
    )


def _displacement(a: Geometry, b: Geometry) -> float:
    """Measure how far the corners of two grids of one shape are apart, at most, in mm."""
    corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in a.shape))])
    return float(np.linalg.norm(corners @ (_affine(a) - _affine(b)).T, axis=1).max())


def _affine(geometry: Geometry) -> Float[np.ndarray, "4 4"]:
    if geometry.affine is None:
        raise GeometryError(f"The geometry {geometry.shape} has no affine: it is that of a picture. Give a volume's.")
    return geometry.affine


def _check_shape(voxels: Shaped[np.ndarray, "*c i j k"], shape: tuple[int, ...]) -> None:
    if voxels.shape[-3:] != shape:
        raise GeometryError(
            f"The voxels are {voxels.shape[-3:]}, their geometry is {shape}. Give the geometry they were read with."
        )


def _turned(voxels: Shaped[np.ndarray, "*c i j k"], turn: Float[np.ndarray, "3 2"]) -> Shaped[np.ndarray, "*c x y z"]:
    space_first = np.moveaxis(voxels, (-3, -2, -1), (0, 1, 2))
    return np.moveaxis(apply_orientation(space_first, turn), (0, 1, 2), (-3, -2, -1))
