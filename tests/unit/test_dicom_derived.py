"""Parametric maps, reports and codes: read by highdicom they say what was written, and dciodvfy finds nothing wrong."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from medsegdiff.errors import ConfigError, DataError, ShapeError
from medsegdiff.io.dicom import read_series
from medsegdiff.io.dicom_codes import coding_of, read_code
from medsegdiff.io.dicom_map import write_parametric_map
from medsegdiff.io.dicom_report import Finding, write_report
from medsegdiff.io.dicom_seg import write_segmentation
from medsegdiff.types import Geometry
from tests.dicom_makers import AXIAL, OBLIQUE, make_slices, write_slices
from tests.verified import errors_of

RNG = np.random.default_rng(0)
FINDINGS = {
    "liver": Finding(volume=1432.5, low=1400.0, high=1500.25, predicted_dice=0.913, dice_at_least=0.84, review=False),
    "tumour": Finding(volume=0.0, review=True, reasons=("nothing was found",)),
}
CODES = {"liver": "SCT:10200004", "tumour": "SCT:108369006"}


@pytest.fixture(params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def geometry(tmp_path: Path, request: pytest.FixtureRequest) -> Geometry:
    slices = make_slices(np.zeros((4, 7, 5)), orientation=request.param)
    return read_series(write_slices(tmp_path / "series", slices))[1]


def test_a_map_lies_on_its_slices(tmp_path: Path, geometry: Geometry) -> None:
    values = RNG.random((5, 7, 4)).astype(np.float32)
    path = tmp_path / "pm.dcm"
    write_parametric_map(path, values, geometry=geometry, quantity="probability", label="liver")
    oracle = dcmread(path)
    places = {tuple(of.ImagePositionPatient): k for k, of in enumerate(geometry.header.slices)}  # type: ignore[attr-defined]
    for pixels, frame in zip(oracle.pixel_array, oracle.PerFrameFunctionalGroupsSequence, strict=True):
        k = places[tuple(frame.PlanePositionSequence[0].ImagePositionPatient)]
        assert np.array_equal(pixels, values[:, :, k].T)
    mapping = oracle.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("122157", "DCM")
    assert "liver" in dcmread(path).ContentDescription
    assert errors_of(path) == []


def test_a_map_of_uncertainty_says_what_it_is(tmp_path: Path, geometry: Geometry) -> None:
    path = tmp_path / "pm.dcm"
    write_parametric_map(path, np.zeros((5, 7, 4), np.float16), geometry=geometry, quantity="uncertainty")
    mapping = dcmread(path).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert "entropy" in mapping.LUTExplanation
    assert errors_of(path) == []


def test_what_is_no_map_is_refused(tmp_path: Path, geometry: Geometry) -> None:
    for values in (np.full((5, 7, 4), 1.5, np.float32), np.full((5, 7, 4), np.nan, np.float32)):
        with pytest.raises(DataError, match="allowed are 0 … 1"):
            write_parametric_map(tmp_path / "pm.dcm", values, geometry=geometry, quantity="uncertainty")
    with pytest.raises(ShapeError, match=r"the series has \(5, 7, 4\)"):
        write_parametric_map(
            tmp_path / "pm.dcm", np.zeros((5, 7, 3), np.float32), geometry=geometry, quantity="uncertainty"
        )


def test_a_report_tells_of_each_segment(tmp_path: Path, geometry: Geometry) -> None:
    masks = np.zeros((2, 5, 7, 4), np.uint8)
    masks[0, 1:3] = 1
    notes = {name: finding.note for name, finding in FINDINGS.items()}
    made = write_segmentation(
        tmp_path / "seg.dcm", masks, geometry=geometry, labels=tuple(FINDINGS), codes=CODES, notes=notes
    )
    write_report(tmp_path / "sr.dcm", FINDINGS, geometry=geometry, segmentation=made, codes=CODES)
    oracle = hd.sr.srread(tmp_path / "sr.dcm")
    groups = oracle.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["liver", "tumour"]
    assert [group.finding_type.value for group in groups] == ["10200004", "108369006"]
    assert [group.finding_category.meaning for group in groups] == [
        "Anatomical Structure",
        "Morphologically Abnormal Structure",
    ]
    volume = groups[0].get_measurements(name=codes.SCT.Volume)[0]
    assert (volume.value, volume.unit.value) == (1432.5, "mL")
    told = {of.name.meaning: of.value for of in groups[0].get_measurements()}
    assert told["Predicted Dice coefficient"] == 0.913
    assert told["Volume, upper end of the 90 % interval"] == 1500.25
    answers = [group.get_qualitative_evaluations()[-1].value for group in groups]
    assert answers == [codes.SCT.No, codes.SCT.Yes]
    segment = groups[1].referenced_segment
    assert segment.referenced_sop_instance_uid == made.SOPInstanceUID
    assert {of.SOPInstanceUID for of in geometry.header.slices} <= {uid for _, _, uid, _ in oracle.get_evidence()}  # type: ignore[attr-defined]
    liver, tumour = dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert liver.SegmentDescription == "Predicted Dice 0.91, at least 0.84 in nine of ten cases"
    assert tumour.SegmentDescription == "review: nothing was found"
    assert errors_of(tmp_path / "sr.dcm") == errors_of(tmp_path / "seg.dcm") == []


def test_without_calibration_a_report_has_volumes_alone(tmp_path: Path, geometry: Geometry) -> None:
    masks = np.ones((1, 5, 7, 4), np.uint8)
    made = write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=("a",))
    write_report(tmp_path / "sr.dcm", {"a": Finding(volume=1.0)}, geometry=geometry, segmentation=made)
    (group,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [of.name.meaning for of in group.get_measurements()] == ["Volume"]
    assert [of.name.meaning for of in group.get_qualitative_evaluations()] == ["Finding category"]
    assert group.finding_type == codes.SCT.Tissue


def test_a_structure_is_what_its_code_says() -> None:
    assert coding_of("liver", {}).type == codes.SCT.Tissue
    assert coding_of("liver", CODES).type == codes.SCT.Liver
    assert coding_of("liver", CODES).category == codes.SCT.AnatomicalStructure
    assert coding_of("tumour", CODES).category == codes.SCT.MorphologicallyAbnormalStructure
    assert read_code("SCT:999:Left thing", "x").meaning == "Left thing"
    assert read_code("99X:1", "its name").meaning == "its name"
    for wrong in ("liver", "SCT:", ":1", "SCT:1:", "SCT:a b"):
        with pytest.raises(ConfigError, match="allowed is SCHEME:VALUE"):
            read_code(wrong, "x")
