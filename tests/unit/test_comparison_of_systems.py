"""Tables 1 to 3 of one's own: which preset stands for a row, which columns data fill, seeds and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.errors import ConfigError
from medsegdiff.evaluation.results import Results, Setup
from medsegdiff.evaluation.scores import Measure, Scores
from medsegdiff.models.base import MODELS
from medsegdiff.paper.comparison import beginnings, collect, scored
from medsegdiff.paper.comparison_plan import ComparisonPlan
from medsegdiff.paper.given import Fitted, fitted, parse_given
from medsegdiff.paper.results import Score
from medsegdiff.paper.systems import COMPARISONS, Size, System, find_systems, published
from medsegdiff.paper.tables import load_table
from medsegdiff.training.plan import check_sampling
from tests.published import btcv

DICE = Measure("dice")


def results(values: Mapping[str, float], groups: Mapping[str, str] | None = None) -> Results:
    """Scores of one metric by case."""
    of_group = groups or dict.fromkeys(values, "")
    scores = Scores.of_cases((case, of_group[case], {DICE: value}) for case, value in values.items())
    return Results(scores, scores.means(), Setup())


def isic(*runs: Results) -> Score:
    columns = [column for column in load_table("table1").columns if column.title == "ISIC Dice"]
    return scored(columns, runs)["ISIC Dice"]


def test_seeds_are_averaged_within_a_case_before_cases_are_drawn() -> None:
    """Two seeds that err in opposite ways in every case leave nothing to vary: the interval has no width."""
    cases = [f"case{i}" for i in range(20)]
    sign = {case: (-1) ** i for i, case in enumerate(cases)}
    one, two = ({case: 0.5 + way * 0.3 * sign[case] for case in cases} for way in (1, -1))
    score = isic(results(one), results(two))
    assert score.mean == pytest.approx(50)
    assert score.interval == pytest.approx((50, 50))
    assert isic(results(one)).interval != pytest.approx((50, 50), abs=5)


def test_intervals_are_those_of_a_bootstrap_by_hand_over_patients() -> None:
    rng = np.random.default_rng(1)
    groups = {f"case{i}": f"patient{i // 3}" for i in range(45)}
    level = dict(zip(sorted(set(groups.values())), rng.uniform(0.4, 0.9, 15), strict=True))
    runs = [{case: level[of] + rng.normal(0, 0.05) for case, of in groups.items()} for _ in range(3)]
    by_patient: dict[str, list[float]] = {}
    for case, of in groups.items():
        by_patient.setdefault(of, []).append(float(np.mean([run[case] for run in runs])))
    means = np.array([np.mean(values) for values in by_patient.values()])
    drawn = np.random.default_rng(5).choice(means, size=(200_000, len(means))).mean(axis=1)
    score = isic(*(results(run, groups) for run in runs))
    assert score.mean == pytest.approx(100 * means.mean())
    assert score.interval == pytest.approx(tuple(100 * np.quantile(drawn, [0.025, 0.975])), abs=0.6)


def test_of_two_cases_the_interval_reaches_from_one_to_the_other() -> None:
    """A quarter of all resamples of two is twice the same, for either: both 2.5 % ends are a case's own number."""
    assert isic(results({"a": 0.2, "b": 0.6})).interval == pytest.approx((20, 60))


def test_cases_that_a_seed_lacks_are_left_out_and_numbers_that_it_lacks_are_not_counted() -> None:
    one, two = results({"a": 0.2, "b": 0.6, "c": 0.9}), results({"a": 0.4, "b": float("nan")})
    averaged = Scores.averaged([one.scores, two.scores])
    assert dict(averaged.columns[DICE]) == pytest.approx({"a": 0.3, "b": 0.6})
    assert list(averaged.groups) == ["a", "b"]


def test_each_row_has_one_preset_which_tells_so_and_a_small_one_beside_it() -> None:
    rows = [row for name in COMPARISONS for row in load_table(name).rows]
    by_row = published()
    for name in by_row:
        assert any(row.is_called(name) for row in rows) or load_table("table5").row(name), name
    for row in rows:
        assert len({preset for name, preset in by_row.items() if row.is_called(name)}) <= 1, row.method
    for table in map(load_table, COMPARISONS):
        for size in ("tiny", "full"):
            found, lacking = find_systems(table, size=size)
            assert lacking == []
            assert [system.name for system in found] == [row.method for row in table.rows]
            assert {system.preset for system in found} <= set(preset_names())
    assert by_row["MedSegDiff-V2"] == "v2-paper"


