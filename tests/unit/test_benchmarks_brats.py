"""BraTS in miniature, as each year published it, and as slices: channels, regions, patients, and broken cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.open import detect, matches, open_source
from medsegdiff.errors import DataError
from tests.published import NEW, OLD, SHAPE, brats, brats_slices, labels, listing, parts, source, volume


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("HGG/Brats18_2013_10_1", "LGG/Brats18_TCIA09_141_1"), {}),
        (("HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_TMC_06290_1"), {}),
        (("MICCAI_BraTS2020_TrainingData/BraTS20_Training_001", "BraTS20_Training_002"), {"ending": ".nii"}),
        (("a/MICCAI_BraTS2020_TrainingData/BraTS20_Training_001", "a/b/BraTS20_Training_355"), {"ending": ".nii"}),
        (("BraTS2021_00000", "BraTS2021_00002"), {}),
        (
            (
                "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00000-000",
                "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData/BraTS-GLI-00002-000",
            ),
            {"words": NEW, "join": "-"},
        ),
    ],
    ids=["2018", "2019", "2020", "2020 as Kaggle has it", "2021", "2023"],
)
def test_each_year_of_brats_gives_the_same_channels_and_regions(
    tmp_path: Path, names: tuple[str, str], options: dict[str, object]
) -> None:
    for name in names:
        brats(tmp_path / name, **options)
    (tmp_path / "name_mapping.csv").write_text("")
    found, case = listing(tmp_path), Path(names[0]).name
    assert found.layout == "brats"
    assert sorted(found.cases) == sorted(Path(name).name for name in names)
    assert found.channels == ("t1", "t1ce", "t2", "flair")
    assert found.modalities == ("mr",) * 4
    assert found.masks.declared.order == ((2, 1, 3) if "words" in options else (2, 1, 4))
    opened = source(tmp_path, test_fraction=0.0)
    assert (opened.info.channels, opened.info.channel_files, opened.info.labels.task) == (4, 4, "regions")
    assert opened.info.labels.classes == ("WT", "TC", "ET")
    loaded = opened.load(f"{case}/0001")
    assert loaded.image.max(axis=(1, 2)).tolist() == [10, 20, 30, 40]
    assert loaded.mask[0, :, :, 1].tolist() == [[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]]  # front on top
    assert opened.info.foreground == {f"{Path(name).name}/0001" for name in names}


def test_regions_of_brats_can_be_written_as_labels_again(tmp_path: Path) -> None:
    for year in ("BraTS2021_00000", "BraTS-GLI-00000-000"):
        new = year.startswith("BraTS-")
        brats(tmp_path / year / year, words=NEW if new else OLD, join="-" if new else "_")
        found = listing(tmp_path / year)
        ((_, stored),) = found.masks.stored(year)
        regions = found.masks.read(year, found.masks.declared)[0]
        again = np.zeros(SHAPE, np.uint8)
        for region, value in zip(regions, found.masks.declared.order, strict=True):
            again[region > 0] = value
        assert np.array_equal(again, stored)


def test_one_case_of_brats_can_be_given_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = brats(tmp_path / "BraTS2021_00000")
    assert list(listing(folder).cases) == ["BraTS2021_00000"]
    monkeypatch.chdir(folder)
    assert list(listing(Path()).cases) == ["BraTS2021_00000"]


def test_time_points_of_a_patient_stay_together(tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00003-000"):
        brats(tmp_path / name, words=NEW, join="-")
    groups = {name: case.group for name, case in listing(tmp_path).cases.items()}
    assert groups["BraTS-GLI-00000-000"] == groups["BraTS-GLI-00000-001"] == "BraTS-GLI-00000"
    assert groups["BraTS-GLI-00003-000"] == "BraTS-GLI-00003"


def test_cases_of_brats_without_labels_are_for_testing_if_others_have_them(tmp_path: Path) -> None:
    for name in ("TrainingData/BraTS2021_00000", "TrainingData/BraTS2021_00002", "ValidationData/BraTS2021_00001"):
        brats(tmp_path / name)
    (tmp_path / "ValidationData" / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    found = listing(tmp_path)
    assert parts(found) == {"BraTS2021_00000": "", "BraTS2021_00001": "test", "BraTS2021_00002": ""}
    assert source(tmp_path).info.names("test") == ["BraTS2021_00001"]
    alone = listing(tmp_path / "ValidationData")
    assert parts(alone) == {"BraTS2021_00001": ""}
    assert not alone.masks.names


def test_a_missing_sequence_is_named(tmp_path: Path) -> None:
    folder = brats(tmp_path / "BraTS2021_00000")
    (folder / "BraTS2021_00000_t1ce.nii.gz").unlink()
    with pytest.raises(
        DataError, match=r"_00000: expected BraTS2021_00000_t1ce\.nii\.gz .*; found .*_flair\.nii\.gz, "
    ):
        listing(tmp_path)
    new = brats(tmp_path / "new" / "BraTS-GLI-00000-000", words=NEW, join="-")
    (new / "BraTS-GLI-00000-000-t2f.nii.gz").unlink()
    with pytest.raises(DataError, match=r"expected BraTS-GLI-00000-000-t2f\.nii\.gz .*; found .*-t2w\.nii\.gz"):
        listing(tmp_path / "new")


def test_a_case_whose_files_are_named_otherwise_is_not_passed_over(tmp_path: Path) -> None:
    brats(tmp_path / "BraTS2021_00000")
    brats(tmp_path / "BraTS2021_00002").rename(tmp_path / "BraTS2021_00003")
    with pytest.raises(
        DataError, match=r"_00003: expected BraTS2021_00003_t1\.nii\.gz .*; found BraTS2021_00002_flair"
    ):
        listing(tmp_path)


def test_releases_with_other_labels_are_not_mixed(tmp_path: Path) -> None:
    brats(tmp_path / "BraTS2021_00000")
    brats(tmp_path / "BraTS-GLI-00000-000", words=NEW, join="-")
    with pytest.raises(DataError, match="expected BraTS cases of one kind; found BraTS2021_00000, .* BraTS-GLI-00000"):
        listing(tmp_path)


def test_a_file_that_is_there_twice_is_named(tmp_path: Path) -> None:
    folder = brats(tmp_path / "BraTS2021_00000")
    volume(folder / "BraTS2021_00000_t2.nii", 3)
    with pytest.raises(DataError, match=r"expected one file for t2; found .*_t2\.nii and .*_t2\.nii\.gz"):
        listing(tmp_path)
    brats(tmp_path / "again" / "BraTS2021_00002")
    brats(tmp_path / "BraTS2021_00002")
    (folder / "BraTS2021_00000_t2.nii").unlink()
    with pytest.raises(DataError, match="both named 'BraTS2021_00002'"):
        listing(tmp_path)


def test_the_labels_that_were_published_under_another_name_are_found(tmp_path: Path) -> None:
    folder = brats(tmp_path / "BraTS20_Training_355", ending=".nii")
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    assert listing(tmp_path).masks.files("BraTS20_Training_355") == [folder / "W39_1998.09.19_Segm.nii"]


@pytest.mark.parametrize("year", ["BraTS2021", "BraTS-GLI"])
def test_labels_of_brats_can_be_taken_as_they_were_drawn(tmp_path: Path, year: str) -> None:
    new = year == "BraTS-GLI"
    names = [f"{year}-00000-000", f"{year}-00002-000"] if new else [f"{year}_00000", f"{year}_00002"]
    for name in names:
        brats(tmp_path / name, words=NEW if new else OLD, join="-" if new else "_")
    opened = source(tmp_path, "brats-labels", test_fraction=0.0)
    assert (opened.info.layout, opened.info.labels.task) == ("brats-labels", "exclusive")
    assert opened.info.labels.label_values == ((1, 2, 3) if new else (1, 2, 4))
    assert opened.info.labels.classes == ("background", "necrotic core", "oedema", "enhancing tumour")
    assert opened.load(f"{names[0]}/0001").mask[0, :, :, 1].argmax(axis=0).tolist() == [3, 2, 1, 0]


def test_a_label_that_brats_does_not_have_is_named(tmp_path: Path) -> None:
    for name in ("BraTS2021_00000", "BraTS2021_00002"):
        volume(brats(tmp_path / name) / f"{name}_seg.nii.gz", labels(4))
    with pytest.raises(DataError, match=r"_seg\.nii\.gz: mask value 3 has no meaning; .* WT 1/2/4, TC 1/4, ET 4"):
        source(tmp_path, test_fraction=0.0).load("BraTS2021_00000/0000")


def test_folders_of_other_data_are_not_searched_for_brats(tmp_path: Path, folder: Path) -> None:
    brats(folder / "more" / "BraTS2021_00000")
    assert detect(folder) == "folder"
    assert detect(folder / "more") == "brats"
    brats(tmp_path / "a" / "b" / "c" / "d" / "BraTS2021_00000")
    assert not matches("brats", tmp_path / "a")


@pytest.mark.parametrize("axes", [2, 3])
def test_slices_of_the_authors_loader_are_cases_of_their_patient(tmp_path: Path, axes: int) -> None:
    brats_slices(tmp_path / "training" / "brats_train_001", "brats_train_001", (80, 81), axes=axes)
    for number in (90, 123):  # the authors' own: a folder per slice
        brats_slices(tmp_path / "training" / f"slice{number}", "brats_train_002", (number,), axes=axes)
    brats_slices(tmp_path / "testing" / "slice1000", "brats_train_003", (7,), axes=axes)
    found = listing(tmp_path)
    assert found.layout == "brats-slices"
    assert {name: (case.part, case.group) for name, case in found.cases.items()} == {
        "brats_train_001_80": ("train", "brats_train_001"),
        "brats_train_001_81": ("train", "brats_train_001"),
        "brats_train_002_90": ("train", "brats_train_002"),
        "brats_train_002_123": ("train", "brats_train_002"),
        "brats_train_003_7": ("test", "brats_train_003"),
    }
    opened = source(tmp_path)
    assert (opened.info.channels, opened.info.channel_files, opened.info.labels.classes) == (4, 4, ("WT", "TC", "ET"))
    assert opened.info.slices["brats_train_002_123"] == ("brats_train_002_123/0000",)
    case = opened.load("brats_train_002_123/0000")
    assert case.image.shape == (4, 5, 6)
    assert case.image[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert case.mask[0, :, :, 2].tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert inspect_folder(tmp_path, DataConfig()).ok


def test_a_slice_that_lacks_a_sequence_is_named(tmp_path: Path) -> None:
    brats_slices(tmp_path / "case", "brats_train_001", (80, 81))
    (tmp_path / "case" / "brats_train_001_flair_81_w.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case: expected brats_train_001_flair_81.*\.nii\.gz .*; found .*_flair_80_w"):
        listing(tmp_path)


def test_slices_without_labels_are_for_testing_if_others_have_them(tmp_path: Path) -> None:
    brats_slices(tmp_path / "case", "brats_train_001", (80, 81))
    (tmp_path / "case" / "brats_train_001_seg_81_w.nii.gz").unlink()
    assert parts(listing(tmp_path)) == {"brats_train_001_80": "", "brats_train_001_81": "test"}


def test_real_cases_of_brats_are_understood(real_data: object, tmp_path: Path) -> None:
    names = ("BraTS2021_00000", "BraTS2021_01201")
    assert detect(real_data("brats2021")) == "brats"
    for name in names:
        (tmp_path / name).symlink_to((real_data("brats2021") / name).resolve())
    (tmp_path / "split.csv").write_text(
        "id,split\n" + "".join(f"{n},{p}\n" for n, p in zip(names, ("train", "val"), strict=True))
    )
    opened = open_source(tmp_path, DataConfig(image_size=64))
    assert (opened.info.plane, opened.info.channels) == ("axial", 4)
    case = opened.load("BraTS2021_00000/0077")
    whole, core, enhancing = case.mask[0]
    assert (whole >= core).all()
    assert (core >= enhancing).all()
    assert whole.sum() > core.sum() > enhancing.sum() > 0
    assert case.image.shape == (4, 240, 240)
    assert len({tuple(row) for row in case.intensity.round(2).tolist()}) == 4  # four sequences, none twice
