"""Comparing runs: known differences come back, equal runs stay equal, statistics against hand-made numbers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation.compare import Comparison, Run, compare, paired, read_run
from medsegdiff.evaluation.results import Setup
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.metrics.paired import bootstrap_interval, holm, signed_rank


def run(name: str, groups: dict[str, str] | None = None, **metrics: list[float]) -> Run:
    """Scores of cases c00, c01, …; a double underscore stands before a structure."""
    names = [f"c{i:02d}" for i in range(len(next(iter(metrics.values()))))]
    columns = {Measure(*key.split("__")): dict(zip(names, of, strict=True)) for key, of in metrics.items()}
    return Run(name, Scores({n: (groups or {}).get(n, "") for n in names}, columns))


def verdicts(found: Comparison) -> dict[tuple[str, str], str]:
    return {(row.metric, row.run): row.verdict for row in found.differences}


def write(folder: Path, cases: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"summary": {}, "cases": cases}), encoding="utf-8")
    return folder


def noise(seed: int, count: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, count)


def test_a_known_difference_comes_back_with_its_direction() -> None:
    """0.05 more Dice and 2 mm more HD95, between cases that differ far more among themselves."""
    level = 0.5 + 0.1 * noise(0)
    a = run("a", dice=list(level), hd95=list(10 + noise(1)))
    b = run("b", dice=list(level + 0.05 + 0.01 * noise(2)), hd95=list(12 + noise(1) + 0.1 * noise(3)))
    found = compare([a, b])
    dice, hd95 = found.differences
    assert dice.mean == pytest.approx(0.05, abs=0.004)
    assert hd95.mean == pytest.approx(2, abs=0.04)
    for row, truth in ((dice, 0.05), (hd95, 2)):
        assert row.ci95 is not None
        assert row.ci95[0] < truth < row.ci95[1]
        assert row.ci95[1] - row.ci95[0] == pytest.approx(3.92 * np.std(row.values) / np.sqrt(60), rel=0.15)
    assert verdicts(found) == {("dice", "b"): "b better", ("hd95", "b"): "a better"}
    assert verdicts(compare([b, a])) == {("dice", "a"): "b better", ("hd95", "a"): "a better"}


def test_pairing_finds_what_two_averages_would_not() -> None:
    level = noise(0)
    found = compare([run("a", x=list(level)), run("b", x=list(level + 0.01 + 0.001 * noise(1)))])
    assert verdicts(found) == {("x", "b"): "b higher"}  # no metric of ours: it has no better
    assert abs(np.mean(level)) + np.std(level) > 50 * found.differences[0].mean


def test_no_difference_is_not_real_and_its_interval_holds_zero() -> None:
    a = run("a", dice=list(noise(0)), iou=list(noise(1)))
    for other in (run("b", dice=list(noise(2)), iou=list(noise(3))), run("b", dice=list(noise(0)), iou=list(noise(1)))):
        for row in compare([a, other]).differences:
            assert row.ci95 is not None
            assert row.ci95[0] <= 0 <= row.ci95[1]
            assert row.verdict == "not real"
    assert {row.p for row in compare([a, other]).differences} == {1.0}


def test_chance_is_called_real_in_less_than_one_of_twenty_comparisons() -> None:
    """Over all metrics together, which is what Holm's correction is for: three metrics, 120 comparisons."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(120):
        values = rng.normal(0, 1, (3, 20))
        p = holm([signed_rank(v) for v in values])
        false += min(p) < 0.05
    assert false <= 12  # 6 expected at most; more than 12 in fewer than one of a hundred


def test_the_order_of_cases_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a, b = run("a", dice=list(noise(0))), run("b", dice=list(noise(1) + 0.3))
    mixed = [rng.permutation(list(of.scores.groups)).tolist() for of in (a, b)]
    again = [
        Run(of.name, Scores.of_cases((n, "", of.scores.of(n)) for n in names))
        for of, names in zip((a, b), mixed, strict=True)
    ]
    assert list(again[0].scores.groups) != list(a.scores.groups)
    assert compare(again) == compare([a, b])


