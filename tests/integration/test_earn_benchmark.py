"""The comparison of the ensemble with its rivals: what trials leave, and the page that follows from that alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.makers import small_config

ROOT = Path(__file__).parents[2]
NAMES = ("earn", "earn_members", "earn_page", "earn_plan", "earn_results", "earn_statistics", "earn_threshold")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of the benchmark, which are no package; none of them stays behind."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield SimpleNamespace(**{name: __import__(name) for name in NAMES})
    for name in set(sys.modules) - before:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def outcome(scripts: SimpleNamespace, system: str, *, rows: dict[str, float], seed: int = 0):
    """A trial on 24 slices of 8 patients; each row's Dice is larger by its number, and its GED² and NLL lower."""
    results, rng = scripts.earn_results, np.random.default_rng(7)
    cases = [f"slice{i:02d}" for i in range(24)]
    base, jitter = rng.uniform(0.5, 0.8, 24), np.random.default_rng(seed).normal(0, 0.002, 24)

    def columns(gain: float) -> dict[str, dict[str, float]]:
        good = {"dice": base + gain + jitter}
        bad = dict.fromkeys(("hd95", "ged", "ece_near", "nll_near", "doubt"), 0.5 - base / 2 - gain / 2 + jitter)
        return {name: dict(zip(cases, values.tolist(), strict=True)) for name, values in (good | bad).items()}

    made = {name: results.Row(columns(gain), 0.1, 2.0, 10, 10) for name, gain in rows.items()}
    rules = {rule: {"dice": columns(0.0)["dice"]} for rule in ("majority", "STAPLE")} if system == "v2" else {}
    sizes = {"ventricle": dict(zip(cases, range(24), strict=True))}
    return results.Outcome(
        key=results.Key("heart_lv", system, 6.0, seed),
        groups={case: f"P{i // 3}" for i, case in enumerate(cases)},
        sizes=sizes,
        rows=made,
        rules=rules,
        steps=100,
        train_seconds=1.0,
        image_size=64,
        sampling={"members": 10},
        calibration={"cases": 9, "anchor": 0.4, "mixture": 0.3},
        machine="m",
        recipe="r",
    )


def test_a_trial_comes_back_from_its_file_but_for_digits(scripts: SimpleNamespace, tmp_path: Path) -> None:
    made = outcome(scripts, "v2", rows={"v2": 0.1, "anchor": 0.0})
    made.rows["v2"].columns["dice"]["slice03"] = float("nan")
    made.save(tmp_path)
    (back,) = scripts.earn_results.read_all(tmp_path)
    assert (back.key, back.groups, back.steps, back.sampling) == (made.key, made.groups, 100, {"members": 10})
    before, after = (of.rows["v2"].columns["dice"] for of in (made, back))
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-4)
    assert list(after) == list(before)


