from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.io import dicom_file
from medsegdiff.io.dicom import DicomHeader, read_series
from medsegdiff.io.dicom_file import open_dicom
from tests.dicom_makers import AXIAL, OBLIQUE, ORIGIN, make_rtstruct, make_slices, write_dataset, write_slices

VALUES = np.random.default_rng(0).integers(-500, 500, (4, 7, 5))
"""Stored values: 4 slices of 7 rows and 5 columns."""


@pytest.mark.parametrize("suffix", [".dcm", "", ".0001"])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_marked_voxel_lies_where_dicom_says(tmp_path: Path, orientation: Sequence[float], suffix: str) -> None:
    values = np.zeros((4, 7, 5))
    values[2, 6, 1] = 100  # third slice, last row, second column
    image, geometry = read_series(write_slices(tmp_path, make_slices(values, orientation=orientation), suffix=suffix))
    assert image.shape == (1, 5, 7, 4)
    assert image.dtype == np.float32
    assert np.unravel_index(image.argmax(), image.shape) == (0, 1, 6, 2)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    # DICOM PS3.3, C.7.6.2.1.1: 0.75 mm from column to column, 0.5 mm from row to row, slices every 2.5 mm
    left, back, head = ORIGIN + 1 * 0.75 * row + 6 * 0.5 * column + 2 * 2.5 * np.cross(row, column)
    assert geometry.affine is not None
    assert np.allclose(geometry.affine @ [1, 6, 2, 1], [-left, -back, head, 1])
    assert geometry.shape == (5, 7, 4)
    assert np.allclose(geometry.spacing, (0.75, 0.5, 2.5))


def test_series_is_what_simpleitk_reads(tmp_path: Path) -> None:
    image, geometry = read_series(write_slices(tmp_path, make_slices(VALUES, orientation=OBLIQUE)))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    oracle = reader.Execute()
    assert np.allclose(image[0], SimpleITK.GetArrayFromImage(oracle).T)
    assert geometry.affine is not None
    for index in [(0, 0, 0), (4, 0, 0), (0, 6, 0), (0, 0, 3), (1, 2, 3)]:
        expected = np.array(oracle.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(geometry.affine @ [*index, 1], [*expected, 1], atol=1e-5)


@pytest.mark.parametrize("error", [MemoryError, NameError])
def test_what_is_not_the_fault_of_a_file_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    write_slices(tmp_path, make_slices(VALUES))
    for place in ("medsegdiff.io.dicom_pixels._values", "pydicom.dcmread"):
        monkeypatch.setattr(place, fail)
        with pytest.raises(error):
            read_series(tmp_path)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    slices = make_slices(VALUES)
    for k, dataset in enumerate(slices):
        dataset.RescaleSlope, dataset.RescaleIntercept = k + 0.5, -10 * k
    image, _ = read_series(write_slices(tmp_path, slices))
    for k in range(4):
        assert np.allclose(image[0, :, :, k], VALUES[k].T * (k + 0.5) - 10 * k)


@pytest.mark.parametrize("word", ["RescaleSlope", "RescaleIntercept"])
def test_half_a_rescale_is_refused(tmp_path: Path, word: str) -> None:
    """The other slices would be in other units."""
    slices = make_slices(VALUES)
    delattr(slices[1], word)
    with pytest.raises(DataError, match="one of RescaleSlope and RescaleIntercept without the other"):
        read_series(write_slices(tmp_path, slices))


@pytest.mark.parametrize("word", ["PixelSpacing", "ImagePositionPatient"])
def test_a_number_where_there_should_be_several_is_refused(tmp_path: Path, word: str) -> None:
    slices = make_slices(VALUES)
    setattr(slices[1], word, "1")
    with pytest.raises(DataError, match="1 of 4 files are not slices of a volume"):
        read_series(write_slices(tmp_path, slices))


def test_without_rescale_values_are_as_stored(tmp_path: Path) -> None:
    slices = make_slices(VALUES)
    for dataset in slices:
        del dataset.RescaleSlope, dataset.RescaleIntercept
    assert np.array_equal(read_series(write_slices(tmp_path, slices))[0][0], VALUES.T)


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path: Path) -> None:
    step = np.array([0.0, 0.7, 2.4])
    _, geometry = read_series(write_slices(tmp_path, make_slices(VALUES, step=step)))
    assert geometry.affine is not None
    assert np.allclose(geometry.affine[:3, 2], (0, -0.7, 2.4))
    assert geometry.spacing[2] == pytest.approx(2.5)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    image, geometry = read_series(write_slices(tmp_path, make_slices(VALUES[:1])))
    assert image.shape == (1, 5, 7, 1)
    assert geometry.spacing == (0.75, 0.5, 2.0)


