"""DICOM-SEG and RTSTRUCT files as the masks of a data folder."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.layouts.dicom_masks import convert_masks, read_masks
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.io import rtstruct
from medsegdiff.io.dicom import read_series
from medsegdiff.io.dicom_seg import read_segmentation, write_segmentation
from medsegdiff.io.image import read_image, read_mask
from medsegdiff.io.listing import Reason
from medsegdiff.types import Geometry
from tests.dicom_makers import make_picture, make_rtstruct, make_slices, write_dataset, write_slices
from tests.makers import write_png
from tests.unit.test_dicom_single import enhanced

pytest.importorskip("highdicom")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Three patients with a series and a DICOM-SEG of two structures that overlap."""
    rng = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    for number in range(3):
        folder = write_slices(tmp_path / "images" / f"p{number}", make_slices(rng.integers(0, 900, (3, 8, 6))))
        geometry = read_series(folder)[1]
        masks = np.zeros((2, *geometry.shape), np.uint8)
        masks[0, 1:4, 2:5, 1], masks[1, 2:5, 3 : 5 + number, 1] = 1, 1
        write_segmentation(tmp_path / "masks" / f"p{number}.dcm", masks, geometry=geometry, labels=("liver", "lesion"))
    return tmp_path


def test_structures_become_regions_on_the_slices_of_their_series(series: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(series, DataConfig())))
    assert (source.info.labels.task, source.info.labels.classes) == ("regions", ("lesion", "liver"))
    case = source.load("p2/0001")
    truth = read_masks(series / "masks" / "p2.dcm", read_series(series / "images" / "p2")[1])[1]
    for channel, name in enumerate(("lesion", "liver")):
        drawn = truth[("liver", "lesion").index(name)]
        assert case.mask[0, channel].sum() == drawn[:, :, 1].sum() > 0
    assert (case.mask[0, 0] & case.mask[0, 1]).any()
    assert not source.load("p2/0000").mask.any()


def test_one_structure_may_be_chosen(series: Path) -> None:
    listing = list_cases(series, DataConfig(classes=("lesion",)))
    assert (listing.masks.declared.task, listing.masks.declared.classes) == ("binary", ("lesion",))
    assert open_source(series, DataConfig(classes=("lesion",))).load("p0/0001").mask.shape[:2] == (1, 1)
    with pytest.raises(DataError, match="no file holds spleen; there are lesion, liver"):
        list_cases(series, DataConfig(classes=("spleen",)))


def square(geometry: Geometry, k: float) -> np.ndarray:
    """A contour in slice k, which holds four pixels."""
    assert geometry.affine is not None
    index = np.array([[i, j, k, 1] for i, j in ((0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5))])
    return (index @ geometry.affine.T)[:, :3] * (-1, -1, 1)


def draw(series: Path, case: str, structures: dict[str, float]) -> None:
    """Write a square of each structure in its slice, in place of what there was."""
    geometry = read_series(series / "images" / case)[1]
    contours = {name: [square(geometry, k)] for name, k in structures.items()}
    dataset = make_rtstruct(contours, series=geometry.header.series)
    for number, region in enumerate(dataset.StructureSetROISequence):
        region.ROIName = [*structures][number].rstrip("*")  # two of one name
    write_dataset(series / "masks" / f"{case}.dcm", dataset)


def test_structures_that_nobody_asks_for_are_not_looked_at(series: Path) -> None:
    for case, others in (("p0", {"couch": 9}), ("p1", {"PTV 1": 1, "PTV-1": 1}), ("p2", {"x": 1, "x*": 1})):
        draw(series, case, {"liver": 1, **others})
    for classes in (None, ("x",), ("PTV/1", "liver")):
        with pytest.raises(DataError, match="structures share a name"):
            list_cases(series, DataConfig(classes=classes))
    source = open_source(series, DataConfig(classes=("liver",)))
    assert [int(source.load(f"p{i}/0001").mask.sum()) for i in range(3)] == [4, 4, 4]
    assert source.info.understood == ()


def test_a_class_is_found_by_its_own_name_or_by_that_of_its_folder(series: Path) -> None:
    for number, case in enumerate(("p0", "p1", "p2")):
        draw(series, case, {"PTV 1": number, "PTV-1": 2 - number, "left lung": 1})
    for name in ("left lung", "left-lung"):
        source = open_source(series, DataConfig(classes=(name,)))
        assert source.info.labels.classes == (name,)
        assert [int(source.load(f"p{i}/0001").mask.sum()) for i in range(3)] == [4, 4, 4]
    both = list_cases(series, DataConfig(classes=("PTV-1", "PTV 1"))).masks
    assert [values.any(axis=(0, 1)).tolist() for _, values in both.stored("p0")] == [
        [False, False, True],
        [True, False, False],
    ]
    with pytest.raises(DataError, match="structures share a name: PTV 1, PTV-1"):
        list_cases(series, DataConfig(classes=("PTV/1",)))


def test_files_without_a_structure_are_refused(series: Path) -> None:
    for case in ("p0", "p1", "p2"):
        draw(series, case, {})
    with pytest.raises(DataError, match="masks: no file holds a structure"):
        list_cases(series, DataConfig())


