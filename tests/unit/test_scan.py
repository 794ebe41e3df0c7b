"""One look at the files of a data set: what is wrong with a case stays beside it, unless the first is asked for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.masks import Stored, count_values
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.data.scan import Scan, check_channels_alike, scan, unlabelled
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.evaluation import evaluate
from medsegdiff.io.dicom import read_series_geometry
from medsegdiff.io.nifti import write_labels
from tests.dicom_makers import make_picture, make_slices, write_dataset, write_slices
from tests.makers import write_png
from tests.volumes import save


def scanned(root: Path, **options: object) -> Scan:
    return scan(list_cases(root, DataConfig()), DataConfig(), **options)


@pytest.fixture
def broken(folder: Path) -> Path:
    """Twelve pictures: the first can't be read, the mask of the second neither, that of the third is too small."""
    (folder / "images" / "case00.png").write_bytes(b"nothing")
    (folder / "masks" / "case01.png").write_bytes(b"nothing")
    write_png(folder / "masks" / "case02.png", np.zeros((3, 3), np.uint8))
    return folder


def test_what_is_wrong_with_a_case_stays_beside_it(broken: Path) -> None:
    found = scanned(broken)
    assert list(found.problems) == ["case00", "case01", "case02"]
    assert "case01.png" in str(found.problems["case01"])
    assert "They must lie on the same grid" in str(found.problems["case02"])
    assert len(found.sound) == 9
    assert list(found.grids) == [f"case{i:02d}" for i in range(1, 12)]  # images that can be read
    assert (found.values, found.channels, found.plane) == ({0, 255}, 1, "")
    assert found.counts["", 0] + found.counts["", 255] == 9 * 40 * 32


def test_the_first_problem_is_raised_where_that_is_asked(broken: Path) -> None:
    with pytest.raises(MedSegDiffError, match=r"images/case00\.png"):
        scanned(broken, strict=True)
    with pytest.raises(MedSegDiffError, match=r"masks/case01\.png"):
        scanned(broken, names=["case03", "case02", "case01"], strict=True)
    assert scanned(broken, names=["case03"], strict=True).sound == ["case03"]


def test_who_looks_along_sees_sound_cases_and_may_refuse_them(broken: Path) -> None:
    def refuse(case: CaseFiles, stored: Stored) -> None:
        if case.name == "case05":
            raise DataError(f"{len(stored)} mask is refused")

    found = scanned(broken, also=refuse)
    assert str(found.problems["case05"]) == "1 mask is refused"
    assert list(found.problems) == ["case00", "case01", "case02", "case05"]


def test_slices_with_a_structure_are_known_and_so_is_the_common_plane(tmp_path: Path) -> None:
    for number, (spacing, slices) in enumerate((((1, 1, 4), (1,)), ((1, 1, 4), (0, 3)), ((9, 1, 1), ()))):
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2:4, 1, list(slices)] = 1
        save(tmp_path / "images" / f"v{number}.nii.gz", np.ones((6, 5, 4), np.int16), np.diag([*spacing, 1]))
        save(tmp_path / "masks" / f"v{number}.nii.gz", mask, np.diag([*spacing, 1]))
    found = scanned(tmp_path)
    assert found.plane == "axial"
    assert [case.foreground for case in found.cases.values()] == [(1,), (0, 3), ()]


def test_volumes_of_other_channels_are_no_case_s_fault_but_refused(tmp_path: Path) -> None:
    for number, channels in enumerate((1, 2)):
        save(tmp_path / "images" / f"v{number}.nii", np.ones((6, 5, 4, channels), np.int16))
        save(tmp_path / "masks" / f"v{number}.nii", np.ones((6, 5, 4), np.uint8))
    found = scanned(tmp_path)
    assert found.problems == {}
    for refused in (lambda: check_channels_alike(found), lambda: scanned(tmp_path, strict=True)):
        with pytest.raises(DataError, match=r"differ in their channels: .*v0\.nii has 1, .*v1\.nii has 2"):
            refused()


def test_images_without_a_mask_are_listed_but_for_those_of_a_test_set(folder: Path) -> None:
    for name in ("case00", "case01"):
        (folder / "masks" / f"{name}.png").unlink()
    parts = ("test", "train", "val", *["train"] * 9)
    rows = [f"case{i:02d},{part}" for i, part in enumerate(parts)]
    (folder / "split.csv").write_text("\n".join(["id,split", *rows]))
    assert unlabelled(list_cases(folder, DataConfig())) == ["case01"]