def test_the_signed_rank_test_counts_all_signs_of_few_values() -> None:
    """Of the 2⁶ signs of six ranks two give a sum as far from the middle as 0: p = 2/64; scipy agrees."""
    values = np.array([0.1, 0.2, 0.4, 0.5, 0.6, 0.8])
    assert signed_rank(values) == pytest.approx(2 / 64)
    mixed = values * [1, -1, 1, 1, -1, 1]
    sums = [
        sum(r for r, s in zip(range(1, 7), signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=6)
    ]
    as_far = sum(min(t, 21 - t) <= 7 for t in sums)  # the negative ranks are 2 and 5
    assert signed_rank(mixed) == pytest.approx(as_far / 64) == wilcoxon(mixed).pvalue
    with_zeros = np.array([0.0, 0.0, 0.3, -0.1, 0.2, 0.2, 0.7, 0.9])
    assert signed_rank(with_zeros) == wilcoxon(with_zeros).pvalue
    assert signed_rank(np.array([*[0.0] * 15, 0.1, 0.2, 0.3, 0.4, 0.5])) == 2 / 32  # however many zeros there are
    assert signed_rank(np.zeros(4)) == 1


def test_differences_that_are_equal_but_for_rounding_rank_alike() -> None:
    """0.3 − 0.1 and 0.5 − 0.3 are 0.2 by hand; in floating point they differ, and would have different ranks."""
    a, b = run("a", x=[0.1, 0.3, 0.7]), run("b", x=[0.3, 0.5, 0.7 + 1e-16])
    assert paired(Measure("x"), b, a).tolist() == [0.2, 0.2, 0]


def test_holm_multiplies_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, 0.9, 0.8, 0.001]) == pytest.approx([0.06, 1, 1, 0.004])
    assert holm([0.4]) == [0.4]


def test_the_interval_of_one_case_is_not_known() -> None:
    assert bootstrap_interval(np.array([0.3])) is None
    (row,) = compare([run("a", dice=[0.1]), run("b", dice=[0.4])]).differences
    assert (row.ci95, row.p, row.verdict) == (None, 1.0, "not real")
    assert bootstrap_interval(np.array([0.3, 0.3, 0.3])) == pytest.approx((0.3, 0.3))


def test_cases_of_a_patient_count_as_one() -> None:
    """Ten copies of the cases of six patients are no more evidence than the six."""
    values = [0.1, 0.2, 0.4, 0.5, 0.6, 0.8]
    groups = {f"c{i:02d}": f"patient{i % 6}" for i in range(60)}
    a, b = run("a", groups, dice=[0.0] * 60), run("b", groups, dice=values * 10)
    found = compare([a, b])
    alone = compare([run("a", dice=[0.0] * 6), run("b", dice=values)])
    assert (found.num_cases, found.num_groups) == (60, 6)
    assert found.differences[0].values == pytest.approx(tuple(values))
    assert found.differences[0].p == alone.differences[0].p == pytest.approx(2 / 64)
    assert found.differences[0].ci95 == pytest.approx(alone.differences[0].ci95)
    with pytest.raises(DataError, match="different groups for c00, c01, c02, c03, c04 and 55 more"):
        compare([a, run("b", dice=values * 10)])


def test_different_cases_are_listed() -> None:
    a, b = run("a", dice=[0.1] * 4), run("b", dice=[0.1] * 2)
    with pytest.raises(DataError, match=r"2 of 4 cases are in 'a' but not in 'b': c02, c03\."):
        compare([a, b])
    with pytest.raises(DataError, match=r"2 of 4 cases are in 'a' but not in 'b': c02, c03\."):
        compare([b, a])


def test_structures_are_compared_when_asked_for() -> None:
    a = run("a", dice=list(noise(0)), dice__cup=list(noise(1)), extra=list(noise(2)))
    b = run("b", dice=list(noise(3)), dice__cup=list(noise(1) + 1 + 0.1 * noise(4)))
    c = run("c", dice=list(noise(5)), dice__cup=list(noise(6)))
    assert [(row.metric, row.run) for row in compare([a, b, c]).differences] == [("dice", "b"), ("dice", "c")]
    asked = compare([a, b, c], metrics=["dice/cup", "dice"])
    assert [row.metric for row in asked.differences] == ["dice/cup", "dice/cup", "dice", "dice"]
    assert asked.differences[0].verdict == "b better"  # a structure's metric is better as the metric is
    assert asked.differences[0].p_holm == pytest.approx(
        2 * asked.differences[0].p
    )  # two runs; metrics are not corrected for each other
    with pytest.raises(ConfigError, match=r"extra: not a metric of all runs\. There are dice, dice/cup"):
        compare([a, b], metrics=["extra"])
    with pytest.raises(ConfigError, match="Did you mean 'dice/cup'"):
        compare([a, b], metrics=["dice/cupp"])


def test_runs_need_names_of_their_own_and_company() -> None:
    a = run("a", dice=[0.1])
    for runs in ([a], [a, a], []):
        with pytest.raises(ConfigError, match="expected two or more of different names"):
            compare(runs)
    with pytest.raises(DataError, match="no metric in common"):
        compare([a, run("b", iou=[0.1])])


