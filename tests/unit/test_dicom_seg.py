from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from medsegdiff.errors import DataError, GeometryError, ShapeError
from medsegdiff.io.dicom import DicomHeader, read_series
from medsegdiff.io.dicom_derived import EXPECTED
from medsegdiff.io.dicom_seg import SegmentationKind, read_segmentation, write_segmentation
from medsegdiff.types import Geometry
from tests.dicom_makers import AXIAL, OBLIQUE, make_rtstruct, make_slices, write_dataset, write_slices
from tests.verified import errors_of

RNG = np.random.default_rng(0)
LABELS = ("liver", "Tumör: 腫瘍", "void")


@pytest.fixture(params=[AXIAL, OBLIQUE], ids=["axial", "oblique"])
def geometry(tmp_path: Path, request: pytest.FixtureRequest) -> Geometry:
    """A series of 4 slices of 7 rows and 5 columns: 35 bits, which fill no whole number of bytes."""
    slices = make_slices(np.zeros((4, 7, 5)), orientation=request.param)
    return read_series(write_slices(tmp_path / "series", slices))[1]


def overlapping_masks() -> np.ndarray:
    masks = (RNG.random((3, 5, 7, 4)) < 0.4).astype(np.uint8)
    masks[0, :, :, 1] = 0  # a slice without a frame
    masks[2] = 0  # a segment without a frame
    assert (masks[0] & masks[1]).any()
    return masks


def test_masks_come_back_exactly(tmp_path: Path, geometry: Geometry) -> None:
    masks = overlapping_masks()
    write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=LABELS)
    names, found = read_segmentation(tmp_path / "seg.dcm", geometry)
    assert names == LABELS
    assert np.array_equal(found, masks)
    assert found.dtype == np.uint8


def test_probabilities_of_at_least_half_come_back_as_masks(tmp_path: Path, geometry: Geometry) -> None:
    probability = RNG.random((2, 5, 7, 4)).astype(np.float32)
    probability[0, :2, 0, 0] = 0.5, 0.49
    write_segmentation(tmp_path / "seg.dcm", probability, geometry=geometry, labels=LABELS[:2], kind="FRACTIONAL")
    _, found = read_segmentation(tmp_path / "seg.dcm", geometry)
    assert np.array_equal(found, np.round(probability * 255) >= 127.5)
    assert found[0, :2, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize(("top", "inside"), [(199, True), (200, True), (201, False)])
def test_half_is_half_of_what_the_file_calls_whole(tmp_path: Path, geometry: Geometry, top: int, inside: bool) -> None:
    values = np.full((1, 5, 7, 4), 100 / 255, np.float32)  # stored as 100
    write_segmentation(tmp_path / "seg.dcm", values, geometry=geometry, labels=["a"], kind="FRACTIONAL")
    dataset = dcmread(tmp_path / "seg.dcm")
    dataset.MaximumFractionalValue = top
    dataset.save_as(tmp_path / "seg.dcm")
    assert (read_segmentation(tmp_path / "seg.dcm", geometry)[1] == inside).all()


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_highdicom_reads_the_same_values(tmp_path: Path, geometry: Geometry, kind: SegmentationKind) -> None:
    masks = overlapping_masks()
    values = masks if kind == "BINARY" else masks * RNG.random(masks.shape).astype(np.float32)
    write_segmentation(tmp_path / "seg.dcm", values, geometry=geometry, labels=LABELS, kind=kind)
    oracle = hd.seg.segread(tmp_path / "seg.dcm")
    assert isinstance(geometry.header, DicomHeader)
    uids = [dataset.SOPInstanceUID for dataset in geometry.header.slices]
    frames = oracle.get_pixels_by_source_instance(
        uids, segment_numbers=[1, 2, 3], ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    assert np.allclose(frames.transpose(3, 2, 1, 0), values, atol=0.5 / 255)
    assert oracle.SegmentationType == kind
    assert kind == "BINARY" or oracle.SegmentationFractionalType == "PROBABILITY"


def test_the_file_says_what_made_it_and_of_what(tmp_path: Path, geometry: Geometry) -> None:
    write_segmentation(tmp_path / "seg.dcm", overlapping_masks(), geometry=geometry, labels=LABELS)
    dataset = dcmread(tmp_path / "seg.dcm")
    assert isinstance(geometry.header, DicomHeader)
    source = geometry.header.slices[0]
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert dataset.PatientID == "7"
    referenced = dataset.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        item.SOPInstanceUID for item in geometry.header.slices
    }
    for segment in dataset.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("medsegdiff", version("medsegdiff"))
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing == [0.5, 0.75]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2.5, 2.0)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        made_of = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        places = {item.SOPInstanceUID: item.ImagePositionPatient for item in geometry.header.slices}
        assert frame.PlanePositionSequence[0].ImagePositionPatient == places[made_of]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_empty_masks_are_written_and_read(tmp_path: Path, geometry: Geometry, kind: SegmentationKind) -> None:
    nothing = np.full((1, 5, 7, 4), 0.001 if kind == "FRACTIONAL" else 0, np.float32)  # rounds to nothing
    write_segmentation(tmp_path / "seg.dcm", nothing, geometry=geometry, labels=["void"], kind=kind)
    names, found = read_segmentation(tmp_path / "seg.dcm", geometry)
    assert names == ("void",)
    assert not found.any()