def test_the_header_keeps_the_slices_in_order_without_pixels(tmp_path: Path) -> None:
    slices = make_slices(VALUES)
    _, geometry = read_series(write_slices(tmp_path, slices))
    assert isinstance(geometry.header, DicomHeader)
    assert [s.SOPInstanceUID for s in geometry.header.slices] == [s.SOPInstanceUID for s in slices]
    assert not any("PixelData" in s for s in geometry.header.slices)


def test_what_is_no_slice_is_set_aside(tmp_path: Path) -> None:
    write_slices(tmp_path, make_slices(VALUES))
    write_dataset(tmp_path / "rt.dcm", make_rtstruct({}))
    screenshot = make_slices(VALUES[:1])[0]
    screenshot.SOPClassUID = SecondaryCaptureImageStorage
    del screenshot.ImagePositionPatient
    write_dataset(tmp_path / "screenshot.dcm", screenshot)
    dose = make_slices(VALUES[:1])[0]
    dose.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    write_dataset(tmp_path / "dose", dose)
    directory = Dataset()
    directory.FileSetID, directory.DirectoryRecordSequence = "DISC", []
    write_dataset(tmp_path / "DICOMDIR", directory, kind=MediaStorageDirectoryStorage)
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    assert read_series(tmp_path)[0].shape == (1, 5, 7, 4)


def other_series(slices: list[Dataset]) -> None:
    slices[1].SeriesInstanceUID, slices[1].SeriesDescription = "1.2.9", "thin"


def other_size(slices: list[Dataset]) -> None:
    slices[1].Rows, slices[1].Columns = 5, 7


def other_orientation(slices: list[Dataset]) -> None:
    slices[1].ImageOrientationPatient = list(OBLIQUE)


def other_spacing(slices: list[Dataset]) -> None:
    slices[1].PixelSpacing = [0.5, 0.8]


def same_place(slices: list[Dataset]) -> None:
    slices[1].ImagePositionPatient = slices[2].ImagePositionPatient


def missing_slice(slices: list[Dataset]) -> None:
    del slices[1]


def uneven_step(slices: list[Dataset]) -> None:
    slices[3].ImagePositionPatient[2] += 0.06  # of 2.5 mm, 2.4 %


def shifted_slice(slices: list[Dataset]) -> None:
    slices[3].ImagePositionPatient[0] += 0.3


def crooked(slices: list[Dataset]) -> None:
    slices[1].ImageOrientationPatient = [1, 0, 0, 0.5, 0.9, 0]


def no_spacing(slices: list[Dataset]) -> None:
    slices[1].PixelSpacing = [0, 0]


def nowhere(slices: list[Dataset]) -> None:
    slices[1].ImagePositionPatient = ["nan", 0, 0]


def far_apart(slices: list[Dataset]) -> None:
    slices[1].PixelSpacing = ["inf", 1]


def too_short(slices: list[Dataset]) -> None:
    slices[1].ImageOrientationPatient = [1, 0, 0, 0]


def flat(slices: list[Dataset]) -> None:
    slices[1].RescaleSlope = 0


def placeless(slices: list[Dataset]) -> None:
    del slices[1].ImagePositionPatient


def coloured(slices: list[Dataset]) -> None:
    slices[1].SamplesPerPixel = 3


def palette(slices: list[Dataset]) -> None:
    slices[1].PhotometricInterpretation = "PALETTE COLOR"


def compressed(slices: list[Dataset]) -> None:
    slices[1].PixelData = encapsulate([b"no codestream"])
    slices[1]["PixelData"].VR = "OB"
    slices[1].file_meta = FileMetaDataset()
    slices[1].file_meta.TransferSyntaxUID = JPEG2000Lossless


def multi_frame(slices: list[Dataset]) -> None:
    slices[1].NumberOfFrames = 2


def pixels_short(slices: list[Dataset]) -> None:
    slices[1].PixelData = slices[1].PixelData[:-2]