def test_of_a_file_of_many_structures_those_asked_for_alone_are_filled(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(series, "p0", {f"organ {i}": 1 for i in range(40)} | {"liver": 1})
    filled = []
    monkeypatch.setattr(rtstruct, "_fill_slices", lambda mask, contours: filled.append(mask))
    list_cases(series, DataConfig(classes=("liver",))).masks.stored("p0")
    assert len(filled) == 1
    assert filled[0].base.nbytes == filled[0].nbytes


def test_segments_that_nobody_asks_for_may_lie_elsewhere(series: Path) -> None:
    geometry = read_series(series / "images" / "p0")[1]
    file = series / "masks" / "p0.dcm"
    dataset = dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            frame.PlanePositionSequence[0].ImagePositionPatient[2] += 100
    dataset.save_as(file)
    with pytest.raises(GeometryError, match="1 of 2 frames do not lie on slices"):
        read_segmentation(file, geometry)
    names, masks = read_segmentation(file, geometry, wanted=("liver",))
    assert (names, masks.shape[0], masks.sum()) == (("liver",), 1, 9)


def test_a_structure_of_data_classes_is_empty_where_a_file_lacks_it(series: Path) -> None:
    draw(series, "p0", {"liver": 1})
    with pytest.raises(DataError, match=r"p0 \(no lesion\)\. Save an empty mask .* name those that are meant in data"):
        open_source(series, DataConfig())
    for classes in (("liver", "lesion"), ("lesion",)):
        source = open_source(series, DataConfig(classes=classes))
        assert "1 of 3 files hold no lesion, which is taken for empty there: p0.dcm" in source.info.understood
        assert [bool(source.load(f"p{i}/0001").mask[0, -1].any()) for i in range(3)] == [False, True, True]
    assert any("hold no lesion" in line for line in inspect_folder(series, DataConfig(classes=("lesion",))).understood)


@pytest.mark.parametrize("inside", [False, True])
def test_masks_may_be_drawn_on_files_of_many_frames(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for case in ("p0", "p1", "p2"):
        file = enhanced(tmp_path / "made" / case, make_slices(np.random.default_rng(0).integers(0, 900, (3, 8, 6))))
        image = tmp_path / "images" / (case if inside else f"{case}.dcm")
        shutil.move(file.parent if inside else file, image)
        geometry = read_image(image)[1]
        mask = np.zeros((1, *geometry.shape), np.uint8)
        mask[0, 1:4, 2:5, 1] = 1
        write_segmentation(tmp_path / "masks" / f"{case}.dcm", mask, geometry=geometry, labels=("liver",))
    source = open_source(tmp_path, DataConfig())
    assert source.load("p1/0001").mask.sum() == 9
    (path,) = convert_masks(image, tmp_path / "masks" / "p2.dcm", tmp_path / "out")
    assert (path.name, read_mask(path).sum()) == ("p2.nii.gz", 9)


def test_pictures_have_no_masks_in_dicom(series: Path) -> None:
    shutil.rmtree(series / "images" / "p0")
    write_dataset(series / "images" / "p0.dcm", make_picture(np.zeros((8, 6), np.uint8)))
    with pytest.raises(DataError, match="DICOM masks need the series on which they were drawn; p0 are none"):
        list_cases(series, DataConfig())
    with pytest.raises(GeometryError, match="does not come from a DICOM series"):
        convert_masks(series / "images" / "p0.dcm", series / "masks" / "p0.dcm", series / "out")


def test_what_lies_beside_masks_in_dicom_is_left_out(series: Path) -> None:
    (series / "masks" / "p1.dcm").rename(series / "masks" / "p1")  # without an ending
    (series / "masks" / "notes.txt").write_text("drawn by two")
    (series / "masks" / "README").write_text("drawn by two")
    (series / "masks" / "old").mkdir()
    listing = list_cases(series, DataConfig())
    assert listing.masks.names == ["p0", "p1", "p2"]
    assert {entry.path.name: entry.reason for entry in listing.masks.left_out} == {
        "notes.txt": Reason.DOCUMENT,
        "README": Reason.FORMAT,
        "old": Reason.FOLDER,
    }
    assert "README (of a format that is not read)" in open_source(series, DataConfig()).info.passed_over[0]
    write_png(series / "masks" / "old" / "p0.png", np.zeros((8, 6), np.uint8))
    assert {entry.reason for entry in list_cases(series, DataConfig()).masks.left_out} >= {Reason.SLICE}


def test_a_folder_per_case_will_do_but_not_with_two_files(series: Path) -> None:
    inner = series / "masks" / "p1"
    inner.mkdir()
    shutil.move(series / "masks" / "p1.dcm", inner / "exported.dcm")
    assert open_source(series, DataConfig()).info.labels.classes == ("lesion", "liver")
    shutil.copy(inner / "exported.dcm", inner / "again.dcm")
    with pytest.raises(DataError, match="holds 2 DICOM files; expected one DICOM-SEG or RTSTRUCT per case"):
        list_cases(series, DataConfig())


def test_masks_that_are_slices_say_what_they_are(series: Path) -> None:
    shutil.copy(next((series / "images" / "p0").iterdir()), series / "masks" / "p0.dcm")
    found = inspect_folder(series, DataConfig())
    assert "has the modality CT; allowed are SEG, RTSTRUCT" in found.problems[0]


def test_real_files_are_references_of_their_series(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    for name, file, slices in (
        ("dcmqi_ct_liver_seg", "liver.dcm", ("01.dcm", "02.dcm", "03.dcm")),
        ("rtutils_ct_rtstruct", "rt.dcm", ("ct_1.dcm", "ct_2.dcm")),
    ):
        origin, data = real_data("dicom") / name, tmp_path / name
        for number in range(2):  # two patients, so that there is one to validate with
            (data / "images" / f"p{number}").mkdir(parents=True)
            (data / "masks").mkdir(exist_ok=True)
            for one in slices:
                shutil.copy(origin / one, data / "images" / f"p{number}" / one)
            shutil.copy(origin / file, data / "masks" / f"p{number}.dcm")
        source = open_source(data, DataConfig(test_fraction=0))
        held = [source.load(item).mask.sum() for item in source.info.items("all")]
        truth = read_masks(origin / file, read_series(data / "images" / "p0")[1])[1]
        assert sum(held) == 2 * truth.sum() > 0
