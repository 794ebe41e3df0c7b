"""The table of scores: what is written is read back, in today's form and in the one before it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.errors import ConfigError
from medsegdiff.evaluation.results import Results, Setup, read_results
from medsegdiff.evaluation.scores import Mean, Measure, Score, Scores

DICE, CUP, ODD, ANNA = (
    Measure("dice"),
    Measure("dice", "cup"),
    Measure("dice", "a/b@c"),
    Measure("dice", rater="anna"),
)


def results() -> Results:
    scores = Scores.of_cases(
        [
            ("x", "p1", {DICE: 0.5, CUP: 0.25, ODD: 0.75, ANNA: 0.1, Measure("hd95"): 3.0}),
            ("y", "p1", {DICE: 0.7, CUP: 0.5, ODD: 0.9}),
            ("z", "", {DICE: 0.9, CUP: float("nan"), ODD: 0.9, ANNA: 0.3}),
        ]
    )
    setup = Setup("pred", "ref", ("cup", "a/b@c"), members=4, members_least=3, raters=(1, 2), tolerance=1.0, unit="px")
    return Results(scores, scores.means(), setup)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    given = results()
    given.save(tmp_path)
    found = read_results(tmp_path)
    assert (found.summary, found.setup, found.scores.groups) == (given.summary, given.setup, given.scores.groups)
    finite = {of: {n: v for n, v in column.items() if not np.isnan(v)} for of, column in given.scores.columns.items()}
    assert found.scores.columns == finite
    told = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert told["summary"]["dice"]["mean"] == pytest.approx((0.6 + 0.9) / 2)
    assert told["cases"][0]["dice"] == 0.5
    assert told["cases"][0]["structures"]["cup"] == {"dice": 0.25}
    assert told["cases"][2]["raters"] == {"anna": {"dice": 0.3}}


def test_files_that_name_structures_and_raters_in_the_metric_are_read_alike(tmp_path: Path) -> None:
    given = results()
    cases = [
        {"name": name, "group": group} | {str(of): v for of, v in given.scores.of(name).items() if not np.isnan(v)}
        for name, group in given.scores.groups.items()
    ]
    summary = {str(of): {"mean": mean.mean, "ci95": mean.ci95} for of, mean in given.summary.items()}
    made = {"structures": ["cup", "a/b@c"], "raters": [1, 2]}
    earlier, now = tmp_path / "earlier", tmp_path / "now"
    earlier.mkdir()
    (earlier / "metrics.json").write_text(json.dumps({"summary": summary, "cases": cases, "made": made}))
    given.save(now)
    found = read_results(earlier)
    assert "dice/a/b@c" in summary
    assert (found.scores, found.summary) == (read_results(now).scores, read_results(now).summary)
    assert found.setup == Setup(structures=("cup", "a/b@c"), raters=(1, 2))


def test_the_csv_has_a_row_for_each_number(tmp_path: Path) -> None:
    given = results()
    given.save(tmp_path)
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["case", "group", "structure", "rater", "metric", "value"]
    read = [Score(*row[:-1], float(row[-1] or "nan")) for row in rows]
    assert str(read) == str(list(given.scores))
    assert ["z", "", "cup", "", "dice", ""] in rows  # what is not a number is empty
    assert len(rows) == 12


def test_a_mean_that_there_is_not_is_told_with_those_there_are() -> None:
    assert results().mean("dice", "cup").mean == pytest.approx(0.375)
    assert results().shown("ged") == "–"
    with pytest.raises(
        ConfigError, match=r"No 'dice/cap' was scored; there are dice, dice/cup.*Did you mean 'dice/cup'"
    ):
        results().mean("dice", "cap")


def test_means_are_over_groups_and_a_case_is_no_group_of_its_name() -> None:
    scores = Scores.of_cases([("a", "b", {DICE: 0.0}), ("b", "", {DICE: 1.0}), ("c", "b", {DICE: 0.5})])
    assert scores.by_group(DICE) == [0.25, 1.0]
    assert scores.means()[DICE].mean == 0.625
    assert Scores.of_cases([("a", "", {DICE: 1.0})]).means() == {DICE: Mean(1.0, None)}


def test_cases_are_ranked_by_what_they_have() -> None:
    scores = Scores.of_cases([("b", "", {DICE: 0.5}), ("a", "", {DICE: 0.5}), ("d", "", {DICE: 0.9}), ("e", "", {})])
    assert scores.ranked() == ["d", "a", "b"]
    assert np.array_equal(scores.column("dice"), [0.5, 0.5, 0.9, np.nan], equal_nan=True)