def test_rows_are_found_by_any_name_and_in_any_letters() -> None:
    one, two = load_table("table1"), load_table("table2")
    assert find_systems(one, ["ENSDIFF", "medsegdiff-v2"], size="tiny")[0] == [
        System("EnsemDiff", "ensdiff-tiny"),
        System("MedSegDiff-V2", "v2-tiny"),
    ]
    assert find_systems(two, ["EnsemDiff"], size="full")[0] == [System("EnsDiff", "ensdiff")]
    assert find_systems(one, ["Anchor", "v2-fast"], size="full")[0] == [
        System("Anchor", "anchor"),  # a row of tables 2 and 3
        System("v2-fast", "v2-fast"),  # a preset that is no row
    ]
    assert find_systems(one, ["segdiff"], size="tiny")[0] == [
        System("SegDiff", "segdiff-tiny")
    ]  # a row before a preset
    with pytest.raises(ConfigError, match="No system 'SegDif' in table1.*Did you mean 'SegDiff'"):
        find_systems(one, ["SegDif"], size="tiny")


def test_a_row_without_a_preset_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsegdiff.paper.systems.published", lambda: {"nnUNet": "nnunet", "MSD-Trans": "nowhere"})
    found, lacking = find_systems(load_table("table2"), ["nnUNet", "UNetr", "MedSegDiff+TransUNet"], size="tiny")
    assert found == [System("nnUNet", "nnunet-tiny")]
    assert lacking == ["UNetr", "MedSegDiff+TransUNet"]


def named(fit: Fitted) -> list[str]:
    return [column.title for column in fit.columns]


@pytest.mark.parametrize(
    ("name", "structures", "expected"),
    [
        ("table2", ["gallbladder", "Inferior_Vena_Cava", "spleen"], ["Spleen", "Gall.", "IVC", "Avg.", "mean of 3"]),
        ("table2", ["tumour", "rim"], ["Avg.", "tumour", "rim", "mean of 2"]),
        ("table2", ["lesion"], ["Avg.", "lesion"]),
        ("table3", ["adrenal glands"], ["AG", "Ave"]),
    ],
)
def test_structures_of_one_s_own_fill_the_columns_that_have_their_name(
    name: str, structures: list[str], expected: list[str], tmp_path: Path
) -> None:
    table = load_table(name)
    (given,) = parse_given([str(tmp_path)], table)
    fit = fitted(given, structures, table)
    assert named(fit) == [*expected, "steps", "seconds"]
    assert any("left out" in note for note in fit.notes)
    own = [column for column in fit.columns if column.name in structures]
    assert all(column.whose == "ours" and column.is_of(column.name) for column in own)


def test_all_fifteen_organs_of_amos_fill_the_table_of_amos() -> None:
    table = load_table("table2")
    (given,) = parse_given(["amos=phantom"], table)
    organs = [column.classes[0] for column in table.columns if column.classes]
    fit = fitted(given, organs, table)
    assert named(fit) == [*(column.title for column in table.columns), "steps", "seconds"]
    assert fit.notes == ()