def test_a_case_without_a_number_is_left_out_of_its_metric(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [{"name": "x", "dice": 0.5, "hd95": None}, {"name": "y", "dice": 0.6, "hd95": 3}])
    b = write(tmp_path / "b", [{"name": "x", "dice": 0.7, "hd95": 2}, {"name": "y", "dice": 0.6, "hd95": 5}])
    found = compare([read_run(a, "a"), read_run(b, "b")])
    assert {row.metric: row.values for row in found.differences} == {"dice": (0.2, 0.0), "hd95": (2.0,)}
    write(tmp_path / "b", [{"name": "x", "dice": 0.7, "hd95": 2}, {"name": "y", "dice": 0.6}])
    with pytest.raises(DataError, match="no case in which both have a hd95"):
        compare([read_run(a, "a"), read_run(b, "b")])


def test_scores_are_read_with_their_groups(tmp_path: Path) -> None:
    cases = [
        {"name": "x", "dice": 1, "group": "p1"},
        {"name": "y", "dice": 0.5, "group": ""},
        {"name": "p1", "dice": 0},
    ]
    read = read_run(write(tmp_path, cases))
    assert read.name == str(tmp_path)
    assert read.scores.columns == {Measure("dice"): {"x": 1.0, "y": 0.5, "p1": 0.0}}
    assert len({read.scores.cluster(name) for name in read.scores.groups}) == 3  # a case is no patient of that name


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected metrics.json.*found no such folder"):
        read_run(tmp_path / "gone")
    with pytest.raises(DataError, match="expected metrics.json.*found nothing"):
        read_run(tmp_path)
    for text in ("{", "[]", '{"cases": [{}]}', '{"cases": 3}', '{"cases": [3]}'):
        (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="expected what 'medsegdiff evaluate --out' writes"):
            read_run(tmp_path)
    with pytest.raises(DataError, match="holds no case"):
        read_run(write(tmp_path, []))


def test_a_comparison_is_written_with_its_plot(tmp_path: Path) -> None:
    runs = [run(name, dice=list(noise(i)), iou=list(noise(i) + i), x=[float(i)] * 60) for i, name in enumerate("abc")]
    compare(runs).save(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert told["runs"] == ["a", "b", "c"]
    assert [row["real"] for row in told["differences"]] == [False, False, True, True, True, True]
    assert {"difference", "ci95", "p", "p_holm", "real"} == set(told["conventions"])
    with Image.open(tmp_path / "out" / "differences.png") as picture:
        assert picture.width > 1000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0xB2, 0x18, 0x2B), (0x4D, 0x4D, 0x4D)} <= colours  # real and not


def test_scores_that_mean_different_things_are_refused() -> None:
    a, b = (
        replace(run(name, dice=[0.1, 0.2]), setup=Setup(structures=of))
        for name, of in (("a", ("x",)), ("b", ("x", "y")))
    )
    with pytest.raises(DataError, match=r"different structures: \['x'\] and \['x', 'y'\]"):
        compare([a, b])
    a, b = (replace(run(name, dice=[0.1, 0.2]), setup=Setup(members=of)) for name, of in (("a", 16), ("b", 0)))
    assert "a 16, b none" in compare([a, b]).remarks[0]


def test_chosen_members_beside_drawn_ones_are_remarked() -> None:
    drawn, chosen = (
        replace(run(name, ged=[0.1, 0.2]), setup=Setup(members=10, members_least=10, chosen_of=of))
        for name, of in (("drawn", None), ("chosen", 100))
    )
    (remark,) = compare([drawn, chosen]).remarks
    assert "drawn: drawn, chosen: 10 members chosen of 100 candidates" in remark
    assert compare([drawn, replace(drawn, name="again")]).remarks == ()


def test_cases_without_a_number_are_counted_where_they_are_left_out() -> None:
    a, b = (run(name, dice=[0.5, 0.6, 0.7], nsd=[0.1, 0.2, 0.3]) for name in "ab")
    assert compare([a, b]).remarks == ()
    gone = {measure: {k: v for k, v in of.items() if measure.metric != "nsd" or k != "c01"} for measure, of in
            b.scores.columns.items()}  # fmt: skip
    (remark,) = compare([a, Run("b", Scores(b.scores.groups, gone))]).remarks
    assert remark == "Cases without a number in one of the runs are left out: nsd 1 of 3."


def test_runs_of_different_structures_are_not_compared_whatever_form_their_files_have() -> None:
    """A mean over cup and disc is none over cup and rim; the order of names makes no difference."""
    one = run("one", dice=[0.5, 0.6], dice__cup=[0.5, 0.6], dice__disc=[0.5, 0.6])
    two = run("two", dice=[0.5, 0.6], dice__cup=[0.5, 0.6], dice__rim=[0.5, 0.6])
    told = replace(two, setup=Setup(structures=("rim", "cup")))
    for other in (two, told):
        with pytest.raises(DataError, match=r"different structures: \['cup', 'disc'\] and \['cup', 'rim'\]"):
            compare([one, other])
    turned = replace(one, name="turned", setup=Setup(structures=("disc", "cup")))
    assert compare([one, turned]).differences[0].mean == 0
