"""``medsegdiff paper figure3``: its last point is what ``segment`` and ``evaluate`` give."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.fusion.curve import Curve, pool, score_subsets
from medsegdiff.metrics.overlap import dice
from medsegdiff.models.base import build_model
from medsegdiff.paper.figure3 import EnsemblePlan, benchmark_ensemble, scores_of, source_of, tables, titles
from medsegdiff.pictures.curves import members_curves
from medsegdiff.types import Case, Geometry
from tests.integration.test_volumes import identity, phantom
from tests.makers import randomised, small_config
from tests.program import call
from tests.volumes import save


def test_the_curve_ends_where_segment_and_evaluate_are(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scored from the files that were written, by other code."""
    run, data = trained
    options = ("--members", "4", "--steps", "1", "--seed", "3")
    called = ("paper", "figure3", run, data, *options, "--repeats", "2", "--split", "all")
    assert call(*called, "--out", tmp_path / "curve", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "curve" / "curve.json").read_text())
    assert call("segment", data, "--model", run, "--out", tmp_path / "out", *options) == 0
    found = told["runs"]["run"]
    expected = evaluate(tmp_path / "out", data)
    assert found["cases"] == len(expected.scores) == 12
    assert found["num_members"] == [1, 2, 3, 4]
    assert found["dice"][-1] == pytest.approx(expected.mean("dice").mean, abs=1e-9)
    assert found["dice"][0] != found["dice"][-1]
    with (tmp_path / "curve" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in rows] == pytest.approx(found["dice"])
    assert (tmp_path / "curve" / "curve.png").stat().st_size > 10_000


def test_a_table_has_a_row_for_each_run(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    other = shutil.copytree(run, tmp_path / "again")
    options = ("--members", "12", "--steps", "1", "--repeats", "2", "--cases", "2", "--split", "all")
    assert call("paper", "figure3", run, other, data, *options, "--fusion", "mean") == 0
    shown = capsys.readouterr()
    heading, run_row, other_row = (
        line.split() for line in shown.out.splitlines() if line.split()[:1] in (["run"], ["again"])
    )
    assert " ".join(heading) == "run cases Dice, 1 Dice, 10 Dice, 12 convergence"
    assert run_row[:2] == ["run", "2"]
    assert run_row[1:] == other_row[1:]
    assert "convergence: The smallest number" in shown.err


@pytest.mark.parametrize(("task", "classes"), [("exclusive", "[bg, a, b]"), ("regions", "[disc, cup]")])
def test_several_structures_are_fused_and_scored_as_by_the_segmenter(task: str, classes: str) -> None:
    config = small_config("data.channels=1", f"data.task={task}", f"data.classes={classes}")
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    image, drawn = rng.random((1, 30, 40), np.float32), rng.integers(0, 3, (3, 30, 40))
    mask = np.stack([drawn == c for c in range(3)], axis=1) if task == "exclusive" else drawn[:, None] >= [[[1]], [[2]]]
    nobody = (rng.random((3, 30, 40)) > 0.9).astype(np.uint8)
    case = Case("x", image, mask.astype(np.uint8), Geometry((30, 40), (1.0, 1.0)), ignored=nobody)
    result = segmenter([case], members=5, steps=2)[0]
    found = score_subsets(tables(result, case), {5: np.arange(5)[None]}, fusion="staple")[5]
    known = ~nobody.any(axis=0)
    truth = (mask.sum(axis=0) >= 2)[int(task == "exclusive") :] & known
    with pytest.raises(DataError, match="no reference mask"):
        tables(result, dataclasses.replace(case, mask=None))
    pairs = zip(result.labels.masks(result.mask).astype(bool) & known, truth, strict=True)
    assert found == pytest.approx([np.mean([dice(p, r) for p, r in pairs])])


def test_volumes_are_scored_whole(tmp_path: Path) -> None:
    """A network that sees the structure exactly: Dice is 1 with one member as with all."""
    segmenter, voxels = identity(), phantom((7, 6, 5))
    for file in itertools.product(("images", "masks"), ("a", "b", "c")):
        save(tmp_path / f"{'/'.join(file)}.nii.gz", voxels)
    source = source_of(tmp_path, segmenter.config.data)
    plan = EnsemblePlan(members=3, steps=1, repeats=2)
    (scores,) = scores_of(segmenter, source, ["a"], plan)
    assert {size: values.tolist() for size, values in scores.items()} == {1: [1, 1], 2: [1, 1], 3: [1]}


def test_cases_of_which_nobody_labelled_a_pixel_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, voxels = identity(), phantom((7, 6, 5))
    for file in itertools.product(("images", "masks"), ("a", "b", "c")):
        save(tmp_path / f"{'/'.join(file)}.nii.gz", voxels)
    source = source_of(tmp_path, segmenter.config.data)
    load, nobody = source.load, np.ones((1, *voxels.shape), np.uint8)
    monkeypatch.setattr(
        source, "load", lambda name: dataclasses.replace(load(name), ignored=nobody if name == "b" else None)
    )
    plan = EnsemblePlan(members=3, steps=1, repeats=2)
    assert len(list(scores_of(segmenter, source, ["a", "b", "c"], plan))) == 2
    assert "Cases of which nobody labelled a pixel are left out: 1 (b)." in caplog.text
    with pytest.raises(DataError, match="no case to score"):
        pool(list(scores_of(segmenter, source, ["b"], plan)))


def test_runs_that_hold_out_other_cases_are_not_compared(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    other = shutil.copytree(run, tmp_path / "other")
    lines = (run / "split.csv").read_text().splitlines()
    names = [line.split(",")[0] for line in lines[1:]]
    (other / "split.csv").write_text("\n".join(["id,split", *(f"{n},test" for n in names[:2]), f"{names[2]},train"]))
    plan = EnsemblePlan(members=2, steps=1, repeats=1, fusion="majority")
    with pytest.raises(DataError, match="holds out other cases"):
        benchmark_ensemble([run, other], data, plan)


def test_what_can_t_be_measured_is_refused(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    for arguments, words in (
        ((data,), "give one or several folders of runs"),
        ((run, run, data), "given twice"),
        ((run, data, "--fusion", "own"), "allowed are staple"),
    ):
        assert call("paper", "figure3", *arguments) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(ConfigError, match="There is no run"):
        benchmark_ensemble([], data, EnsemblePlan())


def test_runs_of_one_folder_name_are_told_apart() -> None:
    assert titles([Path("a/run"), Path("b/run"), Path("c/v2")]) == ["a/run", "b/run", "v2"]


def test_a_plot_has_a_line_and_a_ring_for_each_of_many_curves() -> None:
    flat = Curve(np.arange(1, 31), np.full(30, 0.8), np.full(30, 0.01), 3)
    (axis,) = members_curves({f"run {i}": flat for i in range(12)}).axes
    assert len(axis.collections) == 12
    assert [line.get_xdata().tolist() for line in axis.lines[1::2]] == [[11]] * 12  # no change over the last ten