def no_pixels(slices: list[Dataset]) -> None:
    del slices[1].PixelData


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (other_series, r"holds 2 series: .* \(made\): 3 slices.*1\.2\.9 \(thin\): 1 slices.*folder of its own"),
        (other_size, r"differ: IM\d\.dcm has .* IM\d\.dcm: 7 × 5 pixels .*1 of 4 slices"),
        (other_orientation, r"orientation \(0\.8, 0\.36, 0\.48, 0, 0\.8, -0\.6\)"),
        (other_spacing, r"0\.8 × 0\.5 mm"),
        (same_place, r"same place: IM\d\.dcm and IM\d\.dcm \(at 45 mm\)"),
        (missing_slice, r"2\.5 mm mostly, but 5 mm from IM\d\.dcm to IM\d\.dcm\. Allowed"),
        (uneven_step, r"2\.5 mm mostly, but 2\.56 mm from .* Allowed is a difference of 1%"),
        (shifted_slice, r"2\.5 mm mostly, but 2\.52 mm .*missing or shifted"),
        (crooked, r"1 of 4 files are not slices of a volume: IM\d\.dcm \(the orientation .* right angles"),
        (no_spacing, r"IM\d\.dcm \(the pixel spacing .* is not positive"),
        (nowhere, r"IM\d\.dcm \(the position .* is not 3 numbers"),
        (far_apart, r"IM\d\.dcm \(the pixel spacing .* is not 2 numbers"),
        (too_short, r"IM\d\.dcm \(the orientation .* is not 6 numbers"),
        (flat, r"pixels of 1 files can't be read: IM\d\.dcm \(RescaleSlope is 0"),
        (placeless, r"IM\d\.dcm \(has no ImagePositionPatient; .*PNG"),
        (coloured, r"IM\d\.dcm \(is in colour"),
        (palette, r"IM\d\.dcm \(is in colour"),
        (
            compressed,
            r"pixels of 1 files can't be read: IM\d\.dcm \(.*need what the extra brings: pip install 'medsegdiff",
        ),
        (multi_frame, r"IM\d\.dcm \(has 2 frames; convert"),
        (pixels_short, r"pixels of 1 files can't be read: IM\d\.dcm \("),
        (no_pixels, r"pixels of 1 files can't be read: IM\d\.dcm \("),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_series_that_are_no_volume_are_refused(
    tmp_path: Path, damage: Callable[[list[Dataset]], None], words: str
) -> None:
    slices = make_slices(VALUES)
    damage(slices)
    with pytest.raises(DataError, match=words) as error:
        read_series(write_slices(tmp_path / "case7", slices))
    assert "case7" in str(error.value)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_steps_may_differ_by_one_per_cent(tmp_path: Path, orientation: Sequence[float]) -> None:
    slices = make_slices(VALUES, orientation=orientation)
    slices[3].ImagePositionPatient[2] += 0.02
    assert read_series(write_slices(tmp_path, slices))[0].shape == (1, 5, 7, 4)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.97, 0.999])
@pytest.mark.parametrize("name", ["cut.dcm", "cut"])
def test_a_file_cut_off_anywhere_is_named(tmp_path: Path, share: float, name: str) -> None:
    slices = make_slices(np.tile(VALUES, (1, 3, 3)))
    write_slices(tmp_path, slices[:3])
    whole = write_dataset(tmp_path / name, slices[3]).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"{name}\b"):
        read_series(tmp_path)


def test_a_deflated_file_is_unpacked_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset,) = make_slices(np.arange(10_000, dtype=np.int16).reshape(1, 100, 100))
    plain = write_dataset(tmp_path / "plain.dcm", dataset)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated = write_dataset(tmp_path / "deflated.dcm", dataset)
    assert open_dicom(deflated).PixelData == open_dicom(plain).PixelData
    monkeypatch.setattr(dicom_file, "MOST_INFLATED", 10_000)
    assert open_dicom(plain, pixels=False).Rows == 100
    with pytest.raises(DataError, match="is deflated, and has more than 0.01 MB unpacked"):
        open_dicom(deflated, pixels=False)


def test_junk_that_is_called_dicom_is_named(tmp_path: Path) -> None:
    write_slices(tmp_path, make_slices(VALUES))
    (tmp_path / "junk.DCM").write_text("no")
    with pytest.raises(DataError, match=r"1 files can't be read: .*junk\.DCM: is not a DICOM file"):
        read_series(tmp_path)


def test_a_folder_without_slices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no DICOM slices; set aside: nothing"):
        read_series(tmp_path)
    write_dataset(tmp_path / "rt.dcm", make_rtstruct({}))
    with pytest.raises(DataError, match=r"holds no DICOM slices; set aside: rt\.dcm"):
        read_series(tmp_path)
    with pytest.raises(DataError, match=r"rt\.dcm: is not a folder"):
        read_series(tmp_path / "rt.dcm")


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slices(tmp_path, make_slices(VALUES))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'medsegdiff\[dicom\]'"):
        read_series(tmp_path)


