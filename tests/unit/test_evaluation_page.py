"""The report of an evaluation: which cases it shows, how they are cut and drawn, and what it says."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsegdiff.evaluation import Measure, Scores, evaluate
from medsegdiff.evaluation.pairing import Pairing
from medsegdiff.evaluation.pool import Pool
from medsegdiff.fusion.curve import Curve
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.metrics.selective import Selection
from medsegdiff.pictures.overlay import SIDE, outlined, panel_size
from medsegdiff.report.cases import choose, slice_case
from medsegdiff.report.evaluation import pictures, write_page
from medsegdiff.report.html import case_table, number, summary_table
from medsegdiff.report.plots import MOST_STRUCTURES, reliability, selective
from tests.makers import disc, write_png
from tests.raters import make_rated
from tests.scored import made, table

CUP, DISC = (Measure("dice", structure) for structure in ("cup", "disc"))


def rows(*dices: float) -> list[dict[str, Any]]:
    return [{"name": f"case{i:03d}", "dice": dice} for i, dice in enumerate(dices)]


def pooled(seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    p = rng.random((64, 64)).astype(np.float32)
    truth = rng.random((64, 64)) < p
    calibration = Calibration.of(p, truth)
    return Pool(calibration, calibration, Selection.empty().add(1 - np.abs(2 * p - 1), p >= 0.5, truth))


def pictures_in(page: str, kind: str) -> list[Image.Image]:
    found = re.findall(rf"data:image/{kind};base64,([^\"]+)", page)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_the_best_the_median_and_the_worst_are_chosen() -> None:
    chosen = choose(table(rows(*(i / 100 for i in range(101)))))
    assert chosen["best"] == ["case100", "case099", "case098"]
    assert chosen["median"] == ["case051", "case050", "case049"]
    assert chosen["worst"] == ["case002", "case001", "case000"]


@pytest.mark.parametrize("count", range(14))
def test_no_case_is_shown_twice_and_of_few_all_are_shown(count: int) -> None:
    names = [name for part in choose(table(rows(*np.linspace(0, 1, count)))).values() for name in part]
    assert len(names) == len(set(names)) == min(count, 9)
    assert names == sorted(names, reverse=True)  # from the best to the worst


def test_equal_cases_are_chosen_by_name_and_those_without_a_score_are_not() -> None:
    tied = [{"name": name, "dice": 0.5} for name in "dbca"] + [{"name": "nan", "dice": float("nan")}, {"name": "none"}]
    assert choose(table(tied)) == {"best": ["a", "b"], "median": ["c"], "worst": ["d"]}


def test_the_table_holds_the_numbers_of_the_summary() -> None:
    cases = [
        {"name": f"c{i}", "dice": d, "hd95": 9 * d, CUP: d / 2, DISC: d, Measure("dice", rater="anna"): d / 4}
        for i, d in enumerate((0.25, 0.5, 0.9))
    ]
    evaluation = made(cases, structures=("cup", "disc"), unit="mm")
    means = summary_table(evaluation)
    assert [head.text for head in means.heads] == ["metric", "mean", "cup", "disc"]
    by_name = {row[0].text: row[1:] for row in means.rows}
    assert list(by_name) == ["Dice ↑", "HD95 (mm) ↓", "Dice with anna ↑"]
    for cell, key in zip(by_name["Dice ↑"], (Measure("dice"), CUP, DISC), strict=True):
        assert cell.text == f"{evaluation.summary[key].mean:.4f}"
        assert cell.below == "{:.4f} … {:.4f}".format(*evaluation.summary[key].ci95)
    assert [cell.text for cell in by_name["HD95 (mm) ↓"]] == ["4.95", "–", "–"]
    assert "2|P∩R|" in means.rows[0][0].hint
    every = case_table(evaluation)
    assert [cell.text for cell in every.rows[2]] == ["c2", "0.9000", "8.10", "0.2250", "0.4500", "0.9000"]


def test_numbers_that_are_none_are_dashes() -> None:
    assert [number(value, "dice") for value in (float("nan"), float("inf"), 1.0)] == ["–", "–", "1.0000"]


def test_what_it_is_given_is_escaped(tmp_path: Path) -> None:
    cases = [{"name": "<b>bold</b>", "dice": 0.5}, {"name": "x", "dice": 0.1}]
    evaluation = made(cases, predictions="<i>", structures=("<u>",))
    write_page(replace(evaluation, warnings=("<s> & so on",)), tmp_path / "r.html", command="echo <a>")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for tag in ("<b>", "<i>", "<u>", "<s>", "<a>"):
        assert tag not in page.replace("<i style", "")
    assert "&lt;b&gt;bold" in page
    assert "&lt;s&gt; &amp; so on" in page


def test_sections_are_there_only_where_there_is_something_to_show(tmp_path: Path) -> None:
    write_page(made(rows(0.5)), tmp_path / "one.html")
    one = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "Scores" in one
    assert not any(title in one for title in ("Reliability", "Risk and coverage", "Distributions", "worst"))
    curve = Curve(np.array([1, 2]), np.array([0.5, 0.6]), np.array([0.1, 0.0]), 2)
    write_page(replace(made(rows(0.5, 0.6)), curve=curve), tmp_path / "two.html")
    two = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "Distributions" in two
    assert "How many members?" in two
    assert 'role="alert"' not in two


def test_many_cases_are_folded_and_few_are_not(tmp_path: Path) -> None:
    for count, folded in ((40, False), (41, True)):
        write_page(made(rows(*np.linspace(0, 1, count))), tmp_path / "r.html")
        assert (f"<summary>{count} cases</summary>" in (tmp_path / "r.html").read_text(encoding="utf-8")) == folded


def test_500_cases_with_everything_stay_under_5_mb(tmp_path: Path) -> None:
    real = evaluate(*make_rated(tmp_path, count=9, size=(300, 300)))
    keys, rng = [key for key in real.summary if key != Measure("dice")], np.random.default_rng(0)
    dices = [0.99] * 3 + [0.75] * 245 + [0.5] * 3 + [0.25] * 246 + [0.01] * 3
    places = [0, 1, 2, 248, 249, 250, 497, 498, 499]
    names = [f"a rather long name of a case {i:05d}" for i in range(500)]
    for place, name in zip(places, real.scores.groups, strict=True):
        names[place] = name
    numbers = rng.random((500, len(keys)))
    scores = Scores.of_cases(
        (name, "", {Measure("dice"): dice} | dict(zip(keys, row.tolist(), strict=True)))
        for name, dice, row in zip(names, dices, numbers, strict=True)
    )
    full = replace(real, scores=scores, summary=scores.means())
    write_page(full, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(pictures_in(page, "jpeg")) == 9 * 4
    assert page.count("<tr>") > 500
    assert (tmp_path / "r.html").stat().st_size < 5e6


def test_the_gallery_shows_image_raters_prediction_and_uncertainty(tmp_path: Path) -> None:
    write_page(evaluate(*make_rated(tmp_path, count=4, size=(60, 40))), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    pictures = pictures_in(page, "jpeg")
    assert {picture.size for picture in pictures} == {(round(SIDE * 40 / 60), SIDE)}
    assert len(pictures) == 4 * 4
    image, raters, prediction, uncertainty = (np.asarray(picture).astype(int) for picture in pictures[:4])
    assert np.ptp(image, axis=-1).max() < 25  # grey, but for what JPEG does
    for drawn in (raters, prediction):
        changed = np.abs(drawn - image).max(axis=-1) > 60
        assert 0.002 < changed.mean() < 0.2  # contours, not areas
    assert uncertainty[:20].max() < 25  # nobody doubts the corners
    assert uncertainty.max() > 150
    for words in ("case0", "rater2", "majority dashed", "GED²"):
        assert words in page


def test_a_bare_folder_of_masks_is_shown_without_images(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path, count=3, raters=1)
    bare, whole = pictures(evaluate(pred, data / "masks" / "rater1")), pictures(evaluate(pred, data))
    assert bare is not None
    assert whole is not None
    assert "bare folder of masks" in bare.text
    assert "bare folder of masks" not in whole.text
    for shown, panels in ((bare, 3), (whole, 4)):
        assert [len(card.pictures) for cards in shown.cards.values() for card in cards] == [panels] * 3


@pytest.mark.parametrize("broken", ["cut short", "of another size", "gone"])
def test_an_image_that_cannot_be_used_does_not_cost_the_report(tmp_path: Path, broken: str) -> None:
    pred, data = make_rated(tmp_path, count=2)
    evaluation = evaluate(pred, data)
    image = data / "images" / "case0.png"
    if broken == "cut short":
        image.write_bytes(image.read_bytes()[:100])
    elif broken == "of another size":
        write_png(image, disc((9, 9), (4, 4), 3).astype(np.uint8) * np.uint8(255))
    else:
        image.unlink()
    shown = pictures(evaluation)
    assert shown is not None
    found = {card.title: len(card.pictures) for cards in shown.cards.values() for card in cards}
    assert found == {"case0": 3, "case1": 4}


def volume(root: Path, reference: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float, float]) -> Pairing:
    affine = np.diag([*spacing, 1.0])
    rng = np.random.default_rng(0)
    for folder, values in (("data/masks", reference), ("pred", predicted)):
        (root / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(values.astype(np.uint8), affine), root / folder / "v.nii.gz")
    (root / "data" / "images").mkdir()
    image = rng.normal(size=reference.shape) + np.arange(reference.shape[2]) * 100
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), root / "data" / "images" / "v.nii.gz")
    return evaluate(root / "pred", root / "data").pairing or pytest.fail("no files")


def test_of_a_volume_the_slice_with_the_largest_reference_is_shown_true_to_scale(tmp_path: Path) -> None:
    reference, predicted = np.zeros((2, 12, 10, 6), bool)
    reference[2:4, 2:4, 1] = True
    reference[1:9, 3:5, 4] = True
    predicted[:, :, 2] = True
    case = slice_case("v", volume(tmp_path, reference, predicted, (1, 2, 5)))
    assert case.note == "axial slice 5 of 6"
    assert (case.fused.shape, case.spacing) == ((1, 10, 12), (2, 1))
    assert panel_size((10, 12), case.spacing) == (SIDE, round(SIDE * 12 / 20))
    (drawn,) = case.raters
    assert np.array_equal(drawn[0], reference[:, ::-1, 4].T)  # the front on top
    assert not case.fused.any()
    assert case.image is not None
    assert round(float(case.image.mean()) / 100) == 4


def test_without_a_reference_the_slice_shows_the_prediction_and_without_either_the_middle(tmp_path: Path) -> None:
    none, predicted = np.zeros((2, 12, 10, 6), bool)
    predicted[3:6, 3:6, 1] = True
    assert slice_case("v", volume(tmp_path / "a", none, predicted, (1, 1, 1))).note == "axial slice 2 of 6"
    assert slice_case("v", volume(tmp_path / "b", none, none, (1, 1, 1))).note == "axial slice 4 of 6"


def test_contours_that_run_together_are_all_seen() -> None:
    mask, ground = disc((64, 64), (32, 32), 20), np.zeros((64, 64, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    drawn = outlined(ground, [mask] * 3, colours)
    shares = [(drawn == colour).all(axis=-1).sum() for colour in np.array(colours, np.uint8)]
    assert min(shares) > 0.2 * sum(shares)
    assert not drawn[~mask].any()
    dashed = outlined(ground, [mask, mask], colours[:2], dashed=[True, False])
    assert (dashed[..., 0] > 0).any()
    assert (dashed[..., 1] > 0).any()
    assert ((dashed > 0).any(axis=-1) == (drawn > 0).any(axis=-1)).all()  # gaps are filled by the other


def test_a_mask_of_one_pixel_is_seen_in_a_large_image() -> None:
    mask = np.zeros((4000, 3000), bool)
    mask[2000, 1500] = True
    assert outlined(np.zeros((*panel_size((4000, 3000)), 3), np.uint8), [mask], [(9, 9, 9)]).any()


def test_each_of_several_structures_has_curves_and_too_many_have_not() -> None:
    for count, each in ((1, 0), (2, 2), (MOST_STRUCTURES + 1, 0)):
        names = [f"s{i}" for i in range(count)]
        shown = reliability(replace(made(rows(0.5), structures=tuple(names)), pools={name: pooled() for name in names}))
        assert shown is not None
        assert len(shown.figures) == 1
        assert sum(len(inner.figures) for inner in shown.folded) == each
        assert ("metrics.json" in shown.text) == (count > MOST_STRUCTURES)


def test_without_probabilities_there_are_no_curves() -> None:
    assert reliability(made(rows(0.5))) is None
    assert selective(made(rows(0.5))) is None


def test_plots_cope_with_an_ensemble_of_one_mind() -> None:
    """Every pixel is certain: the curves are a single point."""
    truth = disc((20, 20), (10, 10), 5)
    for predicted in (truth, np.zeros_like(truth)):
        calibration = Calibration.of(predicted.astype(np.float32), truth)
        selection = Selection.empty().add(np.zeros(truth.shape), predicted, truth)
        evaluation = replace(made(rows(0.5)), pools={"lesion": Pool(calibration, Calibration.empty(), selection)})
        assert reliability(evaluation) is not None
        assert selective(evaluation) is not None


def test_the_same_scores_give_the_same_page(tmp_path: Path) -> None:
    evaluation = replace(made(rows(0.5, 0.7, 0.6)), pools={"lesion": pooled()})
    for name in ("a", "b"):
        write_page(evaluation, tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
