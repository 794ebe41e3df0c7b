"""Structured reports (TID 1500): the volume of each structure, and what is predicted of its mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.dicom import dicom_grid
from medsegdiff.io.dicom_codes import coding_of, own_code
from medsegdiff.io.dicom_derived import algorithm, encoding, identity, sources
from medsegdiff.io.dicom_file import Dataset, dicom_library
from medsegdiff.types import Geometry


@dataclass(frozen=True)
class Finding:
    """What is told of a structure."""

    volume: float
    """In mL."""
    low: float | None = None
    """Ends of the 90 % interval of the volume; ``None`` without members."""
    high: float | None = None
    predicted_dice: float | None = None
    """``None`` where the run was not calibrated."""
    dice_at_least: float | None = None
    review: bool | None = None
    """Whether a human must look; ``None`` where nobody can tell."""
    reasons: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Say it in a sentence, but for the volume."""
        told = []
        if self.predicted_dice is not None:
            told.append(f"Predicted Dice {self.predicted_dice:.2f}")
        if self.dice_at_least is not None:
            told.append(f"at least {self.dice_at_least:.2f} in nine of ten cases")
        if self.review:
            told.append("review: " + ("; ".join(self.reasons) or "a human must look"))
        return ", ".join(told)


def write_report(
    path: Path,
    findings: Mapping[str, Finding],
    *,
    geometry: Geometry,
    segmentation: Dataset,
    codes: Mapping[str, str] | None = None,
) -> Dataset:
    """Write a report that refers to the segments of a DICOM-SEG, which are those of the findings, and give it."""
    _, header = dicom_grid(geometry)
    sr, known = dicom_library("highdicom.sr"), dicom_library("pydicom.sr.codedict").codes
    with encoding("report"):
        evidence = sources(header, geometry)
        device = sr.ObserverContext(
            observer_type=known.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=dicom_library("highdicom").UID(), name="medsegdiff", manufacturer_name="medsegdiff"
            ),
        )
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=device),
            procedure_reported=own_code("segmentation", "Automatic segmentation"),
            imaging_measurements=[
                _measured(number, name, of, segmentation, header.series, codes or {})
                for number, (name, of) in enumerate(findings.items(), start=1)
            ],
        )
        told = identity("SR", "measurements")
        report = sr.ComprehensiveSR(
            evidence=[*evidence, segmentation],
            content=content[0],
            is_complete=True,
            **{key: told[key] for key in told if key not in ("software_versions", "device_serial_number")},
        )
    with atomic_path(path) as part:
        report.save_as(part)
    return report


def _measured(
    number: int, name: str, finding: Finding, segmentation: Dataset, series: str, codes: Mapping[str, str]
) -> Any:
    """Tell of a structure."""
    sr, coding = dicom_library("highdicom.sr"), coding_of(name, codes)
    made = algorithm()
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=dicom_library("highdicom").UID(), identifier=name),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(series),
        ),
        finding_category=coding.category,
        finding_type=coding.type,
        algorithm_id=sr.AlgorithmIdentification(name=made["name"], version=made["version"]),
        measurements=list(_measurements(finding)),
        qualitative_evaluations=list(_evaluations(finding)),
    )


def _measurements(finding: Finding) -> Iterator[Any]:
    sr, codes = dicom_library("highdicom.sr"), dicom_library("pydicom.sr.codedict").codes
    millilitre = dicom_library("pydicom.sr.coding").Code("mL", "UCUM", "milliliter")
    yield sr.Measurement(codes.SCT.Volume, round(finding.volume, 4), millilitre)
    for value, code, meaning in (
        (finding.low, "size-low", "Volume, lower end of the 90 % interval"),
        (finding.high, "size-high", "Volume, upper end of the 90 % interval"),
    ):
        if value is not None:
            yield sr.Measurement(own_code(code, meaning), round(value, 4), millilitre)
    for value, code, meaning in (
        (finding.predicted_dice, "predicted-dice", "Predicted Dice coefficient"),
        (finding.dice_at_least, "dice-at-least", "Dice coefficient, lower bound in 9 of 10 cases"),
    ):
        if value is not None:
            yield sr.Measurement(own_code(code, meaning), round(value, 4), codes.UCUM.NoUnits)


def _evaluations(finding: Finding) -> Sequence[Any]:
    if finding.review is None:
        return []
    sr, codes = dicom_library("highdicom.sr"), dicom_library("pydicom.sr.codedict").codes
    answer = codes.SCT.Yes if finding.review else codes.SCT.No
    return [sr.QualitativeEvaluation(own_code("review", "A human must look at the mask"), answer)]
