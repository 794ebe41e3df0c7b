"""What is understood of names alone: images, masks, parts, groups; what is left out, what is doubted."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.config.data import DataConfig
from medsegdiff.data.layouts.trees.reading import Reading, read_tree
from medsegdiff.io.listing import Reason
from tests.trees import TREES


def read(paths: Sequence[str], **asked: str) -> Reading:
    return read_tree(paths, DataConfig(**asked))


def pairs(reading: Reading) -> dict[str, list[str]]:
    """Image → masks."""
    return {case.image: sorted(path for paths in case.masks.values() for path in paths) for case in reading.cases}


def flat(files: Mapping[str, Sequence[str]]) -> list[str]:
    return [*files, *(path for masks in files.values() for path in masks)]


def names(reading: Reading) -> dict[str, str]:
    return {case.image: case.name for case in reading.cases}


@pytest.mark.parametrize("name", TREES)
def test_each_tree_is_understood_whole(name: str) -> None:
    files = TREES[name]()
    found = read(flat(files))
    assert pairs(found) == files
    assert not found.doubts
    assert not found.left_out
    assert found.kind == "flat"
    assert len({case.name for case in found.cases}) == len(files)


PAIRS = {
    "words after": ("a/{}.png", "a/{}_segmentation.png"),
    "another word": ("{}.jpg", "{}_gt.png"),
    "words before": ("{}.png", "mask_{}.png"),
    "words on both": ("{}_image.png", "{}_label.png"),
    "no gap": ("img{}.png", "mask{}.png"),
    "spaces and brackets": ("scans of all/{} (a b).png", "annotations/{} (a b).png"),
    "capital letters": ("IMAGES/{}.PNG", "Masks/{}_MASK.tif"),
    "two words": ("Original/{}.tif", "Ground Truth/{}.tif"),
    "camels": ("trainingImages/{}.png", "trainingGroundTruth/{}_GroundTruth.png"),
    "parts in names of folders": ("train_images/{}.png", "train_masks/{}.png"),
    "parts below": ("images/val/{}.png", "labels/val/{}.png"),
    "official names": ("ISIC_Training_Input/{}.jpg", "ISIC_Training_GroundTruth/{}_segmentation.png"),
    "microscopy": ("img/{}.ome.tif", "gt/{}.ome.tif"),
    "another format": ("img/{}.png", "gt/{}.ome.tif"),
    "volumes": ("{}/imaging.nii.gz", "{}/segmentation.nii.gz"),
    "series": ("images/{}/", "labels/{}.nii.gz"),
    "a folder each": ("{}/scan.png", "{}/mask.png"),
    "a topic around": ("Lung Segmentation/CXR_png/{}.png", "Lung Segmentation/masks/{}_mask.png"),
    "no word for images": ("photographs/{}.png", "masks/{}.png"),
    "a topic around all": ("Segmentations/{}.png", "Segmentations/{}_mask.png"),
    "numbered folders": ("scan_{}/raw.png", "scan_{}/label.png"),
    "masks among images": ("images/{}.png", "images/masks/{}.png"),
    "pairs in a folder of images": ("images/{}.png", "images/{}_seg.png"),
    "another word in a folder each": ("p{0}/p{0}_ct.nii.gz", "p{0}/p{0}_seg.nii.gz"),
    "a folder of masks for each image": ("images/{}.png", "masks/{}/0.png"),
    "a numbered folder of masks": ("images/{}.tif", "manual1/{}.tif"),
    "a folder for each label": ("label_{}/image.png", "label_{}/label.png"),
    "a part beside its masks": ("train/{}.jpg", "train_masks/{}_mask.png"),
    "with the ending of the image": ("img/{}.jpg", "masks/{}.jpg_mask.png"),
    "a word between": ("v/frame_{}.png", "v/frame_mask_{}.png"),
    "images by kind, masks in one folder": ("images/k{0}/{0}.png", "masks/{0}.png"),
    "images in a part, masks in one folder": ("train_images/{}.png", "masks/{}_mask.png"),
    "sub-folders named as masks": ("images/target_{0}/{0}.png", "masks/target_{0}/{0}.png"),
    "a short word": ("{}.png", "{}_msk.png"),
    "two ways to write an umlaut": ("bilder/Z\u00e4hne {}.png", "masks/Za\u0308hne {}.png"),
}


@pytest.mark.parametrize(("image", "mask"), PAIRS.values(), ids=PAIRS)
def test_names_that_people_give_are_understood(image: str, mask: str) -> None:
    files = {image.format(number): [mask.format(number)] for number in (11, 12, 13)}
    found = read(flat(files))
    assert pairs(found) == files
    assert (found.doubts, found.left_out) == ((), {})


def test_folders_name_the_parts() -> None:
    found = read(flat(TREES["in_parts"]()))
    assert {case.image.split("/")[0]: case.part for case in found.cases} == {
        "Train": "train",
        "Val": "val",
        "Test": "test",
    }
    assert found.parts == "parts by folder: 8 train, 4 val, 4 test"
    assert {case.part for case in read(["stage1_train/images/a.png", "stage1_test/images/b.png"]).cases} == {
        "train",
        "test",
    }


def test_what_becomes_of_parts_that_no_folder_names_is_told() -> None:
    tested = read(["img/a.png", "img/b.png", "gt/a.png", "gt/b.png", "test_img/c.png"])
    assert tested.parts == "parts by folder: 1 test; the other 2 are train; val is drawn from train"
    for both in ("trainval", "TrainVal"):
        found = read([f"{both}/images/a.png", f"{both}/masks/a.png", "Val/images/b.png", "Val/masks/b.png"])
        assert found.parts == "parts by folder: 1 train, 1 val"
    assert read(["img/a.png", "gt/a.png"]).parts == ""


def test_a_part_beside_another_that_holds_images_holds_images_too() -> None:
    found = read(["train/a.jpg", "train_masks/a_mask.png", "test/b.jpg"])
    assert {case.image: (case.part, bool(case.masks)) for case in found.cases} == {
        "train/a.jpg": ("train", True),
        "test/b.jpg": ("test", False),
    }
    assert "test, train are taken for images: masks of the same names lie beside them or another" in found.understood[1]


def test_pairs_side_by_side_are_images_beside_folders_of_images() -> None:
    here = ["old/a.png", "old/a_mask.png", "new/img/b.png", "new/labels/b.png", "old/cover.png"]
    found = read(here)
    assert pairs(found) == {"old/a.png": ["old/a_mask.png"], "new/img/b.png": ["new/labels/b.png"]}
    assert found.left_out == {"old/cover.png": Reason.STRAY}
    assert [line.split(" is ")[0] for line in found.understood[:2]] == ["old/a.png", "new/img/b.png"]
    assert set(pairs(read(here, image_dir="new/img"))) == {"new/img/b.png"}


def test_names_keep_what_tells_cases_apart() -> None:
    assert set(names(read(flat(TREES["side_by_side"]()))).values()) == {
        f"{kind} ({i})" for kind in ("benign", "malignant") for i in range(5)
    }
    parts = names(read(flat(TREES["in_parts"]())))
    assert parts["Train/Images/north/x0.png"] == "train-north-x0"
    assert names(read(["Train/images/north/a.png", "Test/images/north/b.png"])) == {
        "Train/images/north/a.png": "north-a",
        "Test/images/north/b.png": "north-b",
    }
    assert "0c0ffee" in names(read(flat(TREES["a_folder_each"]()))).values()
    assert names(read(["p1/scan.nii.gz", "p1/mask.nii.gz"])) == {"p1/scan.nii.gz": "p1"}


def test_names_take_as_many_words_as_tell_cases_apart() -> None:
    slices = read([f"wrapped/{p}/{i}{m}.png" for p in (1, 2, 12) for i in (1, 2, 12) for m in ("", "_mask")])
    assert sorted(names(slices).values()) == ["1", "1-12", "1-2", "12", "12-1", "12-2", "2", "2-1", "2-12"]
    assert {case.group for case in slices.cases} == {"1", "2", "12"}
    close = names(read([f"img/{path}{end}" for path in ("a/a-b", "a/b", "a/c") for end in (".png", "_mask.png")]))
    assert sorted(close.values()) == ["a-a-b", "a-b", "a-c"]


def test_masks_of_one_image_are_united_where_their_number_differs() -> None:
    found = read(flat(TREES["side_by_side"]()))
    case = next(case for case in found.cases if case.name == "benign (1)")
    assert case.masks == {"": ("benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png")}
    assert any(line.startswith("1 of 10 images have up to 2 masks") for line in found.understood)


def test_masks_of_one_image_are_doubted_where_each_has_as_many() -> None:
    paths = [f"{i}.png" for i in "abc"] + [f"{i}_mask_{n}.png" for i in "abc" for n in (1, 2)]
    assert "Each of the 3 images has 2 masks: a.png has a_mask_1.png, a_mask_2.png" in read(paths).doubts[0]
    raters, united, structures = (read(paths, mask_folders=asked) for asked in ("raters", "instances", "structures"))
    assert (raters.doubts, raters.kind, set(raters.cases[0].masks)) == ((), "raters", {"rater1", "rater2"})
    assert (united.doubts, united.kind, list(united.cases[0].masks)) == ((), "flat", [""])
    assert (structures.doubts, structures.kind, set(structures.cases[0].masks)) == ((), "structures", {"1", "2"})


def test_the_ending_of_an_image_in_the_name_of_its_mask_is_no_structure() -> None:
    found = read(["img/a.jpg", "img/b.jpg", "masks/a.jpg.png", "masks/b.jpg_mask.png"])
    assert (found.kind, pairs(found)["img/b.jpg"]) == ("flat", ["masks/b.jpg_mask.png"])


def test_sub_folders_of_masks_are_of_an_image_each_where_more_images_get_masks_so() -> None:
    images = [f"images/{i}.png" for i in range(1, 5)]
    each = {image: [f"masks/{i}/{n}.png" for n in range(1, 2 + i % 3)] for i, image in enumerate(images, start=1)}
    found = read(flat(each))
    assert (pairs(found), found.kind, found.doubts) == (each, "flat", ())
    assert "3 of 4 images have up to 3 masks, as images/2.png" in found.understood[1]
    raters = read([*images, *(f"masks/{n}/{i}.png" for n in (1, 2) for i in range(1, 5))])
    assert (raters.kind, set(raters.cases[0].masks)) == ("structures", {"1", "2"})
    assert "structures: 1, 2; if they drew the same, set data.mask_folders=raters" in raters.understood


def test_words_behind_masks_are_structures_or_raters() -> None:
    cups = read(["images/a.png", "images/b.png", *(f"masks/{i}_{n}.png" for i in "ab" for n in ("disc", "cup"))])
    assert (cups.kind, set(cups.cases[0].masks)) == ("structures", {"disc", "cup"})
    below = read(["Train/images/a.png", *(f"Train/masks/{n}/a.png" for n in ("disc", "cup"))])
    assert (below.kind, set(below.cases[0].masks)) == ("structures", {"disc", "cup"})
    raters = read(["img/a.png", "labels/expert_b/a.png", "labels/expert_c/a.png"])
    assert (raters.kind, set(raters.cases[0].masks)) == ("raters", {"expert_b", "expert_c"})
    each = read([f"{i}/{name}.png" for i in ("p", "q") for name in ("image", "masks/liver", "masks/tumour")])
    assert (each.kind, set(each.cases[0].masks)) == ("structures", {"liver", "tumour"})


def test_two_folders_of_masks_are_doubted() -> None:
    paths = [f"{folder}/{i}.png" for folder in ("images", "masks", "labels") for i in "abc"]
    assert "data.mask_dir=labels or masks; all of them with data.mask_folders=raters" in read(paths).doubts[0]
    one = read(paths, mask_dir="masks")
    assert pairs(one) == {f"images/{i}.png": [f"masks/{i}.png"] for i in "abc"}
    assert one.left_out["labels/a.png"] == Reason.ASIDE
    assert one.doubts == ()
    both = read(paths, mask_folders="structures")
    assert (both.doubts, both.kind, set(both.cases[0].masks)) == ((), "structures", {"masks", "labels"})


def test_a_field_of_view_is_not_taken_for_the_mask_in_silence() -> None:
    here = [f"training/{path}.tif" for path in ("images/21_training", "1st_manual/21_manual1", "mask/21_training_mask")]
    assert "data.mask_dir=1st_manual or mask" in read(here).doubts[0]
    assert pairs(read(here, mask_dir="1st_manual")) == {here[0]: [here[1]]}
    numbered = ["images/01.JPG", "manual1/01.tif", "mask/01_mask.tif"]
    assert "data.mask_dir=manual1 or mask" in read(numbered).doubts[0]
    odd = read(["images/a.png", "masks/a.png", "ground_truth/first.png"])
    assert (
        "The masks in ground_truth belong to no image, as ground_truth/first.png; those in masks do." in odd.doubts[0]
    )


def test_two_words_for_masks_are_doubted() -> None:
    found = read(["a.png", "a_mask.png", "a_seg.png"])
    assert "1 images have masks of several kinds: a.png has a_mask.png, a_seg.png" in found.doubts[0]


def test_sub_folders_of_which_no_image_has_two_are_doubted() -> None:
    here = [f"{of}{kind}{i}.png" for kind in ("benign", "malignant") for i in "ab" for of in ("img/", f"masks/{kind}/")]
    found = read(here)
    assert "img/benignb.png of benign, img/malignantb.png of malignant" in found.doubts[0]
    assert "data.mask_folders=instances if all masks show one structure" in found.doubts[0]
    united = read(here, mask_folders="instances")
    assert (united.kind, united.doubts, len(united.cases)) == ("flat", (), 4)


def test_a_mask_of_a_name_that_several_images_have_belongs_to_none() -> None:
    found = read(["images/a/1.png", "images/b/1.png", "images/b/2.png", "masks/1.png", "masks/2.png"])
    assert pairs(found) == {"images/a/1.png": [], "images/b/1.png": [], "images/b/2.png": ["masks/2.png"]}
    assert found.left_out == {"masks/1.png": Reason.UNPAIRED}
    assert (
        "masks/1.png may be the mask of images/a/1.png or images/b/1.png."
        in read(["images/a/1.png", "images/b/1.png", "masks/1.png"]).doubts[0]
    )
    raters = read([*(f"img/{i}.png" for i in (1, 2, 3)), *(f"masks/{n}/{i}.png" for n in (1, 2) for i in (1, 2, 3, 9))])
    assert set(raters.left_out) == {"masks/1/9.png", "masks/2/9.png"}


def test_words_behind_some_masks_and_not_others_are_doubted() -> None:
    for odd in (["a_mask_old.png"], ["b_mask_expert1.png"]):
        found = read(["a.png", "b.png", "a_mask.png", "b_mask_x.png", *odd])
        assert "Say what they are with data.mask_folders=raters" in found.doubts[0]
    assert read(["a.png", "b.png", "a_mask_x.png", "b_mask_x.png"]).doubts == ()


def test_two_folders_of_images_are_doubted() -> None:
    paths = [f"{folder}/{i}.png" for folder in ("images", "scans", "masks") for i in "abc"]
    assert "images/a.png and scans/a.png may both be the image of one case" in read(paths).unclear
    one = read(paths, image_dir="scans")
    assert (pairs(one), one.unclear) == ({f"scans/{i}.png": [f"masks/{i}.png"] for i in "abc"}, "")
    assert set(one.left_out) == {f"images/{i}.png" for i in "abc"}


def test_one_image_in_two_formats_is_doubted() -> None:
    here = [
        f"{form}/{kind}/{i}.{form}" for form in ("png", "tif") for kind in ("Original", "Ground Truth") for i in "ab"
    ]
    found = read(here)
    assert "png/Original/a.png and tif/Original/a.tif may be one image in two formats." in found.unclear
    assert "Set data.image_dir=png/Original or data.image_dir=tif/Original." in found.unclear
    one = read(here, image_dir="png/Original")
    assert (set(pairs(one)), one.unclear, one.doubts) == ({"png/Original/a.png", "png/Original/b.png"}, "", ())
    assert read([f"png/{kind}/{i}.png" for kind in ("img", "gt") for i in "ab"]).unclear == ""


def test_folders_of_other_names_are_those_that_the_user_says() -> None:
    paths = [f"{folder}/{i}.png" for folder in ("data/foo", "data/bar") for i in "abc"]
    found = read(paths, image_dir="foo", mask_dir="data/bar")
    assert pairs(found) == {f"data/foo/{i}.png": [f"data/bar/{i}.png"] for i in "abc"}
    assert found.left_out == {}


def test_what_lacks_a_partner_is_named() -> None:
    found = read(["images/a.png", "images/b.png", "masks/a.png", "masks/c.png", "masks/a_2.png", "cover.png"])
    assert pairs(found) == {"images/a.png": ["masks/a.png"], "images/b.png": []}
    assert found.left_out == {
        "cover.png": Reason.STRAY,
        **dict.fromkeys(("masks/a_2.png", "masks/c.png"), Reason.UNPAIRED),
    }
    beside = read(["cover.png", "k/a.png", "k/a_mask.png", "k/b.png"])
    assert pairs(beside) == {"k/a.png": ["k/a_mask.png"], "k/b.png": []}
    assert set(beside.left_out) == {"cover.png"}
    marked = read(["k/a_image.png", "k/a_mask.png", "k/a_overlay.png"])
    assert set(marked.left_out) == {"k/a_overlay.png"}
    apart = read(["a.png", "a_mask.png", "labels/1.png"])
    assert "The masks in labels belong to no image, as labels/1.png; those beside the images do." in apart.doubts[0]
    strangers = read(["img/a.png", "labels/1.png"])
    assert "No mask belongs to an image: labels/1.png is a mask, img/a.png an image" in strangers.doubts[0]


def test_numbered_sub_folders_are_groups_and_others_kinds() -> None:
    slices = [f"TCGA_{p}/TCGA_{p}_{i}{m}.tif" for p in (11, 12) for i in (1, 2) for m in ("", "_mask")]
    assert {case.group for case in read(slices).cases} == {"TCGA_11", "TCGA_12"}
    assert {case.group for case in read(slices, image_folders="kinds").cases} == {""}
    assert any("TCGA_11, TCGA_12 are taken for groups" in line for line in read(slices).understood)
    kinds = [path.replace("TCGA", "grade") for path in slices]
    assert {case.group for case in read(kinds).cases} == {""}
    assert {case.group for case in read(kinds, image_folders="groups").cases} == {"grade_11", "grade_12"}
    assert {case.group for case in read(flat(TREES["a_folder_each"]())).cases} == {""}
    assert any("image_folders=groups" in line for line in read(flat(TREES["side_by_side"]())).understood)


GROUPS = {
    "visits": ("{patient_01,patient_02,patient_03}/{2020-01,2020-02}", "patient_01 patient_02 patient_03"),
    "sessions": ("{sub-01,sub-02}/{ses-1,ses-2,ses-3}", "sub-01 sub-02"),
    "planes around": ("{ax,cor}/{patient_01,patient_02,patient_03}", "patient_01 patient_02 patient_03"),
    "years around": ("{2023,2024}/{patient_1,patient_2,patient_3}", "patient_1 patient_2 patient_3"),
    "numbers": ("{axial,coronal}/{01,02,03}", "01 02 03"),
    "numbers of visits": ("{ng,omar,ruiz}/{v1,v2}", "ng omar ruiz"),
    "centre in the name": (
        "{site1_patient07,site1_patient08,site2_patient07}",
        "site1_patient07 site1_patient08 site2_patient07",
    ),
    "number of centre and patient": (
        "{center_1_003,center_1_004,center_2_003}",
        "center_1_003 center_1_004 center_2_003",
    ),
    "centres around": (
        "{hospital_A,hospital_B}/{patient_00,patient_01}",
        "hospital_A/patient_00 hospital_A/patient_01 hospital_B/patient_00 hospital_B/patient_01",
    ),
    "centres around numbers": (
        "{site1,site2,site3}/{07,08}/{a,b}",
        "site1/07 site1/08 site2/07 site2/08 site3/07 site3/08",
    ),
    "centres around visits": (
        "{site1,site2}/{ng,omar,lee}/{v1,v2}",
        "site1/ng site1/omar site1/lee site2/ng site2/omar site2/lee",
    ),
    "scanners below": ("{patient_01,patient_02}/{scanner_a,scanner_b}", "patient_01 patient_02"),
    "letters": ("{patient_A,patient_B}", "patient_A patient_B"),
    "words": ("{patient_smith,patient_jones}", "patient_smith patient_jones"),
    "numbers of kinds": ("{grade_1,grade_2}", ""),
    "centres alone": ("{hospital_A,hospital_B}", ""),
    "kinds that begin with case": ("{case_positive,case_negative}", ""),
    "kinds that begin with sub": ("{sub-acute,sub-chronic}", ""),
    "kinds of names": ("{benign,malignant}/{smith,jones}", ""),
    "no folders": ("", ""),
}
ASKED = {
    "kinds around": (
        "{benign/smith,benign/jones,malignant/lee,malignant/kim}",
        "benign/smith benign/jones malignant/lee malignant/kim",
    ),
    "kinds around, a name in both": (
        "{benign/smith,benign/jones,malignant/lee,malignant/jones}",
        "benign/smith benign/jones malignant/lee malignant/jones",
    ),
    "kinds around and visits": (
        "{benign/smith,benign/jones,malignant/lee,malignant/kim}/{before,after}",
        "benign/smith benign/jones malignant/lee malignant/kim",
    ),
    "visits": ("{ng,omar}/{before,after}", "ng omar"),
    "kinds": ("{case_positive,case_negative}", "case_positive case_negative"),
    "numbers of kinds": ("{grade_1,grade_2}", "grade_1 grade_2"),
}


def grouped(folders: str, **asked: str) -> dict[str, str]:
    """Folder → group, where each of some folders (``{a,b}/{c,d}``) has three images."""
    chosen = [level.strip("{}").split(",") for level in re.split(r"(?<=})/", folders)]
    images = [f"images/{'/'.join(path)}/case_{i:03d}.png" for path in product(*chosen) for i in range(3)]
    images = [path.replace("//", "/") for path in images]
    found = read([*images, *(path.replace("images", "masks") for path in images)], **asked)
    assert {case.image for case in found.cases} == set(images)
    groups = {case.image.rpartition("/")[0]: case.group for case in found.cases}
    assert all(groups[case.image.rpartition("/")[0]] == case.group for case in found.cases)
    assert any("taken for groups" in line for line in found.understood) == any(groups.values())
    return groups


@pytest.mark.parametrize(("folders", "groups"), GROUPS.values(), ids=GROUPS)
def test_all_images_of_a_patient_are_one_group_however_folders_are_called(folders: str, groups: str) -> None:
    found = grouped(folders)
    assert set(found.values()) == (set(groups.split()) or {""})
    for folder, group in found.items():
        assert set(group.split("/")) <= set(folder.split("/")) or not group


@pytest.mark.parametrize(("folders", "groups"), ASKED.values(), ids=ASKED)
def test_folders_of_any_name_are_groups_where_they_are_asked_for(folders: str, groups: str) -> None:
    assert set(grouped(folders, image_folders="groups").values()) == set(groups.split())


@pytest.mark.parametrize("folders", [folders for folders, groups in GROUPS.values() if groups])
def test_who_asks_for_groups_gets_those_that_are_found_anyway(folders: str) -> None:
    assert grouped(folders, image_folders="groups") == grouped(folders)


def test_folders_called_as_patients_are_groups_without_a_number() -> None:
    for word in ("patient_A", "subjectA", "sub-a", "Case A", "pt_a"):
        images = [f"images/{word[:-1]}{p}/{i}.png" for p in "ABC" for i in (1, 2)]
        found = read([*images, *(path.replace("images", "masks") for path in images)])
        assert {case.group for case in found.cases} == {f"{word[:-1]}{p}" for p in "ABC"}
    kinds = [f"images/{kind}/{i}.png" for kind in ("case", "control") for i in (1, 2)]
    assert {case.group for case in read([*kinds, *(path.replace("images", "masks") for path in kinds)]).cases} == {""}


def test_one_sub_folder_around_all_images_is_neither_a_group_nor_a_kind() -> None:
    for folder in ("archive (1)", "Kvasir"):
        found = read([f"{folder}/{i}{mark}.png" for i in "abc" for mark in ("", "_mask")])
        assert {case.group for case in found.cases} == {""}
        assert len(found.understood) == 1


def test_names_that_differ_in_capital_letters_alone_are_two() -> None:
    found = read(["images/A.png", "images/a.png", "masks/A.png", "masks/a.png"])
    assert pairs(found) == {"images/A.png": ["masks/A.png"], "images/a.png": ["masks/a.png"]}


FAR_APART = {
    "masks in one folder": ("images/p{0}/x{0}.png", "masks/x{0}.png", "masks/y{0}.png"),
    "images without masks": ("p{0}/a.png", "p{0}/a_mask.png", "q{0}/a.png"),
    "masks in folders of their own": ("images/p{0}/x.png", "masks/p{0}/x.png", "masks/q{0}/x.png"),
}


@pytest.mark.parametrize("names", FAR_APART.values(), ids=FAR_APART)
def test_twice_as_many_files_are_twice_the_work(names: tuple[str, ...]) -> None:
    """By counting calls: each mask that is compared with each image would make four times as many."""

    def calls(count: int) -> int:
        seen = 0

        def note(frame: object, event: str, of: object) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        paths = [name.format(number) for number in range(count) for name in names]
        sys.setprofile(note)
        try:
            read(paths)
        finally:
            sys.setprofile(None)
        return seen

    calls(10)  # what is remembered
    assert calls(400) < 2.5 * calls(200)


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "a (1)",
        "mask",
        "masks",
        "Images",
        "img",
        "x_mask",
        "x_mask_1",
        "x",
        "Train",
        "test",
        "gt_a",
        "a_img",
        "é",
    ]
)
PATHS = st.builds(
    lambda folders, name, end: "/".join([*folders, name]) + end,
    st.lists(WORDS, max_size=3),
    WORDS,
    st.sampled_from([".png", ".jpg", ".nii.gz", "/"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PATHS, unique=True, max_size=12), st.randoms(use_true_random=False))
def test_each_file_is_one_image_or_one_mask_or_left_out_with_a_reason(paths: list[str], random: object) -> None:
    found = read(paths)
    images = [case.image for case in found.cases]
    masks = [path for case in found.cases for of_layer in case.masks.values() for path in of_layer]
    assert sorted([*images, *masks, *found.left_out]) == sorted(paths)
    assert all(found.left_out.values())
    assert all(len(of_layer) > 0 for case in found.cases for of_layer in case.masks.values())
    random.shuffle(paths)
    assert read(paths) == found