def told(name: str, texts: Sequence[str], structures: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    table = load_table(name)
    (given,) = parse_given(texts, table)
    fit = fitted(given, structures, table)
    return [title for title in named(fit) if title.endswith("Dice")], fit.notes


def test_a_name_takes_all_columns_that_it_heads_and_no_other() -> None:
    disc, cup = "REFUGE2-Disc Dice", "REFUGE2-Cup Dice"
    assert told("table1", ["refuge2=phantom"], ["disc", "cup"]) == ([disc, cup], ())
    assert told("table1", ["REFUGE2-cup=phantom"], ["anything"]) == ([cup], ())
    titles, notes = told("table1", ["REFUGE2-cup=phantom"], ["disc", "cup"])
    assert (titles, notes) == ([cup], ("REFUGE2-Cup: scored but not shown: disc.",))
    titles, notes = told("table1", ["isic=phantom"], ["hair", "nevus"])
    assert (titles, "left out are ISIC; the structures of the data are hair, nevus." in notes[0]) == ([], True)


def test_data_stand_in_the_order_of_the_table() -> None:
    names = [given.name for given in parse_given(["isic=a", "brats2021=b", "refuge2=c"], load_table("table1"))]
    assert names == ["REFUGE2", "BraTs2021", "ISIC"]


def test_data_that_the_paper_has_not_have_columns_of_ours_behind_the_others() -> None:
    heart, isic = parse_given(["other:heart=a", "isic=b"], load_table("table1"))[::-1]
    assert (isic.name, heart.name) == ("ISIC", "heart")
    fit = fitted(heart, ["ventricle", "atrium"], load_table("table1"))
    assert named(fit)[:3] == ["heart Dice", "heart IoU", "heart HD95"]
    assert {column.whose for column in fit.columns} == {"ours"}
    assert fit.notes == ()
    with pytest.raises(ConfigError, match="given as other:heart=a"):
        parse_given(["heart=a"], load_table("table1"))
    with pytest.raises(ConfigError, match="not of the form other:NAME=FOLDER"):
        parse_given(["other:heart"], load_table("table1"))


def plan(*systems: str, data: str = "phantom", **changed: object) -> ComparisonPlan:
    table = load_table("table1")
    found, _ = find_systems(table, systems, size="tiny")
    return ComparisonPlan(table, parse_given([f"isic={data}"], table), tuple(found), 2.0, **changed)  # type: ignore[arg-type]


def test_what_is_changed_of_a_network_concerns_those_that_have_it(caplog: pytest.LogCaptureFixture) -> None:
    asked = plan("nnUNet", "SegDiff", "MedSegDiff-V2", changes=("model.channels=8", "train.batch_size=3"))
    asked.check()
    configs = [asked.config(system, asked.given[0]) for system in asked.systems]
    own = load_preset("v2-tiny").model
    assert [getattr(config.model, "channels", None) for config in configs] == [8, 8, None]
    assert configs[2].model == own
    assert {config.train.batch_size for config in configs} == {3}
    plan("nnUNet", changes=("model.time_dim=8",)).check()
    assert "model.time_dim=8: none of these systems has such a key" in caplog.text
    with pytest.raises(ConfigError, match="what the systems differ in"):
        plan("nnUNet", changes=("model.name=segdiff",)).check()


def test_time_is_the_only_limit_and_all_may_have_one_recipe() -> None:
    own, common = (plan("nnUNet", recipe=recipe) for recipe in ("own", "common"))
    configs = [asked.config(asked.systems[0], asked.given[0], 4) for asked in (own, common)]
    for config in configs:
        assert (config.train.max_minutes, config.train.seed) == (2.0, 4)
        assert min(config.train.max_steps, config.train.val_every) >= 10**9
    v2 = load_preset("v2-fast-tiny").train
    assert configs[0].train.optimizer == "sgd"
    assert (configs[1].train.optimizer, configs[1].train.learning_rate) == (v2.optimizer, v2.learning_rate)


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_every_system_can_be_trained_by_its_own_recipe_and_by_one_that_is_the_same_for_all(size: Size) -> None:
    table = load_table("table1")
    systems, _ = find_systems(table, [*(row.method for row in table.rows), "Anchor"], size=size)
    given = parse_given(["isic=phantom"], table)
    alike = set()
    for recipe in ("own", "common"):
        asked = ComparisonPlan(table, given, tuple(systems), 1.0, size=size, recipe=recipe)
        for system in systems:
            config = asked.config(system, given[0])
            check_sampling(config)
            train, data = config.train, config.data
            told = (train.optimizer, train.learning_rate, train.lr_schedule, train.batch_size, train.ema_decay)
            alike |= {(*told, data.augment, data.augmentation, data.image_size)} if recipe == "common" else set()
    assert len(alike) == 1


def test_members_and_steps_are_asked_of_ensembles_alone(tmp_path: Path) -> None:
    one, two = plan("nnUNet", "SegDiff", data=str(tmp_path), members=3, steps=2).trials(tmp_path / "out")
    assert one.asked == {"seed": 0}
    assert two.asked == {"members": 3, "steps": 2, "seed": 0}


def test_btcv_is_read_with_both_adrenal_glands_as_one_as_in_table_3_unless_one_says_otherwise(tmp_path: Path) -> None:
    table = load_table("table3")
    found, _ = find_systems(table, ["Anchor"], size="tiny")
    given = parse_given([str(btcv(tmp_path / "abdomen"))], table)
    layouts = [
        ComparisonPlan(table, given, tuple(found), 1.0, changes=changes).config(found[0], given[0]).data.layout
        for changes in ((), ("data.layout=btcv",))
    ]
    assert layouts == ["btcv-12", "btcv"]
    assert given[0].name == "btcv"


def test_weights_that_authors_began_with_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = MODELS["nnunet"].facts
    monkeypatch.setitem(facts.__dict__, "pretrained", "ResNet-34 on ImageNet")
    notes = collect(plan("nnUNet", "SegDiff", data=str(tmp_path)), tmp_path / "out").table.notes
    assert notes[-1] == "Weights that the authors began with, and ours do not: nnUNet (ResNet-34 on ImageNet)."


def test_weights_that_a_run_began_with_are_told_by_their_file(tmp_path: Path) -> None:
    asked = plan("TransUNet", "BEAL", data=str(tmp_path), changes=("model.weights=weights/R50.npz",))
    trials = [trial for trial in asked.trials(tmp_path) if trial.row == "TransUNet"]
    scratch, begun = beginnings(asked, trials)
    assert scratch == "Weights that the authors began with, and ours do not: BEAL (MobileNetV2, ImageNet)."
    assert begun == "Begun with weights from files: TransUNet (R50.npz)."
