"""What ``segment.json`` states of cases, scored against raters: sizes with their intervals, and doubts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from medsegdiff.cli import app
from medsegdiff.config.data import DataConfig
from medsegdiff.evaluation import Evaluation, Measure, evaluate
from medsegdiff.inference import RECORD
from medsegdiff.io.raster import read_mask
from medsegdiff.metrics.failures import failure_scores
from medsegdiff.report.evaluation import write_page
from medsegdiff.server.results import Results
from tests.makers import disc, write_png
from tests.raters import make_rated
from tests.scored import numbers
from tests.shown import EYE, segmentation, shown


def state(pred: Path, *, sizes: dict[str, dict[str, Any]] | None = None, **told: list[float]) -> None:
    """Write what is told of each case, as ``segment`` does."""
    images = [
        {
            "name": f"case{i}",
            **{key: values[i] for key, values in told.items()},
            "sizes": (sizes or {}).get(f"case{i}", {}),
        }
        for i in range(4)
    ]
    record = {"format": 2, "task": "binary", "classes": ["lesion"], "images": images}
    (pred / RECORD).write_text(json.dumps(record), encoding="utf-8")


def pixels(path: Path) -> int:
    return int(np.count_nonzero(read_mask(path)))


def test_the_sizes_of_members_are_scored_against_the_reference(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    result = evaluate(pred, data, reference="each")
    for case in result.scores.groups:
        x = np.array([pixels(pred / f"members/0{m}/{case}.png") for m in range(4)], float)
        true = [pixels(data / f"masks/rater{r}/{case}.png") for r in (1, 2, 3)]
        spread = np.abs(np.subtract.outer(x, x)).mean() / 2
        expected = np.mean([np.abs(x - y).mean() - spread for y in true])
        assert numbers(result, case)["size_crps"] == pytest.approx(expected)
    middle = evaluate(pred, data)  # the majority of discs in one another is the middle one
    x = np.array([pixels(pred / f"members/0{m}/case1.png") for m in range(4)], float)
    error = np.abs(x - pixels(data / "masks/rater2/case1.png")).mean()
    assert numbers(middle, "case1")["size_crps"] == pytest.approx(error - np.abs(np.subtract.outer(x, x)).mean() / 2)
    assert "size_covered" not in numbers(middle)


def test_stated_intervals_are_counted_that_hold_the_true_size(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    true = pixels(data / "masks/rater2/case0.png")
    ends = [(true - 5, true + 5), (true, true), (true + 1, true + 9), (0, true - 1)]
    sizes = {
        f"case{i}": {"lesion": {"mean": 1, "low": low, "high": high, "unit": "px"}}
        for i, (low, high) in enumerate(ends)
    }
    state(pred, sizes=sizes)
    result = evaluate(pred, data)
    assert result.scores.column("size_covered") == [1, 1, 0, 0]
    assert result.scores.column("size_width") == [high - low for low, high in ends]
    assert result.mean("size_covered").mean == 0.5
    assert "0.9" in result.conventions["size_covered"]
    assert evaluate(pred / "masks", data).mean("size_covered").mean == 0.5
    for part in ("members", "members/00"):
        assert (Measure("size_covered") in evaluate(pred / part, data).summary) == (part == "members")
    sizes["case0"]["lesion"]["unit"] = "mL"  # which these references are not in
    state(pred, sizes=sizes)
    assert np.isnan(numbers(evaluate(pred, data))["size_covered"])


def test_every_doubt_that_is_known_is_scored_over_cases(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    dice = np.array(evaluate(pred, data).scores.column("dice"))
    state(pred, confidence=list(dice), anchor_confidence=list(-dice), mean_entropy=[0.1, 0.1, 0.2, 0.3])
    result = evaluate(pred, data)
    agreement = np.array(result.scores.column("agreement"))
    assert set(result.failure) == {"1 - agreement", "1 - confidence", "mean_entropy", "1 - anchor_confidence", "random"}
    assert result.failure["1 - confidence"]["spearman"] == pytest.approx(1)
    assert result.failure["1 - confidence"]["excess_aurc"] == pytest.approx(0)
    assert result.failure["1 - anchor_confidence"]["spearman"] == pytest.approx(-1)
    assert result.failure["1 - agreement"] == pytest.approx(failure_scores(1 - agreement, 1 - dice))
    assert result.failure["random"]["aurc"] == pytest.approx(1 - dice.mean())
    shown_everywhere(result, pred, data, tmp_path)


def shown_everywhere(result: Evaluation, pred: Path, data: Path, folder: Path) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(pred), str(data), "-o", str(folder / "out"), "--no-report"])
    assert "1 - anchor_confidence" in shown.output
    told = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert told["failure"] == result.to_dict()["failure"]
    assert "excess_aurc" in told["conventions"]["failure"]
    write_page(result, folder / "page.html")
    assert "Which cases failed?" in (folder / "page.html").read_text(encoding="utf-8")


def test_a_doubt_that_a_case_lacks_is_left_out(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    plain = evaluate(pred, data)
    assert set(plain.failure) == {"1 - agreement", "random"}
    state(pred, confidence=[0.1, 0.2, 0.3, 0.4])
    record = json.loads((pred / RECORD).read_text(encoding="utf-8"))
    del record["images"][2]["confidence"]
    (pred / RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert evaluate(pred, data).failure == plain.failure
    single = make_rated(tmp_path / "one", members=1)
    assert evaluate(*single).failure == {}


def test_what_was_predicted_of_a_structure_is_held_against_that_one(tmp_path: Path) -> None:
    """Where references hold one of two structures, too."""
    images = []
    for name in ("c0", "c1"):
        first, second = (disc((24, 24), (12, x), 4) for x in (6, 16))
        write_png(tmp_path / "pred" / "labels" / f"{name}.png", (first + 2 * second).astype(np.uint8))
        write_png(tmp_path / "data" / "images" / f"{name}.png", np.zeros((24, 24), np.uint8))
        write_png(tmp_path / "data" / "masks" / f"{name}.png", 2 * second.astype(np.uint8))
        predicted = {"score": 0.5, "dice_at_least": 0.1, "review": False}
        quality = {"A": {**predicted, "predicted_dice": 0.2}, "B": {**predicted, "predicted_dice": 0.9}}
        images.append({"name": name, "quality": quality})
    record = {"format": 2, "task": "exclusive", "classes": ["background", "A", "B"], "images": images}
    (tmp_path / "pred" / RECORD).write_text(json.dumps(record), encoding="utf-8")
    found = evaluate(tmp_path / "pred", tmp_path / "data").predicted
    assert found["B"].predicted.tolist() == [0.9, 0.9]


def test_what_is_stated_of_the_fused_mask_is_not_held_against_the_anchor_or_a_member(tmp_path: Path) -> None:
    out = corrected(tmp_path, "a", "b")
    assert evaluate(out, out / "references").predicted["lesion"].predicted.tolist() == [0.91, 0.91]
    assert len(evaluate(out / "masks", out / "references").predicted) == 1
    for part in ("anchor", "members/00", "members", "probability"):
        found = evaluate(out / part, out / "references")
        assert found.predicted == {}
        assert (Measure("size_covered") in found.summary) == (part in ("members", "probability"))


@pytest.mark.parametrize("ending", ["", "_mask", "_Segmentation"])
def test_what_is_stated_is_found_though_a_bare_folder_of_masks_drops_an_ending(tmp_path: Path, ending: str) -> None:
    out = corrected(tmp_path, f"a{ending}", f"b{ending}")
    found = evaluate(out, out / "references")
    assert [*found.scores.groups] == ["a", "b"]
    assert found.mean("size_covered").mean == 1
    assert len(found.predicted["lesion"].true) == 2
    (out / "split.csv").write_text(f"id,split,patient\na{ending},test,p\nb{ending},val,p\n")
    assert evaluate(out, out / "references").scores.groups == {"a": "p", "b": "p"}


def test_what_is_stated_of_a_structure_is_found_however_it_is_spelt(tmp_path: Path) -> None:
    made = [segmentation(name, (24, 30), EYE) for name in "ab"]
    out, _ = shown(tmp_path, *made)
    for of in made:
        write_png(tmp_path / "masks" / f"{of.name}.png", of.mask)
    names = DataConfig(classes=("background", "Disc", "CUP"))
    found = evaluate(out, tmp_path / "masks", data=names)
    assert {"size_covered/Disc": 1, "size_covered/CUP": 1}.items() <= numbers(found).items()
    assert {name: of.predicted.tolist() for name, of in found.predicted.items()} == {
        "Disc": [0.91, 0.91],
        "CUP": pytest.approx([0.71, 0.71]),
    }


def corrected(root: Path, *names: str) -> Path:
    """Results, and as their references the same masks, as the viewer saves them."""
    out, _ = shown(root, *(segmentation(name, (24, 30)) for name in names))
    for name in names:
        Results(out).correct(name, segmentation(name, (24, 30)).mask.tobytes())
    return out
