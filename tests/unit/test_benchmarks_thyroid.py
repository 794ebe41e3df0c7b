"""TN3K, DDTI and both together: compressed masks, polygons, folds, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.ddti import read_marks
from medsegdiff.data.open import list_cases
from medsegdiff.errors import DataError
from tests.pictures import (
    ACROSS,
    LEFT,
    LESION,
    RIGHT,
    SIZE,
    make_ddti,
    make_tn3k,
    open_pictures,
    save_jpeg,
    write_marks,
)


def test_tn3k_takes_jpeg_masks_at_their_half(tmp_path: Path) -> None:
    make_tn3k(tmp_path)
    assert len(np.unique(Image.open(tmp_path / "test-mask" / "0000.jpg"))) > 2
    found = open_pictures(tmp_path)
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == ("tn3k", "binary", ("nodule",))
    assert found.info.names("test") == ["test-0000", "test-0001"]
    assert np.array_equal(found.load("test-0000").mask[0, 0], LESION > 0)
    assert np.array_equal(found.load("trainval-0000").mask[0, 0], LESION[::-1] > 0)


def test_a_mask_of_tn3k_with_much_grey_is_still_cut_at_half(tmp_path: Path) -> None:
    """So much grey that it is not taken for a compressed mask anywhere else."""
    make_tn3k(tmp_path)
    ramp = np.repeat(np.linspace(0, 255, SIZE[1]).astype(np.uint8)[None], SIZE[0], axis=0)
    save_jpeg(tmp_path / "test-mask" / "0000.jpg", ramp)
    stored = np.asarray(Image.open(tmp_path / "test-mask" / "0000.jpg"))
    assert np.array_equal(open_pictures(tmp_path).load("test-0000").mask[0, 0], stored > 127)


def test_the_fold_of_tn3k_says_who_validates(tmp_path: Path) -> None:
    make_tn3k(tmp_path)
    (tmp_path / "tn3k-trainval-fold0.json").write_text(json.dumps({"train": [0, 3, 4], "val": [2, "0001.jpg"]}))
    split = open_pictures(tmp_path).info.split
    assert [name for name, part in split.items() if part == "val"] == ["trainval-0001", "trainval-0002"]
    assert sum(part == "test" for part in split.values()) == 2
    (tmp_path / "tn3k-trainval-fold0.json").write_text(json.dumps({"train": [0, 3], "val": [2]}))
    found = open_pictures(tmp_path)
    assert found.listing.unlisted == ("trainval-0001", "trainval-0004")
    assert len(found.info.split) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"train": [0, 1], "val": [7]}', "found all but 1: trainval-0007"),
        ('{"train": [0, 1], "val": [1]}', "expected each image once; found 1 twice"),
        ('{"train": [0, 1]}', r'expected \{"train": .*found none \(KeyError'),
        ("[]", r'expected \{"train": .*found none \(TypeError'),
        ("{", r'expected \{"train": .*found none \(JSONDecodeError'),
    ],
)
def test_a_fold_of_tn3k_that_can_not_be_followed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    make_tn3k(tmp_path)
    (tmp_path / "tn3k-trainval-fold0.json").write_text(text)
    with pytest.raises(DataError, match=rf"tn3k-trainval-fold0\.json: .*{words}"):
        open_pictures(tmp_path)


def test_tn3k_tells_what_it_expects(tmp_path: Path) -> None:
    make_tn3k(tmp_path)
    (tmp_path / "trainval-mask").rename(tmp_path / "masks")
    with pytest.raises(DataError, match=r"expected the masks of trainval-image in trainval-mask, .*; found .*masks/"):
        open_pictures(tmp_path)


def filled(*polygons: Sequence[tuple[float, float]]) -> np.ndarray:
    """Rectangles whose sides lie between pixels."""
    mask = np.zeros(SIZE, bool)
    for (left, top), _, (right, bottom), _ in polygons:
        mask[int(top + 0.5) : int(bottom + 0.5), int(left + 0.5) : int(right + 0.5)] = True
    return mask


def test_ddti_fills_every_polygon_of_every_mark_of_an_image(tmp_path: Path) -> None:
    make_ddti(tmp_path)
    found = open_pictures(tmp_path)
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == ("ddti", "binary", ("nodule",))
    assert sorted(found.info.split) == ["10_1", "1_1", "2_1", "2_2"]
    assert np.array_equal(found.load("1_1").mask[0, 0], filled(LEFT, RIGHT))
    assert np.array_equal(found.load("2_1").mask[0, 0], filled(LEFT))
    union = filled(LEFT, RIGHT, ACROSS)
    assert union.sum() < filled(LEFT).sum() + filled(RIGHT).sum() + filled(ACROSS).sum()  # two overlap
    assert np.array_equal(found.load("2_2").mask[0, 0], union)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    assert np.array_equal(found.load("10_1").mask[0, 0], x + y < 9)


def test_ddti_keeps_patients_together_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    make_ddti(tmp_path)
    found = open_pictures(tmp_path)
    groups = {name: case.group for name, case in found.listing.cases.items()}
    assert groups == {"1_1": "1", "2_1": "2", "2_2": "2", "10_1": "10"}
    assert found.info.split["2_1"] == found.info.split["2_2"]
    assert found.listing.remarks == (
        "images left out because nothing was drawn on them: 2",
        "images that are not there though something was drawn on them: 1",
    )


@pytest.mark.parametrize(
    "text",
    [
        "<case><mark>",
        "",
        "<case><mark><image>1</image><svg>[{]</svg></mark></case>",
        "<case><mark><image>1</image><svg>[[1, 2]]</svg></mark></case>",
        '<case><mark><image>1</image><svg>[{"points": [{"x": 1}]}]</svg></mark></case>',
        '<case><mark><image>one</image><svg>[{"points": ['
        '{"x": 1, "y": 1}, {"x": 2, "y": 1}, {"x": 1, "y": 2}]}]</svg></mark></case>',
    ],
)
def test_a_broken_file_of_ddti_is_named(tmp_path: Path, text: str) -> None:
    make_ddti(tmp_path)
    (tmp_path / "2.xml").write_text(text)
    with pytest.raises(DataError, match=r"2\.xml: expected <mark><image>1</image>.*; found "):
        open_pictures(tmp_path)


def test_marks_without_a_drawing_are_no_marks(tmp_path: Path) -> None:
    (tmp_path / "1.xml").write_text("<case><mark><image/><svg/></mark><mark/></case>")
    assert read_marks(tmp_path / "1.xml") == {}


def test_ddti_tells_what_it_expects(tmp_path: Path) -> None:
    make_ddti(tmp_path)
    for file in tmp_path.glob("*.xml"):
        write_marks(file, [(1, [])])
    with pytest.raises(DataError, match="expected XML files that tell of polygons; found none on 6 images"):
        open_pictures(tmp_path)
    for file in tmp_path.glob("*.xml"):
        file.unlink()
    with pytest.raises(DataError, match=r"expected 1_1\.jpg, .*1\.xml.*; found 10_1\.jpg"):
        list_cases(tmp_path, DataConfig(layout="ddti"))


def test_tnmix_is_both_each_with_its_own_split(tmp_path: Path) -> None:
    make_tn3k(tmp_path / "tn3k")
    make_ddti(tmp_path / "ddti")
    (tmp_path / "tn3k" / "tn3k-trainval-fold0.json").write_text(json.dumps({"train": [0, 3], "val": [2]}))
    found, alone = open_pictures(tmp_path), open_pictures(tmp_path / "ddti")
    assert (found.info.layout, found.info.channels) == ("tnmix", 3)
    split = found.info.split
    assert {name: split[f"ddti_{name}"] for name in alone.info.split} == alone.info.split
    assert "test" in alone.info.split.values()
    assert split["tn3k_trainval-0002"] == "val"
    assert split["tn3k_test-0001"] == "test"
    assert len(split) == 5 + 4
    assert found.listing.unlisted == ("tn3k_trainval-0001", "tn3k_trainval-0004")
    assert np.array_equal(found.load("tn3k_test-0000").mask[0, 0], LESION > 0)
    assert np.array_equal(found.load("ddti_1_1").mask[0, 0], filled(LEFT, RIGHT))
    assert found.listing.cases["ddti_2_2"].group == "ddti_2"
    assert any(remark.startswith("ddti: images left out") for remark in found.listing.remarks)


def test_tnmix_needs_both(tmp_path: Path) -> None:
    make_tn3k(tmp_path / "tn3k")
    with pytest.raises(DataError, match=r"expected tn3k/.*, ddti/.*; found tn3k/"):
        list_cases(tmp_path, DataConfig(layout="tnmix"))
