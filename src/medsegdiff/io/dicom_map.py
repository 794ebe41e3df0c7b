"""Parametric maps: probability and uncertainty of a series as DICOM, which viewers lay over its slices."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from medsegdiff.errors import DataError, ShapeError
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.dicom import dicom_grid
from medsegdiff.io.dicom_codes import own_code
from medsegdiff.io.dicom_derived import check_labels, encoding, identity, places, sources
from medsegdiff.io.dicom_file import Dataset, dicom_library
from medsegdiff.types import Geometry

Quantity = Literal["probability", "uncertainty"]
WORDS: dict[Quantity, str] = {
    "probability": "probability, 0 to 1",
    "uncertainty": "entropy of the members' mean, 0 (sure) to 1",
}


def write_parametric_map(
    path: Path,
    values: Float[np.ndarray, "i j k"],
    *,
    geometry: Geometry,
    quantity: Quantity,
    label: str = "",
) -> Dataset:
    """Write values 0 … 1 of a volume as one file that refers to its slices, as 32-bit floating point, and give it.

    Probability has DICOM's own code; uncertainty has none there, so its code is ours and its words explain it.
    """
    _, header = dicom_grid(geometry)
    if values.shape != geometry.shape:
        raise ShapeError(f"The map has the shape {values.shape}; the series has {geometry.shape}. Give all of it.")
    if not (values.min() >= 0 and values.max() <= 1):  # not: NaN compares false
        raise DataError(f"The map goes from {values.min()} to {values.max()}; allowed are 0 … 1.")
    if label:
        check_labels([label])
    highdicom, codes = dicom_library("highdicom"), dicom_library("pydicom.sr.codedict").codes
    meant = codes.DCM.Probability if quantity == "probability" else own_code("entropy", "Uncertainty (entropy)")
    mapping = dicom_library("highdicom.pm").RealWorldValueMapping(
        lut_label=quantity,
        lut_explanation=WORDS[quantity],
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=meant,
    )
    told = f"{quantity} of {label}" if label else quantity
    with encoding("parametric map"):
        made = dicom_library(
            "highdicom.pm"
        ).ParametricMap(
            source_images=sources(header, geometry),
            pixel_array=np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32),  # (k, j, i)
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=0.5, window_width=1.0)],
            content_label=quantity.upper(),
            content_description=told[:64],
            **places(header, geometry),
            **identity("PM", told[:50]),
        )
    made.Laterality = made.get("Laterality")  # asked for, if it is not known
    with atomic_path(path) as part:
        made.save_as(part)
    return made
