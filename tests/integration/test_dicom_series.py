"""DICOM series from end to end: a folder of slices in, NIfTI and DICOM-SEG on its grid out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.sr.codedict import codes

from medsegdiff.config.data import DataConfig
from medsegdiff.data.layouts.dicom_masks import convert_masks, folder_names
from medsegdiff.data.open import open_source
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.writer import USUAL
from medsegdiff.io.dicom import read_series
from medsegdiff.io.dicom_seg import read_segmentation
from medsegdiff.io.listing import list_images
from medsegdiff.io.names import image_name
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.server.results import Results
from tests.dicom_makers import OBLIQUE, make_slices, write_slices
from tests.integration.test_volumes import identity
from tests.program import call


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An oblique series of 0 and 1, under names that say nothing of its order."""
    values = (np.random.default_rng(0).random((4, 6, 8)) > 0.5).astype(np.uint16)  # (k, rows, columns)
    values[:, 0] = 0  # some corners, as a volume has them
    return write_slices(tmp_path / "patient7", make_slices(values, orientation=OBLIQUE)), values


def test_masks_lie_on_the_slices(series: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, values = series
    out = tmp_path / "out"
    finished = segment_files(identity(), find_inputs([folder]), out, members=2, steps=1)
    assert [image.name for image in finished.done] == ["patient7"]
    written = nib.load(out / "labels" / "patient7.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), values.T)
    itk = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    corner = np.array(itk.TransformIndexToPhysicalPoint((7, 5, 3))) * [-1, -1, 1]  # LPS to RAS
    assert np.allclose(written.affine @ [7, 5, 3, 1], [*corner, 1], atol=1e-3)
    names, masks = read_segmentation(out / "dicom-seg" / "patient7.dcm", read_series(folder)[1])
    assert names == ("lesion",)
    assert np.array_equal(masks[0], values.T)


def test_probabilities_are_fractional_segments(series: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    result = identity()(series[0], members=2, steps=1)
    result.save(tmp_path / "out", parts=("dicom-fractional",))
    stored = highdicom.seg.segread(tmp_path / "out" / "dicom-fractional" / "patient7.dcm")
    assert stored.SegmentationType == "FRACTIONAL"
    sources = [dcmread(path).SOPInstanceUID for path in series[0].iterdir()]
    assert {uid for _, _, uid in stored.get_source_image_uids()} == set(sources)


def test_a_folder_of_series_is_several_images(series: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    write_slices(tmp_path / "all" / "b", make_slices(series[1]))
    write_slices(tmp_path / "all" / "a", make_slices(series[1]))
    assert [image_name(path) for path in list_images(tmp_path / "all").images] == ["a", "b"]
    assert image_name(write_slices(tmp_path / "patient.7", make_slices(series[1]))) == "patient.7"
    assert len(find_inputs([tmp_path / "all"])) == 2
    (tmp_path / "all" / "b" / "IM0.dcm").write_bytes(b"damaged")
    finished = segment_files(identity(), find_inputs([tmp_path / "all"]), tmp_path / "out", members=1, steps=1)
    assert [image.name for image in finished.done] == ["a"]
    assert list(finished.failed) == [str(tmp_path / "all" / "b")]


def test_a_real_series_is_segmented(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    folder = real_data("dicom") / "dcmqi_ct_liver_seg"
    result = identity()(folder, members=1, steps=1)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage([str(folder / f"0{i}.dcm") for i in (1, 2, 3)])).T
    assert result.image[0].shape == result.mask.shape == itk.shape
    result.save(tmp_path)
    _, masks = read_segmentation(tmp_path / "dicom-seg" / f"{result.name}.dcm", result.geometry)
    assert np.array_equal(masks[0], result.mask)


def test_masks_of_dicom_become_a_data_folder(
    real_data: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against what other programs made of the same DICOM-SEG, and the area that the contours enclose."""
    liver = real_data("dicom") / "dcmqi_ct_liver_seg"
    (path,) = convert_masks(liver, liver / "liver.dcm", tmp_path / "masks")
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(liver / "liver_seg.nrrd"))).T > 0
    assert path.parent.parent == tmp_path / "masks"
    assert np.asarray(nib.load(path).dataobj).sum() == expected.sum() > 0
    drawn = real_data("dicom") / "rtutils_ct_rtstruct"
    assert call("data", "masks", drawn, drawn / "rt.dcm", "--out", tmp_path / "rt") == 0
    assert str(tmp_path / "rt") in capsys.readouterr().out
    assert call("data", "masks", drawn, drawn / "rt.dcm", "--out", tmp_path / "rt") == 2
    assert "there already" in capsys.readouterr().err
    assert call("data", "masks", drawn, drawn / "ct_1.dcm", "--out", tmp_path / "ct") == 1
    assert "allowed are SEG, RTSTRUCT" in " ".join(capsys.readouterr().err.split())


def test_structures_are_trained_on_beside_their_series(series: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    result = identity()(series[0], members=1, steps=1)
    result.save(tmp_path / "seg")
    for case in "abc":
        shutil.copytree(series[0], tmp_path / "data" / "images" / case)
        convert_masks(
            tmp_path / "data" / "images" / case,
            tmp_path / "seg" / "dicom-seg" / "patient7.dcm",
            tmp_path / "data" / "masks",
        )
    source = open_source(tmp_path / "data", DataConfig())
    assert (source.info.labels.task, source.info.labels.classes) == ("regions", ("lesion",))
    assert len(source.info.items("all")) == 12


def test_names_of_structures_become_names_of_folders() -> None:
    assert folder_names(["GTV 1/2", "Left lung", "..", "Ä-b_c.1"]) == ["GTV-1-2", "Left-lung", "structure", "Ä-b_c.1"]


def test_all_that_dicom_has_is_written_on_request(
    series: tuple[Path, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the page gives it away."""
    out, parts = tmp_path / "out", (*USUAL, "rtstruct", "dicom-sr", "dicom-pm")
    segment_files(identity(), find_inputs([series[0]]), out, parts=parts, members=2, steps=1)
    assert "no code for lesion" in caplog.text
    _, geometry = read_series(series[0])
    assert np.array_equal(read_rtstruct(out / "rtstruct" / "patient7.dcm", geometry)[1][0], series[1].T)
    (group,) = highdicom.sr.srread(out / "dicom-sr" / "patient7.dcm").content.get_volumetric_roi_measurement_groups()
    volume = group.get_measurements(name=codes.SCT.Volume)[0].value
    assert volume == pytest.approx(series[1].sum() * 0.5 * 0.75 * 2.5 / 1000, abs=1e-4)
    segmented = dcmread(out / "dicom-seg" / "patient7.dcm")
    assert group.referenced_segment.referenced_sop_instance_uid == segmented.SOPInstanceUID
    maps = sorted(path.name for path in (out / "dicom-pm").iterdir())
    assert maps == ["patient7_probability.dcm", "patient7_uncertainty.dcm"]
    told = {of.what: of.href for of in Results(out).case("patient7").downloads}
    given = {"DICOM-SEG · DICOM": "dicom-seg", "RTSTRUCT · DICOM": "rtstruct", "Report (SR) · DICOM": "dicom-sr"}
    assert {what: told[what] for what in given} == {what: f"files/{of}/patient7.dcm" for what, of in given.items()}
    files = {path.relative_to(out).as_posix() for path in Results(out).archived("patient7")}
    assert {"dicom-pm/patient7_uncertainty.dcm", "dicom-pm/patient7_probability.dcm"} <= files


def test_structures_have_the_codes_that_were_given(
    series: tuple[Path, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (asked, given) in enumerate(
        [({}, None), ({"codes": "{lesion: SCT:108369006}"}, None), ({}, {"lesion": "SCT:108369006"})]
    ):
        out = tmp_path / f"out{number}"
        segment_files(identity(**asked), find_inputs([series[0]]), out, codes=given, members=1, steps=1)
        (segment,) = dcmread(out / "dicom-seg" / "patient7.dcm").SegmentSequence
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert kind.CodeMeaning == ("Tumor" if number else "Tissue")
        assert ("no code" in caplog.text) == (number == 0)
        caplog.clear()


def test_codes_are_read_from_a_file_and_wrong_ones_are_refused(
    tmp_path: Path, trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    codes_file = tmp_path / "codes.yaml"
    for text, words in (
        ("liver: SCT:10200004", "the model has no structure 'liver'"),
        ("foreground: liver", "allowed is SCHEME:VALUE"),
        ("[1, 2]", "expected are lines such as"),
        ("a: [", "can't be read"),
    ):
        codes_file.write_text(text)
        image = trained[1] / "images" / "case00.png"
        asked = ("segment", image, "--model", trained[0], "--out", tmp_path / "out", "--dicom-codes", codes_file)
        assert call(*asked) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    codes_file.write_text("foreground: SCT:10200004")
    asked = (*asked, "--members", "1", "--steps", "1", "--write", "masks,geojson")
    assert call(*asked) == 0
    assert (tmp_path / "out" / "geojson" / "case00.geojson").is_file()