@pytest.mark.parametrize("empty", [True, False])
def test_anonymised_series_can_be_segmented(tmp_path: Path, empty: bool) -> None:
    slices = make_slices(np.zeros((2, 7, 5)))
    for dataset in slices:
        dataset.SpecificCharacterSet = ""
        for keyword in (*EXPECTED, "SeriesNumber", "SliceThickness"):
            if empty:
                setattr(dataset, keyword, None)
            elif keyword in dataset:
                delattr(dataset, keyword)
        if empty:
            dataset.PatientName = "ANON007"
    _, geometry = read_series(write_slices(tmp_path / "series", slices))
    masks = np.ones((1, 5, 7, 2), np.uint8)
    write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=["all"])
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", geometry)[1], masks)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FrameOfReferenceUID", ""),
        ("PatientSex", "male"),
        ("PatientBirthDate", "unknown"),
        ("StudyDate", "2020/1/1"),
        ("StudyTime", "25:61"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_values_that_are_none_take_no_mask_from_anybody(tmp_path: Path, keyword: str, value: str) -> None:
    slices = make_slices(np.zeros((2, 7, 5)))
    for dataset in slices:
        setattr(dataset, keyword, value)
    _, geometry = read_series(write_slices(tmp_path / "series", slices))
    masks = np.ones((1, 5, 7, 2), np.uint8)
    for number in range(2):
        write_segmentation(tmp_path / f"{number}.dcm", masks, geometry=geometry, labels=["all"])
        assert np.array_equal(read_segmentation(tmp_path / f"{number}.dcm", geometry)[1], masks)
    written = [dcmread(tmp_path / f"{number}.dcm") for number in range(2)]
    assert len({one.FrameOfReferenceUID for one in written} - {""}) == 1
    if keyword == "FrameOfReferenceUID":  # whoever empties it in the series may have done so in the masks
        written[0].FrameOfReferenceUID = ""
        written[0].save_as(tmp_path / "0.dcm")
        assert np.array_equal(read_segmentation(tmp_path / "0.dcm", geometry)[1], masks)


def test_a_header_that_highdicom_refuses_is_a_clear_error(tmp_path: Path) -> None:
    slices = make_slices(np.zeros((2, 7, 5)))
    for dataset in slices:
        del dataset.StudyInstanceUID
    _, geometry = read_series(write_slices(tmp_path / "series", slices))
    with pytest.raises(DataError, match=r"does not allow a DICOM-SEG \(.*StudyInstanceUID.*Repair"):
        write_segmentation(tmp_path / "seg.dcm", np.ones((1, 5, 7, 2), np.uint8), geometry=geometry, labels=["all"])
    assert not (tmp_path / "seg.dcm").exists()


def test_tilted_and_slightly_crooked_series_can_be_segmented(tmp_path: Path) -> None:
    slices = make_slices(np.zeros((3, 7, 5)), step=(0.0, 0.7, 2.4))
    slices[1].ImageOrientationPatient = [1, 0.0002, 0, 0, 1, 0]
    slices[1].PixelSpacing = [0.5001, 0.75]
    slices[1].PatientName = slices[0].PatientName = slices[2].PatientName = "Müller^Jürgen"
    for dataset in slices:
        dataset.SpecificCharacterSet = "ISO_IR 100"
    _, geometry = read_series(write_slices(tmp_path / "series", slices))
    masks = (RNG.random((1, 5, 7, 3)) < 0.5).astype(np.uint8)
    write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=["all"])
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", geometry)[1], masks)
    assert dcmread(tmp_path / "seg.dcm").PatientName == "Müller^Jürgen"
    assert isinstance(geometry.header, DicomHeader)
    assert "SpacingBetweenSlices" not in geometry.header.slices[0]  # the header of the source is left alone
    assert geometry.header.slices[1].PixelSpacing[0] == 0.5001


