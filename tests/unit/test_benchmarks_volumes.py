"""AMOS and BTCV in miniature, as they are published; what all volumetric data sets of the paper tell and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.open import detect, matches
from medsegdiff.errors import DataError
from tests.published import amos, btcv, labels, listing, parts, source, volume

VOLUMES = ("amos2022", "amos2022-mr", "btcv", "btcv-12", "brats", "brats-labels", "brats-slices")


@pytest.mark.parametrize("name", VOLUMES)
def test_an_entry_tells_of_its_data_set(name: str) -> None:
    facts = DATASETS[name].facts
    assert facts["kind"] == "benchmark"
    assert facts["task"] == ("regions" if name in ("brats", "brats-slices") else "exclusive")
    assert facts["home"].startswith("https://")
    assert all(facts[fact] for fact in ("licence", "layout", "classes"))
    assert "background" not in facts["classes"]


@pytest.mark.parametrize("name", VOLUMES)
def test_a_folder_of_another_kind_is_not_taken_and_is_told_what_was_expected(name: str, folder: Path) -> None:
    for path in (folder, folder / "images", folder / "images" / "case00.png", folder / "missing"):
        assert not matches(name, path)
    with pytest.raises(DataError, match=r"expected .*; found images/, masks/\."):
        listing(folder, name)
    with pytest.raises(DataError, match=r"expected .*; found no such folder\."):
        listing(folder / "missing", name)


def test_ct_scans_of_amos_are_taken_in_the_parts_of_the_challenge(tmp_path: Path) -> None:
    root = amos(tmp_path / "amos22")
    found = listing(root)
    assert found.layout == "amos2022"
    assert parts(found) == {
        "amos_0001": "train",
        "amos_0003": "test",
        "amos_0004": "train",
        "amos_0008": "val",
        "amos_0013": "val",
    }
    assert found.modalities == ("ct",)
    assert found.remarks == ("3 MR scans are left out; data.layout=amos2022-mr takes them instead",)
    assert parts(listing(tmp_path)) == parts(found)  # the folder around it
    opened = source(root)
    assert opened.info.labels.classes[0] == "background"
    assert (opened.info.labels.classes[4], opened.info.labels.classes[8], opened.info.labels.classes[15]) == (
        "gall bladder",
        "aorta",
        "prostate/uterus",
    )
    case = opened.load("amos_0008/0001")
    assert case.image.max() == 8
    assert (case.mask.sum(axis=1) == 1).all()
    assert inspect_folder(root, DataConfig()).ok


def test_mr_scans_of_amos_are_taken_when_asked_for(tmp_path: Path) -> None:
    found = listing(amos(tmp_path), "amos2022-mr")
    assert parts(found) == {"amos_0507": "train", "amos_0540": "test", "amos_0600": "val"}
    assert found.masks.names == ["amos_0507", "amos_0600"]
    assert (found.layout, found.modalities) == ("amos2022-mr", ("mr",))
    assert "5 CT scans are left out; data.layout=amos2022 " in found.remarks[0]


def test_a_folder_of_mr_scans_alone_says_how_they_are_taken(tmp_path: Path) -> None:
    volume(tmp_path / "imagesTr" / "amos_0507.nii.gz", 1)
    with pytest.raises(DataError, match=r"expected CT scans; found 1 MR .*data\.layout=amos2022-mr"):
        listing(tmp_path)
    assert list(listing(tmp_path, "amos2022-mr").cases) == ["amos_0507"]


def test_scans_of_amos_whose_labels_are_secret_are_for_testing(tmp_path: Path) -> None:
    found = listing(amos(tmp_path, validation=False))
    assert parts(found)["amos_0008"] == "test"
    assert source(tmp_path).info.names("test") == ["amos_0003", "amos_0008", "amos_0013"]
    assert len(source(tmp_path).info.names("val")) == 1  # drawn from the two that train


def test_what_is_wrong_with_amos_is_named(tmp_path: Path) -> None:
    root = amos(tmp_path)
    volume(root / "labelsVa" / "amos_0008.nii.gz", labels(16))
    with pytest.raises(DataError, match=r"amos_0008\.nii\.gz: mask value 16 .*; allowed are 0 … 15"):
        source(root).load("amos_0008/0001")
    (root / "labelsVa" / "amos_0008.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 5 images have no mask: amos_0008"):
        source(root)
    volume(root / "imagesTr" / "amos_0001.nii", 1)
    with pytest.raises(DataError, match="both named 'amos_0001'"):
        listing(root)


def test_amos_turned_into_another_layout_is_not_amos(tmp_path: Path) -> None:
    volume(tmp_path / "imagesTr" / "amos_0001_0000.nii.gz", 1)
    assert not matches("amos2022", tmp_path)


@pytest.mark.parametrize("below", ["", "RawData"])
def test_scans_of_btcv_are_taken_with_the_split_that_is_used_most(tmp_path: Path, below: str) -> None:
    btcv(tmp_path / below)
    found = listing(tmp_path)
    assert found.layout == "btcv"
    assert parts(found) == {
        "img0001": "val",
        "img0005": "train",
        "img0006": "train",
        "img0021": "train",
        "img0022": "val",
        "img0040": "train",
        "img0061": "test",
    }
    assert "TransUNet" in found.remarks[0]
    assert found.modalities == ("ct",)
    opened = source(tmp_path)
    assert len(opened.info.labels.classes) == 14
    assert opened.info.labels.classes[9:] == (
        "inferior vena cava",
        "portal and splenic veins",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
    )
    planes = [opened.load(item) for item in opened.info.slices["img0021"]]
    assert {plane.image.max() for plane in planes} == {21}
    assert sum(plane.mask for plane in planes)[0, 1:].sum(axis=(1, 2)).tolist() == [1] * 13
    assert not any(opened.load(item).mask[0, 1:].any() for item in opened.info.slices["img0040"])  # its own labels


def test_thirty_scans_of_btcv_are_split_into_18_and_12(tmp_path: Path) -> None:
    found = parts(listing(btcv(tmp_path, [*range(1, 11), *range(21, 41)])))
    counts = [list(found.values()).count(part) for part in ("train", "val", "test")]
    assert counts == [18, 12, 1]
    numbers = [int(name.removeprefix("img")) for name, part in found.items() if part == "val"]
    assert numbers == [1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38]


def test_the_paper_counts_both_adrenal_glands_as_one(tmp_path: Path) -> None:
    opened = source(btcv(tmp_path), "btcv-12")
    assert (opened.info.layout, len(opened.info.labels.classes)) == ("btcv-12", 13)
    assert opened.info.labels.classes[11:] == ("pancreas", "adrenal glands")
    masks = sum(opened.load(item).mask for item in opened.info.slices["img0005"])
    assert masks[0, 1:].sum(axis=(1, 2)).tolist() == [1] * 11 + [2]
    assert detect(tmp_path) == "btcv"


def test_a_split_file_overrides_the_parts(tmp_path: Path) -> None:
    root = btcv(tmp_path)
    (root / "split.csv").write_text("id,split\nimg0005,train\nimg0022,test\nimg0001.nii.gz,val\n")
    found = listing(root)
    assert parts(found) == {"img0001": "val", "img0005": "train", "img0022": "test"}
    assert found.unlisted == ("img0006", "img0021", "img0040", "img0061")
    assert not found.remarks


def test_the_cervix_of_the_same_challenge_is_not_btcv(tmp_path: Path) -> None:
    volume(tmp_path / "RawData" / "Training" / "img" / "0507688-Image.nii.gz", 1)
    assert not matches("btcv", tmp_path)