def test_the_real_series_is_one_volume(real_data: Callable[[str], Path]) -> None:
    folder = real_data("dicom") / "dcmqi_ct_liver_seg"
    image, geometry = read_series(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(folder / f"0{number}.dcm") for number in (3, 2, 1)])  # 03 lies lowest
    oracle = reader.Execute()
    assert np.array_equal(image[0], SimpleITK.GetArrayFromImage(oracle).T)
    assert geometry.affine is not None
    for index in [(0, 0, 0), (511, 0, 0), (0, 511, 2)]:
        expected = np.array(oracle.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        assert np.allclose(geometry.affine[:3] @ [*index, 1], expected, atol=1e-3)
    assert image.min() == -3024  # HU, beyond the round field of view


def as_mr(values: np.ndarray, **elements: object) -> list[Dataset]:
    slices = make_slices(values)
    for dataset in slices:
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "MR", 1, 0
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
    return slices


@pytest.mark.parametrize("step", [0.33333, 0.625, 0.7, 1.2345, 2.5])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_positions_that_are_rounded_are_even(tmp_path: Path, orientation: Sequence[float], step: float) -> None:
    """To a hundredth of a millimetre; a slice that is missing is missed all the same."""
    normal = np.cross(orientation[:3], orientation[3:])
    slices = make_slices(np.tile(VALUES, (3, 1, 1)), orientation=orientation, step=step * normal)
    for dataset in slices:
        dataset.ImagePositionPatient = [round(float(value), 2) for value in dataset.ImagePositionPatient]
    _, geometry = read_series(write_slices(tmp_path / "all", slices))
    assert geometry.spacing[2] == pytest.approx(step, abs=2e-3)
    for gone in (1, 5, 10):
        with pytest.raises(DataError, match="the steps between slices are not even"):
            read_series(write_slices(tmp_path / f"without-{gone}", [*slices[:gone], *slices[gone + 1 :]]))


@pytest.mark.parametrize("step", [0.02, 0.008])
def test_a_missing_slice_is_missed_however_thin_slices_are(tmp_path: Path, step: float) -> None:
    slices = make_slices(np.tile(VALUES, (3, 1, 1)), step=(0, 0, step))
    assert read_series(write_slices(tmp_path / "all", slices))[0].shape[3] == 12
    with pytest.raises(DataError, match="not even"):
        read_series(write_slices(tmp_path / "gap", [*slices[:6], *slices[7:]]))


def test_directions_that_are_rounded_are_at_right_angles(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    slices = make_slices(VALUES, orientation=turn[:2].ravel())
    for dataset in slices:
        dataset.ImageOrientationPatient = [round(float(value), 3) for value in turn[:2].ravel()]
    _, geometry = read_series(write_slices(tmp_path, slices))
    assert np.linalg.norm(geometry.affine[:3, 0]) == pytest.approx(0.75, abs=1e-9)


def test_padding_is_as_low_as_the_rest(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[:, :2], values[1:, 2, 0] = -2000, -1990
    limits = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}
    image, _ = read_series(write_slices(tmp_path / "range", as_mr(values, **limits)))
    lowest = values[values > -1990].min()
    assert np.array_equal(image[0], np.where(values > -1990, values, lowest).T)
    image, _ = read_series(write_slices(tmp_path / "one", as_mr(values, PixelPaddingValue=-2000)))
    assert image.min() == -1990
    with pytest.raises(DataError, match="nothing but padding"):
        read_series(write_slices(tmp_path / "all", as_mr(0 * VALUES, PixelPaddingValue=0)))


def test_hounsfield_units_stay_as_they_are(tmp_path: Path) -> None:
    slices = make_slices(VALUES)
    plain = read_series(write_slices(tmp_path / "plain", slices))[0]
    for dataset in slices:
        dataset.PixelPaddingValue, dataset.PhotometricInterpretation = int(VALUES.min()), "MONOCHROME1"
    assert np.array_equal(read_series(write_slices(tmp_path / "other", slices))[0], plain)


@pytest.mark.parametrize(("photometric", "signed"), [("MONOCHROME1", 0), ("MONOCHROME2", 0), ("MONOCHROME2", 1)])
def test_stored_bits_are_read_as_simpleitk_reads_them(tmp_path: Path, photometric: str, signed: int) -> None:
    """Twelve of sixteen, beside which something else may lie; what is shown bright is high."""
    stored = np.random.default_rng(1).integers(0, 2**16, (3, 6, 5)).astype(np.uint16).view(np.int16)
    slices = as_mr(stored, BitsStored=12, HighBit=11, PixelRepresentation=signed, PhotometricInterpretation=photometric)
    image, _ = read_series(write_slices(tmp_path, slices))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    oracle = SimpleITK.GetArrayFromImage(reader.Execute()).astype(np.float32).T
    assert np.array_equal(image[0], oracle)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_wrong_with_a_slice_is_said_of_the_file(tmp_path: Path, seed: int) -> None:
    """Bytes changed at random in one of three slices; pydicom looks at most of them when they are asked for."""
    folder = write_slices(tmp_path / "series", make_slices(VALUES[:3]))
    rng = np.random.default_rng(seed)
    data = bytearray((folder / "IM1.dcm").read_bytes())
    for place in rng.integers(132, len(data), 4):
        data[place] = rng.integers(256)
    (folder / "IM1.dcm").write_bytes(data)
    with suppress(DataError):
        assert read_series(folder)[0].shape[0] == 1
