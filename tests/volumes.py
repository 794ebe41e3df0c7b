"""NIfTI files for tests, written by nibabel and changed byte by byte."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image

from medsegdiff.io.image import canonical_geometry, canonical_view
from medsegdiff.types import Geometry

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(-500, 1500, (5, 4, 3), dtype=np.int16)
LABELS = RNG.integers(0, 5, (5, 4, 3), dtype=np.uint8)


def oblique(spacing: tuple[float, float, float] = (0.5, 0.8, 2.5), shear: float = 0.0) -> np.ndarray:
    """Turn about x and z, then scale; with shear, the second axis leans towards the first. In 32-bit numbers."""
    a, b = 0.4, -0.25
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = -90.5, 126.0, -72.25
    return affine.astype(np.float32).astype(float)


def save(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    codes: tuple[int, int] = (1, 1),
    kind: type[Nifti1Image] = Nifti1Image,
    **fields: object,
) -> Path:
    """Write with nibabel: codes of qform and sform, then any other field of the header."""
    header = kind.header_class()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_qform(oblique() if affine is None else affine, codes[0])
    header.set_sform(oblique() if affine is None else affine, codes[1])
    header.set_xyzt_units("mm", "sec")
    for name, value in fields.items():
        header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(voxels, None, header), path)
    return path


def raw_header(path: Path) -> Nifti1Header:
    """What is in the file, with the slope and intercept that nibabel hides in an image."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return Nifti1Header.from_fileobj(file)


def patched(path: Path, offset: int, value: np.ndarray) -> Path:
    """Change bytes of a plain file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + value.nbytes] = value.tobytes()
    path.write_bytes(content)
    return path


def written_back(turned: np.ndarray, native: Geometry) -> np.ndarray:
    """Put a turned volume on its native grid, as results are: by writing into the view of an empty array."""
    voxels = np.empty((*turned.shape[:-3], *native.shape), turned.dtype)
    canonical_view(voxels, native)[...] = turned
    return voxels


def to_canonical(voxels: np.ndarray, native: Geometry) -> tuple[np.ndarray, Geometry]:
    """Turn a volume to right, front and up."""
    return canonical_view(voxels, native), canonical_geometry(native)
