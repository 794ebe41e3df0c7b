"""A result of a DICOM series as DICOM: segments, contours, maps and a report, all of which refer to its slices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from medsegdiff.inference.parts import Part
from medsegdiff.io.atomic import release
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.io.dicom_map import write_parametric_map
from medsegdiff.io.dicom_report import Finding, write_report
from medsegdiff.io.dicom_seg import write_picture_segmentation, write_segmentation
from medsegdiff.io.dicom_single import DicomPicture
from medsegdiff.io.names import file_name
from medsegdiff.io.rtstruct_writer import write_rtstruct
from medsegdiff.labels import Labels
from medsegdiff.pictures.overlay import colour_of
from medsegdiff.types import Case

DICOM_PARTS = ("dicom-seg", "dicom-fractional", "dicom-pm", "dicom-sr", "rtstruct")
"""Parts of a result that a DICOM series has."""


def is_dicom(case: Case) -> bool:
    """Tell whether DICOM objects can refer to an image."""
    header = case.geometry.header
    return is_dicom_volume(case) or (isinstance(header, DicomPicture) and header.single)


def is_dicom_volume(case: Case) -> bool:
    """Tell whether an image is a series to which DICOM objects can refer."""
    return isinstance(case.geometry.header, DicomHeader) and case.geometry.affine is not None


def write_dicom(
    out: Path,
    found: Part,
    case: Case,
    labels: Labels,
    *,
    parts: Collection[str],
    findings: Mapping[str, Finding],
    codes: Mapping[str, str],
) -> None:
    """Write the parts that are DICOM: of a picture segments alone. A report brings the segments that it refers to."""
    names, geometry, file = labels.structures, case.geometry, f"{case.name}.dcm"
    if isinstance(geometry.header, DicomPicture) and geometry.header.single and "dicom-seg" in parts:
        masks, source = labels.masks(found.mask), geometry.header.dataset
        write_picture_segmentation(out / "dicom-seg" / file, masks, source=source, labels=names, codes=codes)
    if not is_dicom_volume(case):
        return
    if {"dicom-seg", "dicom-sr"} & {*parts}:
        notes = {name: finding.note for name, finding in findings.items()}
        masks = labels.masks(found.mask)
        made = write_segmentation(
            out / "dicom-seg" / file, masks, geometry=geometry, labels=names, codes=codes, notes=notes
        )
        del masks
        if "dicom-sr" in parts and findings:
            write_report(out / "dicom-sr" / file, findings, geometry=geometry, segmentation=made, codes=codes)
    if "rtstruct" in parts:
        each = (labels.mask(found.mask, index) for index in range(len(names)))
        colours = [colour_of(index) for index in range(len(names))]
        write_rtstruct(out / "rtstruct" / file, each, geometry=geometry, labels=names, colours=colours, codes=codes)
    if "dicom-pm" in parts:
        values, path = found.uncertainty.entropy, out / "dicom-pm" / f"{case.name}_uncertainty.dcm"
        write_parametric_map(path, values, geometry=geometry, quantity="uncertainty")
    _write_probabilities(out, found, case, labels, parts=parts, codes=codes)


def _write_probabilities(
    out: Path, found: Part, case: Case, labels: Labels, *, parts: Collection[str], codes: Mapping[str, str]
) -> None:
    names, geometry = labels.structures, case.geometry
    probability = found.probability[labels.foreground]  # the background is no segment
    for name, values in zip(names, probability, strict=True):  # one by one: they are large
        ending = "" if len(names) == 1 else f"_{file_name(name)}"
        if "dicom-pm" in parts:
            path = out / "dicom-pm" / f"{case.name}_probability{ending}.dcm"
            write_parametric_map(path, values, geometry=geometry, quantity="probability", label=name)
        if "dicom-fractional" in parts:
            path = out / "dicom-fractional" / f"{case.name}{ending}.dcm"
            write_segmentation(path, values[None], geometry=geometry, labels=(name,), kind="FRACTIONAL", codes=codes)
        release(found.probability)