@pytest.mark.parametrize("background", [False, True])
def test_label_maps_are_read(tmp_path: Path, geometry: Geometry, background: bool) -> None:
    labels = RNG.integers(0, 3, (5, 7, 4)).astype(np.uint8)
    assert isinstance(geometry.header, DicomHeader)
    dataset = highdicom_label_map(list(geometry.header.slices), labels.T)
    if background:
        nothing = Dataset()
        nothing.SegmentNumber, nothing.SegmentLabel = 0, "Background"
        dataset.SegmentSequence.insert(0, nothing)
        dataset.PixelPaddingValue = 0
    dataset.save_as(tmp_path / "map.dcm")
    names, found = read_segmentation(tmp_path / "map.dcm", geometry)
    assert names == ("one", "two")
    assert np.array_equal(found, np.stack([labels == 1, labels == 2]))


def highdicom_label_map(slices: list[Dataset], labels: np.ndarray) -> hd.seg.Segmentation:
    tissue = codes.SCT.Tissue
    return hd.seg.Segmentation(
        slices,
        labels,
        "LABELMAP",
        [hd.seg.SegmentDescription(n, name, tissue, tissue, "MANUAL") for n, name in ((1, "one"), (2, "two"))],
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "1",
    )


def test_segments_come_in_the_order_of_their_numbers(tmp_path: Path, geometry: Geometry) -> None:
    masks = overlapping_masks()
    write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=LABELS)
    dataset = dcmread(tmp_path / "seg.dcm")
    dataset.SegmentSequence = list(dataset.SegmentSequence)[::-1]
    dataset.save_as(tmp_path / "turned.dcm")
    names, found = read_segmentation(tmp_path / "turned.dcm", geometry)
    assert names == LABELS
    assert np.array_equal(found, masks)


@pytest.mark.parametrize(
    ("segments", "labels", "kind", "words"),
    [
        (np.full((1, 5, 7, 4), 2, np.uint8), ["a"], "BINARY", "go from 2 to 2; allowed are 0 and 1.*FRACTIONAL"),
        (np.full((1, 5, 7, 4), 0.5, np.float32), ["a"], "BINARY", "allowed are 0 and 1"),
        (np.full((1, 5, 7, 4), 1.5, np.float32), ["a"], "FRACTIONAL", r"from 1\.5 to 1\.5; allowed are 0 … 1"),
        (np.full((1, 5, 7, 4), np.nan, np.float32), ["a"], "FRACTIONAL", "from nan to nan; allowed are 0 … 1"),
        (np.zeros((1, 5, 7, 4), np.uint8), [""], "BINARY", "labels '' can't be written; allowed are 1 … 64"),
        (np.zeros((1, 5, 7, 4), np.uint8), ["a" * 65], "BINARY", "allowed are 1 … 64 letters"),
        (np.zeros((1, 5, 7, 4), np.uint8), ["a\\b"], "BINARY", "without backslash"),
    ],
)
def test_values_and_labels_that_can_not_be_kept_are_refused(
    tmp_path: Path, geometry: Geometry, segments: np.ndarray, labels: list[str], kind: SegmentationKind, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        write_segmentation(tmp_path / "seg.dcm", segments, geometry=geometry, labels=labels, kind=kind)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 7, 5, 4), 1), ((2, 5, 7, 4), 1), ((1, 5, 7, 3), 1), ((0, 5, 7, 4), 0)]
)
def test_segments_off_the_grid_are_refused(
    tmp_path: Path, geometry: Geometry, shape: tuple[int, ...], count: int
) -> None:
    with pytest.raises(ShapeError, match=rf"with {count} labels on this series it must be \(.*, 5, 7, 4\)"):
        write_segmentation(tmp_path / "seg.dcm", np.zeros(shape, np.uint8), geometry=geometry, labels=["a"] * count)


def test_a_picture_has_no_series_to_refer_to(tmp_path: Path, geometry: Geometry) -> None:
    for other in (Geometry((5, 7), (1.0, 1.0)), replace(geometry, header=object())):
        with pytest.raises(GeometryError, match="does not come from a DICOM series"):
            read_segmentation(tmp_path / "seg.dcm", other)