@pytest.mark.parametrize("shape", [(64, 200, 300), (2000, 2000)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_counting_values_takes_a_fraction_of_a_mask(shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
    stored = np.asarray(np.random.default_rng(0).integers(0, 7, shape, dtype=np.uint8), order=order)
    expected = np.bincount(stored.ravel(), minlength=256)
    tracemalloc.start()
    counted = count_values(stored)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(counted, expected)
    assert peak < stored.nbytes / 4


def write_series(root: Path, patients: dict[str, str]) -> None:
    """Write a series and a mask for each case of a patient."""
    for case, patient in patients.items():
        slices = make_slices(np.random.default_rng(0).integers(0, 900, (3, 8, 6)))
        for one in slices:
            one.PatientID = patient
        geometry = read_series_geometry(write_slices(root / "images" / case, slices))
        (root / "masks").mkdir(exist_ok=True)
        write_labels(root / "masks" / f"{case}.nii.gz", np.eye(6, 8, dtype=np.uint8)[..., None].repeat(3, 2), geometry)


def test_series_of_one_patient_stay_in_one_part_and_nobody_s_number_is_told(tmp_path: Path) -> None:
    patients = {f"scan{i:02d}": f"MRN-{i // 2}" for i in range(16)} | {"alone": "MRN-9", "nobody": ""}
    write_series(tmp_path, patients)
    for seed in range(3):
        info = open_source(tmp_path, DataConfig(split_seed=seed)).info
        assert all(info.split[f"scan{i:02d}"] == info.split[f"scan{i + 1:02d}"] for i in range(0, 16, 2))
    assert dict(info.groups) == {f"scan{i:02d}": f"scan{i // 2 * 2:02d}" for i in range(16)}
    parts = [f"{case},{'test' if case == 'scan03' else 'train'}" for case in patients]
    (tmp_path / "split.csv").write_text("\n".join(["id,split", *parts]))
    assert inspect_folder(tmp_path, DataConfig()).leaks == ["scan02 (test, train)"]
    (tmp_path / "split.csv").write_text("\n".join(["id,patient", *(f"{case},{case[:5]}" for case in patients)]))
    assert open_source(tmp_path, DataConfig()).info.groups["scan15"] == "scan1"


@pytest.mark.parametrize("count", [20, 19, 15])
def test_a_number_that_most_cases_have_is_nobody_s(count: int, tmp_path: Path) -> None:
    patients = {f"scan{i:02d}": "ANON" if i < count else f"X{i // 2}" for i in range(20)}
    write_series(tmp_path, patients)
    info = open_source(tmp_path, DataConfig()).info
    sizes = {part: list(info.split.values()).count(part) for part in ("train", "val", "test")}
    assert sizes["train"] > 10
    assert min(sizes.values()) > 0
    assert set(info.groups) == {name for i, name in enumerate(patients) if i >= count + count % 2}
    told = inspect_folder(tmp_path, DataConfig()).understood
    assert tuple(told) == info.understood
    some = f"{count} of 20 images have one PatientID, which is taken for nobody's"
    assert [line.partition(":")[0] for line in told if "PatientID, which" in line] == [some] * (count < 20)
    assert "ANON" not in str(told)


def test_evaluation_knows_the_patients_that_training_knows(tmp_path: Path) -> None:
    patients = {f"scan{i:02d}": f"MRN-{i // 2}" for i in range(8)} | {"alone": "MRN-9"}
    write_series(tmp_path, patients)
    info = open_source(tmp_path, DataConfig()).info
    assert any("8 images are of 4 patients by the PatientID" in line for line in info.understood)
    assert dict(info.groups) == {f"scan{i:02d}": f"scan{i // 2 * 2:02d}" for i in range(8)}

    scores = evaluate(tmp_path / "masks", tmp_path).scores
    assert dict(scores.groups) == {"alone": ""} | dict(info.groups)
    for file in (tmp_path / "images" / "scan02").iterdir():
        file.write_bytes(b"nothing")
    masks_alone = evaluate(tmp_path / "masks", tmp_path).scores
    assert dict(masks_alone.groups) == dict(scores.groups) | {"scan02": "", "scan03": ""}
    (tmp_path / "split.csv").write_text("\n".join(["id,patient", *(f"{case},{case[:5]}" for case in patients)]))
    assert set(evaluate(tmp_path / "masks", tmp_path).scores.groups.values()) == {"scan0", "alone"}


def test_pictures_of_one_patient_are_a_group_too(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        picture = make_picture(np.full((8, 6), 40 * i, np.uint8), PatientID=f"{i // 2} ")
        write_dataset(tmp_path / "images" / f"x{i}.dcm", picture)
        write_png(tmp_path / "masks" / f"x{i}.png", np.eye(8, 6, dtype=np.uint8))
    assert set(open_source(tmp_path, DataConfig()).info.groups.values()) == {"x0", "x2", "x4"}
