"""REFUGE2 as the challenge and as the authors give it: regions checked by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.errors import DataError, GeometryError
from medsegdiff.evaluation import evaluate
from tests.makers import write_png
from tests.pictures import CUP, DISC, SIZE, box, make_challenge, make_rated, open_pictures


def region(place: tuple[slice, slice]) -> np.ndarray:
    return box(*place, 1)


def test_refuge2_of_the_challenge_has_a_cup_in_a_disc(tmp_path: Path) -> None:
    make_challenge(tmp_path)
    found = open_pictures(tmp_path)
    assert (found.info.layout, found.info.labels.task, found.info.labels.classes) == (
        "refuge2",
        "regions",
        ("disc", "cup"),
    )
    assert found.info.split == {"g0001": "train", "n0001": "train", "n0002": "train", "V0001": "val", "T0001": "test"}
    for name in found.info.split:
        assert np.array_equal(found.load(name).mask, np.stack([region(DISC), region(CUP)])[None])


def test_archives_of_refuge2_may_unpack_into_folders_of_their_own(tmp_path: Path) -> None:
    make_challenge(tmp_path)
    (tmp_path / "outer").mkdir()
    for name, outer in (("Training400", "REFUGE-Training400"), ("Annotation-Training400", "Annotation-Training400")):
        (tmp_path / name).rename(tmp_path / "outer" / name)
        (tmp_path / outer).mkdir()
        (tmp_path / "outer" / name).rename(tmp_path / outer / name)
    assert open_pictures(tmp_path).info.names("train") == ["g0001", "n0001", "n0002"]


def test_refuge2_refuses_values_that_the_challenge_does_not_have(tmp_path: Path) -> None:
    make_challenge(tmp_path)
    write_png(tmp_path / "REFUGE-Validation400-GT" / "Disc_Cup_Masks" / "V0001.bmp", box(*DISC, 200))
    with pytest.raises(DataError, match=r"V0001\.bmp: expected 0 \(cup\), 128 .*; found 200\."):
        open_pictures(tmp_path)


def test_refuge2_tells_what_it_expects(tmp_path: Path) -> None:
    make_challenge(tmp_path)
    (tmp_path / "Annotation-Training400").rename(tmp_path / "annotation")
    with pytest.raises(
        DataError, match=r"expected the masks of Training400 .* in Annotation-Training400, .*\.bmp; found .*annotation/"
    ):
        open_pictures(tmp_path)
    (tmp_path / "empty" / "Training-400").mkdir(parents=True)
    with pytest.raises(DataError, match=r"expected Training400/.*or \{Training,Test\}-400/0001.*; found Training-400/"):
        open_pictures(tmp_path / "empty")


def test_refuge2_of_the_authors_has_seven_raters_of_two_regions(tmp_path: Path) -> None:
    make_rated(tmp_path)
    found = open_pictures(tmp_path)
    assert found.info.raters == tuple(f"rater{number}" for number in range(1, 8))
    assert (found.info.labels.task, found.info.labels.classes) == ("regions", ("disc", "cup"))
    assert found.info.split["0002"] == "test"
    assert found.info.names("val") != []
    mask = found.load("0001").mask
    assert mask.shape == (7, 2, *SIZE)
    for rater in range(7):
        assert np.array_equal(mask[rater, 0], region(DISC))
        assert mask[rater, 1].sum() == 3 * (rater + 1)
    assert mask[1, 1, 6:9, 0:2].all()  # a cup beside the disc stays where it was drawn, and does not enlarge the disc


def test_grey_edges_of_raters_are_taken_at_their_half(tmp_path: Path) -> None:
    make_rated(tmp_path)
    drawn = box(*DISC)
    drawn[4, 9:19], drawn[15, 9:19] = 100, 180
    write_png(tmp_path / "Training-400" / "0001" / "0001_seg_disc_1.png", drawn)
    write_png(tmp_path / "Training-400" / "0001" / "0001_seg_disc_2.png", box(*DISC, 1))
    mask = open_pictures(tmp_path).load("0001").mask
    assert np.array_equal(mask[0, 0], drawn > 127)
    assert np.array_equal(mask[1, 0], region(DISC))


def test_a_rater_must_have_drawn_both_and_on_one_grid(tmp_path: Path) -> None:
    make_rated(tmp_path)
    folder = tmp_path / "Training-400" / "0003"
    write_png(folder / "0003_seg_cup_5.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(GeometryError, match=r"0003_seg_disc_5\.png: the disc is 20×30 but the cup is 9×9"):
        open_pictures(tmp_path)
    (folder / "0003_seg_cup_5.png").unlink()
    with pytest.raises(
        DataError, match=r"0003: expected the disc and the cup of each rater; found only one .* by rater5"
    ):
        open_pictures(tmp_path)
    (folder / "0003_seg_disc_5.png").unlink()
    assert open_pictures(tmp_path).load("0003").mask.shape[0] == 6


def test_predictions_are_scored_against_the_references_of_a_benchmark(tmp_path: Path) -> None:
    make_challenge(tmp_path / "data")
    for structure, place in (("disc", DISC), ("cup", (slice(8, 10), slice(12, 16)))):  # half of the cup
        write_png(tmp_path / "out" / "masks" / structure / "T0001.png", box(*place))
    scores = evaluate(tmp_path / "out", tmp_path / "data", split="test")
    assert list(scores.scores.groups) == ["T0001"]
    assert scores.mean("dice", "disc").mean == 1
    assert scores.mean("dice", "cup").mean == pytest.approx(2 * 8 / (8 + 16))
