"""What several raters are taken for: pixel by pixel, through whole evaluations, in words, and between runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medsegdiff.cli import app
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation import Setup, evaluate
from medsegdiff.evaluation.compare import Run, compare, read_run
from medsegdiff.evaluation.consensus import Consensus, check_consensus, in_words, references_of
from medsegdiff.report.evaluation import write_page
from tests.raters import make_rated
from tests.scored import numbers, table

RULES = {
    "majority": lambda drawn: 2 * sum(drawn) >= len(drawn),
    "union": any,
    "intersection": all,
}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("consensus", list(RULES))
def test_every_pixel_follows_the_rule(count: int, consensus: Consensus) -> None:
    raters = np.random.default_rng(count).random((count, 6, 7)) < 0.5
    (found,) = references_of(raters, consensus)
    for place in np.ndindex(6, 7):
        assert found[place] == RULES[consensus]([bool(mask[place]) for mask in raters])


def test_the_majority_of_two_is_their_union_and_it_is_said() -> None:
    raters = np.random.default_rng(0).random((2, 9, 9)) < 0.5
    assert np.array_equal(references_of(raters, "majority"), references_of(raters, "union"))
    assert in_words("majority", (2, 2)) == "Majority of 2 raters, a tie is foreground, which makes it their union."
    assert in_words("majority", (4, 4)) == "Majority of 4 raters, a tie is foreground: 2 of 4 suffice."
    assert in_words("majority", (3, 3)) == "Majority of 3 raters."
    assert "of 2 it is their union, 2 of 4 suffice" in in_words("majority", (1, 4))
    assert not any(in_words(consensus, (1, 1)) for consensus in ("majority", "union", "intersection", "each"))


def test_scores_against_each_are_the_mean_of_scores_against_one(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    whole = evaluate(pred, data, reference="each")
    alone = [evaluate(pred, data / "masks" / f"rater{rater}") for rater in (1, 2, 3)]
    for case in whole.scores.groups:
        found, each = numbers(whole, case), [numbers(one, case) for one in alone]
        for metric in ("dice", "iou", "hd95", "nsd", "volume_error", "aurc", "excess_aurc"):
            assert found[metric] == pytest.approx(np.mean([one[metric] for one in each])), metric
        assert found["dice"] == pytest.approx(np.mean([found[f"dice@rater{rater}"] for rater in (1, 2, 3)]))
    assert whole.curve is not None
    assert whole.curve.num_cases == 4
    assert whole.curve.mean[-1] == pytest.approx(np.mean([one.curve.mean[-1] for one in alone if one.curve]))


def test_what_is_about_raters_does_not_depend_on_their_consensus(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    found = {consensus: evaluate(pred, data, reference=consensus) for consensus in (*RULES, "each")}
    for metric in ("ged", "hm_iou", "d_max", "rater_dice", "ece", "ece_near", "brier", "dice@rater2"):
        assert len({numbers(one)[metric] for one in found.values()}) == 1, metric
    for pools in (one.pools["foreground"] for one in found.values()):
        assert np.array_equal(pools.calibration.count, found["majority"].pools["foreground"].calibration.count)
    assert len({numbers(one)["dice"] for one in found.values()}) == 4  # discs in one another


def test_of_one_rater_all_are_the_same_and_nothing_is_said(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path, raters=1)
    one, other = (evaluate(pred, data, reference=consensus) for consensus in ("majority", "each"))
    assert numbers(one) == pytest.approx(numbers(other), nan_ok=True)
    assert "reference" not in one.conventions | other.conventions


def test_the_reference_is_named_wherever_scores_are_shown(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path, raters=2)
    said = "ajority of 2 raters, a tie is foreground, which makes it their union."
    shown = CliRunner().invoke(app, ["evaluate", str(pred), str(data), "-o", str(tmp_path / "out")])
    assert said in " ".join(shown.output.split())
    told = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert told["made"]["reference"] == "majority"
    assert said in told["conventions"]["reference"]
    write_page(evaluate(pred, data, reference="intersection"), tmp_path / "page.html")
    assert "Intersection of 2 raters" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"reference is 'unoin'; allowed are .*Did you mean 'union'"):
        check_consensus("unoin")


def test_runs_against_different_references_are_not_compared(tmp_path: Path) -> None:
    pred, data = make_rated(tmp_path)
    for consensus in ("majority", "each"):
        evaluate(pred, data, reference=consensus).save(tmp_path / consensus)
    told = json.loads((tmp_path / "majority" / "metrics.json").read_text(encoding="utf-8"))
    del told["made"]["reference"]  # as files were before there was a choice
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(told), encoding="utf-8")
    majority, each, old = (read_run(tmp_path / name) for name in ("majority", "each", "old"))
    compare([majority, old])
    for one in (majority, old):
        with pytest.raises(DataError, match=r"references made of several raters .*: majority and each"):
            compare([one, each])
    scores = table([{"name": "a", "dice": 0.5}, {"name": "b", "dice": 0.6}])
    single = Run("x", scores, Setup(raters=(1, 1)))
    compare([single, replace(single, name="y", setup=Setup(raters=(1, 1), reference="each"))])
