"""What lies in the folders of a data set and is not used: it is told, and what is hidden is no data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert import convert
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.open import list_cases, open_source
from medsegdiff.data.scan import passed_over
from medsegdiff.errors import DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.pictures.cases import saved_rows
from tests.makers import write_png

DISC = np.zeros((8, 8), np.uint8)
DISC[2:6, 2:6] = 255


def dangle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent / "nowhere")


def test_an_image_that_is_left_out_is_told_and_a_problem_where_its_mask_waits(folder: Path, tmp_path: Path) -> None:
    dangle(folder / "images" / "case01.png")
    (folder / "images" / "case02.png").rename(folder / "images" / "case02.bmp")
    (folder / "images" / "ward").mkdir()
    (folder / "images" / "case03.png").rename(folder / "images" / "ward" / "case03.png")
    (folder / "images" / "case04.png").unlink()
    dangle(folder / "images" / "unlabelled.png")
    found = inspect_folder(folder, DataConfig())
    assert found.problems == [
        f"case01: the mask has no image, for {folder}/images/case01.png is a link that leads nowhere",
        f"case02: the mask has no image, for {folder}/images/case02.bmp is of a format that is not read",
        f"case03: the mask has no image, for {folder}/images/ward is a folder, which is not searched",
    ]
    line = (
        f"Left out of {folder}/images, 4 entries: case01.png, unlabelled.png (a link that leads nowhere); case02.bmp "
        "(of a format that is not read); ward (a folder, which is not searched)."
    )
    assert found.remarks == ["case04: the mask has no image", line]
    alone = "4 masks have no image and are not used: case01, case02, case03, case04."
    assert open_source(folder, DataConfig()).info.passed_over == (line, alone)
    done = convert(folder, tmp_path / "out", to="folder")
    assert done.passed_over == [line, alone]
    assert len(done.done) == 8


def test_a_mask_of_a_rater_that_is_left_out_is_told(folder: Path) -> None:
    for rater in ("rater1", "rater2"):
        shutil.copytree(folder / "masks", folder / rater)
    shutil.rmtree(folder / "masks")
    (folder / "masks" / "consensus").mkdir(parents=True)
    for rater in ("rater1", "rater2"):
        (folder / rater).rename(folder / "masks" / rater)
    dangle(folder / "masks" / "rater2" / "case05.png")
    told = passed_over(list_cases(folder, DataConfig()))
    assert len(told) == 1
    assert "case05.png (a link that leads nowhere)" in told[0]
    assert "consensus (a folder, which is not searched)" in told[0]


def test_folders_of_masks_that_contradict_each_other_are_not_guessed(folder: Path) -> None:
    for name in ("rater1", "rater2", "notes"):
        shutil.copytree(folder / "masks", folder / "all" / name)
    with pytest.raises(DataError, match="rater1, rater2 are named as raters, notes not. Say what all of them are"):
        mask_folder(folder / "all")
    assert mask_folder(folder / "all", kind="raters").kind == "raters"
    (folder / "manifest.csv").write_text(
        "id,image,mask_rater1,mask_notes\na,images/case00.png,masks/case00.png,masks/case00.png\n"
    )
    with pytest.raises(DataError, match="rater1 are named as raters, notes not"):
        list_cases(folder, DataConfig())


@pytest.mark.parametrize("name", [".backup", ".ipynb_checkpoints", "@eaDir", "__MACOSX"])
def test_what_is_hidden_is_neither_rater_nor_structure_nor_member(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder / "masks", folder / "masks" / name)
    assert inspect_folder(folder, DataConfig()).ok
    assert passed_over(list_cases(folder, DataConfig())) == []
    for member in ("00", "01", name):
        write_png(tmp_path / "out" / "members" / member / "masks" / "a.png", DISC)
    write_png(tmp_path / "out" / "masks" / "a.png", DISC)
    write_png(tmp_path / "references" / "a.png", DISC)
    assert evaluate(tmp_path / "out", tmp_path / "references").setup.members == 2


def test_hidden_folders_hold_no_cases_of_a_benchmark(tmp_path: Path) -> None:
    for number in range(3):
        image = tmp_path / "REFUGE-Training400" / "Glaucoma" / f"g{number}.jpg"
        write_png(image, DISC)
        write_png(image.parent / ".thumbnails" / f"small{number}.jpg", DISC)
        write_png(tmp_path / "Annotation-Training400" / "Disc_Cup_Masks" / f"g{number}.bmp", DISC)
    assert list(list_cases(tmp_path, DataConfig()).cases) == ["g0", "g1", "g2"]


def nnunet(root: Path, *, ending: str) -> Path:
    for number in range(4):
        write_png(root / "imagesTr" / f"c{number}_0000{ending}", DISC)
        write_png(root / "labelsTr" / f"c{number}{ending}", DISC // 255)
    told = {"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1}, "file_ending": ending.lower()}
    (root / "dataset.json").write_text(json.dumps(told))
    return root


def test_endings_of_nnunet_may_be_in_capitals(tmp_path: Path) -> None:
    root = nnunet(tmp_path, ending=".PNG")
    listing = list_cases(root, DataConfig())
    assert list(listing.cases) == listing.masks.names == ["c0", "c1", "c2", "c3"]
    write_png(root / "imagesTr" / "c0_0000.png", DISC)
    with pytest.raises(DataError, match="are the same channel of 'c0'"):
        list_cases(root, DataConfig())


def test_images_that_the_description_does_not_tell_of_are_told(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "nnunet", ending=".png")
    write_png(root / "imagesTs" / "t_0000.tif", DISC)
    dangle(root / "imagesTs" / "u_0000.png")
    (told,) = passed_over(list_cases(root, DataConfig()))
    assert told == (
        f"Left out of {root}/imagesTs, 2 entries: u_0000.png (a link that leads nowhere); "
        "t_0000.tif (dataset.json does not tell of it)."
    )
    dangle(root / "imagesTr" / "c0_0000.png")
    with pytest.raises(DataError, match=r"1 labels have no image: c0 .*Left out of .*c0_0000\.png, .*leads nowhere"):
        list_cases(root, DataConfig())
    pair = {"image": "./imagesTr/c1_0000.png", "label": "./labelsTr/c1.png"}
    msd = {"modality": {"0": "x"}, "labels": {"0": "background", "1": "a"}, "training": [pair]}
    (root / "dataset.json").write_text(json.dumps(msd))
    (told,) = passed_over(list_cases(root, DataConfig()))
    assert "c2_0000.png, c3_0000.png, t_0000.tif (dataset.json does not tell of it)" in told


def test_a_mark_that_tells_two_references_apart_is_part_of_their_names(tmp_path: Path) -> None:
    for part in ("references", "predictions"):
        for name in ("scan", "scan_seg", "other_mask"):
            write_png(tmp_path / part / f"{name}.png", DISC)
    scores = evaluate(tmp_path / "predictions", tmp_path / "references").to_dict()
    assert [case["name"] for case in scores["cases"]] == ["other", "scan", "scan_seg"]


def test_a_mark_is_part_of_a_name_for_all_raters_or_for_none(tmp_path: Path) -> None:
    for name in ("rater1/scan.png", "rater1/scan_seg.png", "rater2/scan_seg.png", "rater2/b_seg.png"):
        write_png(tmp_path / name, DISC)
    masks = mask_folder(tmp_path)
    assert masks.names == ["b", "scan", "scan_seg"]
    assert list(masks.by_folder("scan")) == ["rater1"]


def test_results_of_a_case_whose_name_ends_as_a_mask_are_found(tmp_path: Path) -> None:
    for name in ("a", "a_seg"):
        for part in ("data/images", "data/masks", "out/masks", "out/uncertainty"):
            write_png(tmp_path / part / f"{name}.png", DISC)
    rows = saved_rows(tmp_path / "out", tmp_path / "data", {"a": "", "a_seg": ""})
    assert [row.name for row in rows] == ["a", "a_seg"]
    assert all(np.array_equal(row.fused[0] > 0, DISC > 0) for row in rows)


def test_a_reference_that_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("references", "predictions"):
        for name in ("a", "b"):
            write_png(tmp_path / part / f"{name}.png", DISC)
    dangle(tmp_path / "references" / "b.png")
    (tmp_path / "predictions" / "b.png").unlink()
    evaluate(tmp_path / "predictions", tmp_path / "references")
    assert "b.png (a link that leads nowhere)" in caplog.text
