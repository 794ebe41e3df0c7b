"""What a NIfTI header says of the grid, and the header for what is written on that grid."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Header

from medsegdiff.errors import GeometryError
from medsegdiff.types import Geometry

log = logging.getLogger(__name__)

TO_MM = {1: 1000.0, 3: 0.001}
"""Codes of ``xyzt_units`` for metres and micrometres; any other is taken as millimetres."""
SCANNER = 1
"""The code of an affine that leads to the coordinates of the scanner."""
OF_SLICES = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
"""What a header says of the axes of the acquisition: wrong once axes are reordered."""


def geometry_from(header: Nifti1Header, shape: tuple[int, ...], name: str) -> Geometry:
    """Tell from a header where the voxels are."""
    if int(header["sform_code"]) == int(header["qform_code"]) == 0:
        log.warning("%s: does not say where its axes point (sform and qform code 0); taken as left, front, up.", name)
    affine = header.get_best_affine()
    affine[:3] *= _to_mm(header)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise GeometryError(
            f"{name}: the affine of the header does not span space: {affine[:3].round(3).tolist()}. "
            "Allowed are three independent axes. Correct the sform, or set sform_code to 0 if the qform is right."
        )
    return Geometry(shape=shape, spacing=tuple(spacing.tolist()), affine=affine, header=header)


def header_for(geometry: Geometry, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Nifti1Header:
    """Make the header of a file to be written.

    What tells where the voxels are stays as it came, with units and description. What describes the values of the
    image goes: range, intent and extensions (nibabel sets slope and intercept).
    """
    if geometry.affine is None:
        raise GeometryError(f"The geometry {geometry.shape} has no affine: it is that of a picture. Write PNG instead.")
    header = geometry.header.copy() if isinstance(geometry.header, Nifti1Header) else _header_at(geometry.affine)
    header.extensions.clear()
    header.set_intent("none")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["cal_min"] = header["cal_max"] = header["toffset"] = 0
    affine = geometry.affine.astype(np.float64)
    affine[:3] /= _to_mm(header)
    if not np.array_equal(header.get_best_affine().astype(np.float32), affine.astype(np.float32)):
        _place(header, affine)
    return header


def _to_mm(header: Nifti1Header) -> float:
    return TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _header_at(affine: Float[np.ndarray, "4 4"]) -> Nifti1Header:
    header = Nifti1Header()
    header.set_xyzt_units("mm")
    _place(header, affine)
    return header


def _place(header: Nifti1Header, affine: Float[np.ndarray, "4 4"]) -> None:
    """Give a header another affine: the sform holds it exactly, the qform only where axes are orthogonal."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    header.set_sform(affine, sform or qform or SCANNER)
    header.set_qform(affine, qform if sform else qform or SCANNER)  # sets the spacing, leaves out shear
    if not np.allclose(header.get_qform(), affine, rtol=0, atol=1e-3 * min(header["pixdim"][1:4])):
        header["qform_code"] = 0
    for field in OF_SLICES:
        header[field] = 0
