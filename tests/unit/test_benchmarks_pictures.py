"""Published pictures: ISIC and LIDC as they unpack, and what holds for each entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.open import detect, list_cases, matches
from medsegdiff.errors import DataError
from tests.makers import write_png
from tests.pictures import (
    ISIC,
    LESION,
    SIZE,
    box,
    make_challenge,
    make_ddti,
    make_isic,
    make_lidc,
    make_rated,
    make_tn3k,
    open_pictures,
    photograph,
)

NAMES = ("isic2016", "isic2017", "isic2018", "refuge2", "tn3k", "ddti", "tnmix", "lidc")


@pytest.mark.parametrize("name", list(ISIC))
def test_isic_has_its_official_parts_and_one_lesion(tmp_path: Path, name: str) -> None:
    parts = make_isic(tmp_path, name)
    for folder, _ in ISIC[name].values():
        write_png(tmp_path / folder / "ISIC_0000000_superpixels.png", np.zeros((*SIZE, 3), np.uint8))
        (tmp_path / folder / f"{folder}_metadata.csv").write_text("image_id,age_approximate,sex\n")
        (tmp_path / folder / "ATTRIBUTION.txt").write_text("")
    found = open_pictures(tmp_path)
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == (name, "binary", ("lesion",))
    assert {case: files.part for case, files in found.listing.cases.items()} == parts
    assert sorted(found.info.names("test")) == [case for case, part in parts.items() if part == "test"]
    case = found.load("ISIC_0000000")
    assert case.image.shape == (3, *SIZE)
    assert np.array_equal(case.mask, LESION[None, None] > 0)


def test_isic_of_the_authors_follows_their_tables(tmp_path: Path) -> None:
    """``Train/`` and ``Test/`` around the folders, and a table whose second and third column are paths."""
    make_isic(tmp_path, "isic2016", around={"train": "Train", "test": "Test"})
    images, masks = ISIC["isic2016"]["train"]
    other = box(slice(0, 3), slice(0, 3))
    write_png(tmp_path / "Train" / masks / "corrected.png", other)
    (tmp_path / "Train" / f"{masks}.csv").write_text(
        f",img,seg\n0,{images}/ISIC_0000000.jpg,{masks}/ISIC_0000000_Segmentation.png\n"
        f"1,{images}/ISIC_0000002.jpg,{masks}/corrected.png\n"
    )
    found = open_pictures(tmp_path)
    assert sorted(found.info.split) == ["ISIC_0000000", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004", "ISIC_0000005"]
    assert found.listing.unlisted == ("ISIC_0000001",)
    assert np.array_equal(found.load("ISIC_0000002").mask[0, 0], other > 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            ",img,seg\n0,a/ISIC_1.jpg,b/ISIC_1.png\n",
            r"expected the files that it names; found all but 2: a/ISIC_1\.jpg",
        ),
        ("image;mask\na;b\n", r"expected the columns number, image and mask; found \['image;mask'\]"),
        ("", "expected the columns number, image and mask; found nothing"),
    ],
)
def test_a_table_of_isic_that_can_not_be_followed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    make_isic(tmp_path, "isic2016")
    (tmp_path / "ISBI2016_ISIC_Part1_Test_GroundTruth.csv").write_text(text)
    with pytest.raises(DataError, match=rf"Test_GroundTruth\.csv: {words}"):
        open_pictures(tmp_path)


def test_isic_tells_what_it_expects(tmp_path: Path) -> None:
    make_isic(tmp_path, "isic2017")
    masks = tmp_path / "ISIC-2017_Training_Part1_GroundTruth"
    masks.rename(tmp_path / "masks")
    with pytest.raises(
        DataError, match=r"expected the masks of ISIC-2017_Training_Data in ISIC-2017_Training_Part1_.*; found .*masks/"
    ):
        open_pictures(tmp_path)
    (tmp_path / "masks").rename(masks)
    write_png(masks / "ISIC_0000001_Segmentation.png", box(slice(2, 9), slice(5, 25), 90))
    with pytest.raises(DataError, match=r"ISIC_0000001_Segmentation\.png: mask value 90 has no meaning"):
        open_pictures(tmp_path).load("ISIC_0000001")


def test_test_cases_may_have_no_masks_but_validation_cases_must(tmp_path: Path) -> None:
    make_isic(tmp_path, "isic2018")
    (tmp_path / "ISIC2018_Task1_Test_GroundTruth").rename(tmp_path / "secret")
    found = open_pictures(tmp_path)
    assert len(found.info.names("test")) == 3
    assert "ISIC_0000006" not in found.masks.names
    (tmp_path / "ISIC2018_Task1_Validation_GroundTruth").rename(tmp_path / "lost")
    with pytest.raises(DataError, match="expected the masks of ISIC2018_Task1-2_Validation_Input"):
        open_pictures(tmp_path)


def test_two_years_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    make_isic(tmp_path, "isic2016")
    make_isic(tmp_path, "isic2018")
    with pytest.raises(DataError, match=r"looks like each of isic2016, isic2018.*data\.layout"):
        open_pictures(tmp_path)
    assert open_pictures(tmp_path, layout="isic2018").info.layout == "isic2018"


def test_a_split_file_overrides_the_official_split(tmp_path: Path) -> None:
    make_isic(tmp_path, "isic2016")
    (tmp_path / "split.csv").write_text("id,split\nISIC_0000000,test\nISIC_0000001,val\nISIC_0000005,train\n")
    found = open_pictures(tmp_path)
    assert found.info.split == {"ISIC_0000000": "test", "ISIC_0000001": "val", "ISIC_0000005": "train"}
    assert found.listing.unlisted == ("ISIC_0000002", "ISIC_0000003", "ISIC_0000004")


@pytest.mark.parametrize("flat", [False, True])
def test_lidc_has_four_raters_and_its_split_by_patient(tmp_path: Path, flat: bool) -> None:
    make_lidc(tmp_path, flat=flat)
    found = open_pictures(tmp_path)
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == ("lidc", "binary", ("nodule",))
    assert found.info.raters == ("rater1", "rater2", "rater3", "rater4")
    assert found.info.names("val") == ["LIDC-IDRI-0003_z-105.0_c0", "LIDC-IDRI-0003_z-105.0_c1"]
    assert found.info.names("test") == ["LIDC-IDRI-0004_z-105.0_c0", "LIDC-IDRI-0004_z-105.0_c1"]
    assert len(found.info.names("train")) == 4
    assert {case.group for case in found.listing.cases.values()} == {f"LIDC-IDRI-000{n}" for n in (1, 2, 3, 4)}
    mask = found.load("LIDC-IDRI-0001_z-105.0_c1").mask
    assert mask.shape == (4, 1, *SIZE)
    assert mask[:, 0, 3, 5:].sum(axis=1).tolist() == [0, 1, 2, 3] == mask.sum(axis=(1, 2, 3)).tolist()


def test_lidc_tells_what_it_expects(tmp_path: Path) -> None:
    make_lidc(tmp_path, flat=False)
    (tmp_path / "train" / "gt").rename(tmp_path / "train" / "masks")
    with pytest.raises(
        DataError, match=r"train: expected the masks .* train/gt or train/lesions, .*_l0\.png .*; found images/, masks/"
    ):
        open_pictures(tmp_path)
    with pytest.raises(DataError, match=r"expected \{train,val,test\}/images/LIDC-IDRI-0001/.*; found nothing"):
        (tmp_path / "none").mkdir()
        list_cases(tmp_path / "none", DataConfig(layout="lidc"))


MAKERS = {
    **{name: lambda root, name=name: make_isic(root, name) for name in ISIC},
    "refuge2": make_challenge,
    "refuge2 rated": make_rated,
    "tn3k": make_tn3k,
    "ddti": make_ddti,
    "tnmix": lambda root: (make_tn3k(root / "tn3k"), make_ddti(root / "ddti")),
    "lidc": lambda root: make_lidc(root, flat=False),
    "lidc flat": lambda root: make_lidc(root, flat=True),
}


@pytest.mark.parametrize("made", list(MAKERS))
def test_each_is_detected_and_taken_for_no_other(tmp_path: Path, made: str) -> None:
    MAKERS[made](tmp_path)
    name = made.split()[0]
    assert detect(tmp_path) == name
    assert [other for other in NAMES if matches(other, tmp_path)] == [name]
    inspected = inspect_folder(tmp_path, DataConfig(image_size=32))
    assert inspected.problems == []
    assert list(inspected.labels) == list(DATASETS[name].facts["classes"])
    assert inspected.leaks == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_data_set_is_not_detected_and_refused_in_words(tmp_path: Path, folder: Path, name: str) -> None:
    file = tmp_path / "file.txt"
    file.write_text("")
    assert not any(matches(name, path) for path in (tmp_path, file, file / "within", tmp_path / "no", folder))
    for path, found in ((folder, "images/, masks/"), (tmp_path / "no", "no such folder")):
        with pytest.raises(DataError, match=f"expected .*; found {found}"):
            list_cases(path, DataConfig(layout=name))


@pytest.mark.parametrize("name", NAMES)
def test_each_tells_of_itself(name: str) -> None:
    facts = DATASETS[name].facts
    assert facts["kind"] == "benchmark"
    assert {"task", "classes", "licence", "home", "paper", "layout"} <= set(facts)
    assert all(facts[key] for key in ("task", "classes", "licence", "home", "layout"))


def test_images_of_similar_folders_are_not_lidc(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        photograph(tmp_path / part / "images" / "a.png")
        write_png(tmp_path / part / "gt" / "a_l0.png", LESION)
    assert detect(tmp_path) != "lidc"