def test_the_page_tells_what_was_planted_and_what_is_missing(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [
        outcome(scripts, "v2", rows={"v2": 0.10, "anchor": 0.08, "anchor-tuned": 0.09}, seed=seed) for seed in (0, 1)
    ]
    trials.append(outcome(scripts, "nnunet", rows={"nnunet": 0.06}))
    scripts.earn_page.write(trials, tmp_path)
    page = (tmp_path / "earn.md").read_text(encoding="utf-8")
    dice = np.mean([list(of.rows["v2"].columns["dice"].values()) for of in trials[:2]], axis=0)
    assert f"| MedSegDiff-V2 | {100 * dice.mean():.2f} [" in page
    assert "Dice is above that of the best rival (nnU-Net): +4.0" in page
    assert "above that of the better of its own anchors (its anchor, tuned): +1.0" in page
    assert "GED² is below that of all 3." in page
    assert "24 test cases of 8 patients" in page
    assert "| EnsDiff | – | – |" in page
    assert "MedSegDiff-V2 (2); the network alone (0, 1, 2); nnU-Net (1, 2)" in page
    assert (tmp_path / "earn_heart_lv_6min_differences.png").exists()


def test_equal_systems_cannot_be_told_apart(scripts: SimpleNamespace, tmp_path: Path) -> None:
    v2 = outcome(scripts, "v2", rows={"v2": 0.1, "anchor": 0.0, "anchor-tuned": 0.0})
    trials = [v2, outcome(scripts, "nnunet", rows={"nnunet": 0.1}, seed=3)]
    scripts.earn_page.write(trials, tmp_path)
    page = (tmp_path / "earn.md").read_text(encoding="utf-8")
    assert "Dice is not to be told from that of the best rival (nnU-Net)" in page
    assert "points can't be seen here" in page


def test_small_structures_are_the_smallest_third_of_those_that_are_there(scripts: SimpleNamespace) -> None:
    cases = ["a", "b", "c"]
    sizes = {"cup": {"a": 1.0, "b": 0.0, "c": 30.0}, "disc": {"a": 40.0, "b": 2.0, "c": 50.0}}
    columns = {"dice/cup": {"a": 0.2, "b": 1.0, "c": 0.9}, "dice/disc": {"a": 0.9, "b": 0.4, "c": 0.9}, "dice": {}}
    found = scripts.earn_statistics.small_dice(columns, sizes, cases)
    assert (found["a"], found["b"]) == (0.2, 0.4)
    assert np.isnan(found["c"])


def test_the_error_of_a_perfect_sampler_is_what_simulation_gives(scripts: SimpleNamespace) -> None:
    p, rng = np.array([0.2, 0.5, 0.9]), np.random.default_rng(0)
    told = scripts.earn_members.error_of_perfect(
        {"p rim": dict(zip("abc", p.tolist(), strict=True))}, "rim", members=10
    )
    drawn = rng.binomial(10, p, size=(40_000, 3)) / 10
    assert told == pytest.approx(np.abs(drawn - p).mean(), abs=1e-3)


def test_a_shifted_and_overconfident_probability_is_set_right(scripts: SimpleNamespace) -> None:
    from medsegdiff.evaluation.case import Structure

    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, (96, 96))
    truth = rng.random((96, 96)) < 1 / (1 + np.exp(-logit))
    p = (1 / (1 + np.exp(-(2 * logit + 1)))).astype(np.float32)
    one = Structure("s", {"reference": truth}, p >= 0.5, None, p, None, None)
    mixture = scripts.earn_threshold.scaling_of([one])
    assert mixture.slopes[0] == pytest.approx(0.5, abs=0.05)
    assert mixture.offsets[0] == pytest.approx(-0.5, abs=0.1)
    right = scripts.earn_threshold.scaled(one, mixture)
    dice = [2 * (truth & (right >= at)).sum() / (truth.sum() + (right >= at).sum()) for at in np.arange(1, 20) / 20]
    assert scripts.earn_threshold.best_threshold([one], mixture) == pytest.approx((1 + int(np.argmax(dice))) / 20)


def test_a_small_trial_runs_from_data_to_page(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SIZE": 32, "TRAIN": 16, "VAL": 5, "TEST": 4}.items():
        monkeypatch.setattr(scripts.earn_plan, f"PHANTOM_{name}", value)
    small = small_config("train.max_steps=2", "train.val_every=2", "train.save_every=2", "data.image_size=32")
    monkeypatch.setattr(scripts.earn, "config_of", lambda *asked, **settings: small)
    given = ["--data", "phantom", "--systems", "v2", "--seeds", "1", "--minutes", "0.01", "--cases", "4"]
    monkeypatch.setattr(sys, "argv", ["earn", *given, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    scripts.earn.main()
    (trial,) = scripts.earn_results.read_all(tmp_path / "earn")
    assert set(trial.rows) == {"v2", "anchor", "anchor-tuned"}
    assert len(trial.groups) == 4
    page = (tmp_path / "earn.md").read_text(encoding="utf-8")
    assert "| expected Dice, mixture |" in page
    assert "| ten members drawn as raters are | 1.00 |" in page