def test_another_frame_of_reference_is_refused(tmp_path: Path, geometry: Geometry) -> None:
    write_segmentation(tmp_path / "seg.dcm", overlapping_masks(), geometry=geometry, labels=LABELS)
    dataset = dcmread(tmp_path / "seg.dcm")
    dataset.FrameOfReferenceUID = "1.2.77"
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(
        GeometryError, match=r"seg\.dcm: lies in the frame of reference 1\.2\.77; the series has 1\.2\.3"
    ):
        read_segmentation(tmp_path / "seg.dcm", geometry)


def other_origin(slices: list[Dataset]) -> list[Dataset]:
    for dataset in slices:
        dataset.ImagePositionPatient[0] += 0.3
    return slices


def fewer_slices(slices: list[Dataset]) -> list[Dataset]:
    return slices[:2]


def other_spacing(slices: list[Dataset]) -> list[Dataset]:
    for dataset in slices:
        dataset.PixelSpacing = [0.55, 0.75]
    return slices


def other_size(slices: list[Dataset]) -> list[Dataset]:
    return make_slices(np.zeros((4, 8, 5)))


@pytest.mark.parametrize("change", [other_origin, fewer_slices, other_spacing, other_size])
def test_frames_off_the_grid_are_refused(tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]]) -> None:
    slices = make_slices(np.zeros((4, 7, 5)))
    _, geometry = read_series(write_slices(tmp_path / "series", slices))
    write_segmentation(tmp_path / "seg.dcm", np.ones((1, 5, 7, 4), np.uint8), geometry=geometry, labels=["a"])
    _, other = read_series(write_slices(tmp_path / "other", change(slices)))
    with pytest.raises(GeometryError, match=r"\d of 4 frames do not lie on slices of the series.*\(5, [78], [24]\)"):
        read_segmentation(tmp_path / "seg.dcm", other)


def test_files_that_are_no_segmentation_are_refused(tmp_path: Path, geometry: Geometry) -> None:
    path = write_dataset(tmp_path / "rt.dcm", make_rtstruct({}))
    with pytest.raises(DataError, match=r"rt\.dcm: has the modality RTSTRUCT; needed is SEG"):
        read_segmentation(path, geometry)
    with pytest.raises(DataError, match=r"gone\.dcm: there is no such file"):
        read_segmentation(tmp_path / "gone.dcm", geometry)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.999])
def test_a_damaged_segmentation_is_named(tmp_path: Path, geometry: Geometry, share: float) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, overlapping_masks(), geometry=geometry, labels=LABELS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises((DataError, GeometryError), match=r"seg\.dcm: "):
        read_segmentation(path, geometry)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_dciodvfy_finds_no_errors(tmp_path: Path, geometry: Geometry, kind: SegmentationKind) -> None:
    write_segmentation(tmp_path / "seg.dcm", overlapping_masks(), geometry=geometry, labels=("a", "b", "c"), kind=kind)
    assert errors_of(tmp_path / "seg.dcm") == []


def test_the_real_segmentation_is_the_nrrd_it_was_made_of(real_data: Callable[[str], Path]) -> None:
    folder = real_data("dicom") / "dcmqi_ct_liver_seg"
    _, geometry = read_series(folder)
    names, masks = read_segmentation(folder / "liver.dcm", geometry)
    oracle = SimpleITK.ReadImage(str(folder / "liver_seg.nrrd"))
    assert len(names) == 1
    assert np.array_equal(masks[0], on_grid(oracle, geometry))
    assert masks.sum() > 1000


def on_grid(image: SimpleITK.Image, geometry: Geometry) -> np.ndarray:
    """Look up a SimpleITK mask at the centre of each voxel, for its axes may be turned."""
    assert geometry.affine is not None
    back = np.diag([-1, -1, 1, 1]) @ geometry.affine  # SimpleITK is LPS
    index = np.moveaxis(np.indices(geometry.shape), 0, -1).reshape(-1, 3)
    points = index @ back[:3, :3].T + back[:3, 3]
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    found = np.round((points - image.GetOrigin()) @ np.linalg.inv(direction).T).astype(int)
    values = SimpleITK.GetArrayFromImage(image)
    x, y, z = found.T
    return (values[z, y, x] > 0).reshape(geometry.shape)


def test_real_overlapping_segments_are_kept_apart(real_data: Callable[[str], Path]) -> None:
    folder = real_data("dicom") / "dcmqi_ct_liver_seg"
    _, geometry = read_series(folder)
    names, masks = read_segmentation(folder / "partial_overlaps.dcm", geometry)
    assert len(names) == 5
    assert masks.any(axis=(1, 2, 3)).all()
    assert (masks.sum(axis=0) > 1).any()
