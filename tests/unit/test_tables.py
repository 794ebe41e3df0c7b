"""The paper's tables as data: sums recomputed, errors marked, columns that our scores can fill."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.open import layouts
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.metrics.base import METRICS
from medsegdiff.paper.formats import FORMATS, as_csv, as_latex, as_text
from medsegdiff.paper.layout import SIGNS, lay_out
from medsegdiff.paper.results import Ours, Score, gather, parse_result
from medsegdiff.paper.tables import COSTS, PaperTable, Row, load_table, table_names

TABLES = ("table1", "table2", "table3", "table4", "table5")
FULL = {"dice": {"mean": 0.9, "ci95": [0.85, 0.95]}}


def impossible(table: PaperTable) -> set[tuple[str, str]]:
    return {cell for fault in table.faults if fault.kind == "impossible" for cell in fault.cells}


def number(row: Row, title: str) -> float:
    value = row.cells[title]
    assert value is not None
    return value


def scores(folder: Path, *, cases: int = 3, **summary: float) -> Path:
    """Write scores with an interval of ±0.05; a double underscore stands for the slash before a structure."""
    told = {key.replace("__", "/"): {"mean": m, "ci95": [m - 0.05, m + 0.05]} for key, m in summary.items()}
    folder.mkdir(parents=True)
    rows = [{"name": f"case{i}"} for i in range(cases)]
    (folder / "metrics.json").write_text(json.dumps({"summary": told, "cases": rows}), encoding="utf-8")
    return folder


def filled(table: PaperTable, *results: str) -> Ours:
    (ours,) = gather(table, [parse_result(result, table) for result in results])
    return ours


def test_the_tables_are_those_of_the_paper() -> None:
    assert tuple(table_names()) == TABLES
    shapes = {name: (len(load_table(name).rows), len(load_table(name).rows[0].cells)) for name in TABLES}
    assert shapes == {"table1": (17, 11), "table2": (10, 16), "table3": (10, 13), "table4": (5, 5), "table5": (7, 5)}
    with pytest.raises(ConfigError, match="No table 'table6'"):
        load_table("table6")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_in_order(name: str) -> None:
    table = load_table(name)
    titles = [column.title for column in table.columns]
    methods = [row.method for row in table.rows]
    assert len(set(titles)) == len(titles)
    assert len({name.casefold() for row in table.rows for name in (row.method, *row.aliases)}) == sum(
        1 + len(row.aliases) for row in table.rows
    )
    assert len(table.faults) <= len(SIGNS)
    for fault in table.faults:
        assert fault.kind in ("impossible", "undefined", "reading")
        assert fault.cells or fault.columns
        assert fault.columns <= set(titles)
        assert {method for method, _ in fault.cells} <= set(methods)
        assert {title for _, title in fault.cells} <= set(titles)
    assert all(set(row.parts) <= set(table.parts) for row in table.rows)
    known = {metric.name for metric in METRICS} | {*COSTS, "ged", ""}
    assert {column.metric for column in table.columns} <= known


def test_exactly_the_marked_cells_of_table_1_break_the_identity_of_iou_and_dice() -> None:
    """IoU is Dice / (2 − Dice) in a case and convex, so means keep IoU ≥ Dice / (2 − Dice), and IoU ≤ Dice."""
    table, broken, literally, pairs = load_table("table1"), set(), 0, 0
    for row in table.rows:
        for data in table.data:
            dice, iou = number(row, f"{data} Dice"), number(row, f"{data} IoU")
            assert iou <= dice
            pairs += 1
            literally += iou < 100 * dice / (200 - dice)
            least = dice - 0.05  # what rounds to the printed number
            if iou + 0.05 < 100 * least / (200 - least):
                broken.add((row.method, f"{data} IoU"))
    assert broken == impossible(table)
    assert (pairs, literally, len(broken)) == (85, 16, 15)


@pytest.mark.parametrize(
    ("name", "average", "marked"), [("table2", "Avg.", {"UNetr"}), ("table3", "Ave", {"TransUNet"})]
)
def test_exactly_the_marked_averages_are_not_those_of_their_rows(name: str, average: str, marked: set[str]) -> None:
    """Cells are rounded to 0.001, and so is their mean: they may be 0.001 apart, no more."""
    table, wrong = load_table(name), set()
    for row in table.rows:
        organs = [number(row, column.title) for column in table.columns if column.title != average]
        if abs(sum(organs) / len(organs) - number(row, average)) > 0.001 + 1e-9:
            wrong.add((row.method, average))
    assert wrong == impossible(table) == {(method, average) for method in marked}


def test_tables_agree_where_they_repeat_each_other() -> None:
    one, two, three, four, five = map(load_table, TABLES)
    last = four.rows[-1]
    assert last.method == "MedSegDiff-V2"
    best = {table.name: table.row("MedSegDiff-V2") for table in (one, two, three, five)}
    assert all(best.values())
    assert number(last, "AMOS Ave-Dice") == pytest.approx(100 * number(best["table2"], "Avg."))  # type: ignore[arg-type]
    assert number(last, "BTCV Ave-Dice") == pytest.approx(100 * number(best["table3"], "Ave"))  # type: ignore[arg-type]
    for column, other in (
        ("OpticCup Dice", "REFUGE2-Cup Dice"),
        ("BrainTumor Dice", "BraTs Dice"),
        ("ThyroidNodule Dice", "TNMIX Dice"),
    ):
        assert number(last, column) == number(best["table1"], other)  # type: ignore[arg-type]
    for row in five.rows:  # the modules alone are in table 4, as far as they are there at all
        if there := one.row(row.method) or one.row((*row.aliases, "")[0]):
            assert number(row, "Dice") == number(there, "REFUGE2-Cup Dice"), row.method
    bone = five.row("bone + U-SA")
    assert bone is not None
    assert number(bone, "Dice") == number(four.rows[2], "OpticCup Dice")


def test_what_the_text_says_of_the_tables_is_so() -> None:
    """2.0, 1.9 and 3.9 points over MedSegDiff in table 1; each part of table 4 adds something everywhere."""
    one, four = load_table("table1"), load_table("table4")
    ours, theirs = one.row("MedSegDiff-V2"), one.row("MedSegDiff")
    assert ours is not None
    assert theirs is not None
    for title, gain in (("REFUGE2-Cup Dice", 2.0), ("BraTs Dice", 1.9), ("TNMIX Dice", 3.9)):
        assert number(ours, title) - number(theirs, title) == pytest.approx(gain)
    for before, after in zip(four.rows, four.rows[1:], strict=False):
        assert all(number(after, title) > number(before, title) for title in before.cells)


def test_what_the_paper_leaves_undefined_is_marked() -> None:
    undefined = {
        (name, column)
        for name in TABLES
        for fault in load_table(name).faults
        if fault.kind == "undefined"
        for column in fault.columns
    }
    assert undefined >= {("table5", "CI"), ("table5", "Gflops"), ("table5", "GED"), ("table1", "BraTs HD95")}


@pytest.mark.parametrize(
    ("name", "dataset", "over"),
    [
        ("table1", "refuge2", "REFUGE2-Disc"),
        ("table1", "refuge2", "REFUGE2-Cup"),
        ("table1", "tnmix", "TNMIX"),
        ("table1", "isic2016", "ISIC"),
        ("table2", "amos2022", ""),
        ("table3", "btcv-12", ""),
        ("table4", "refuge2", "OpticCup"),
        ("table4", "tnmix", "ThyroidNodule"),
    ],
)
def test_classes_of_columns_are_those_of_the_data_sets(name: str, dataset: str, over: str) -> None:
    assert layouts()  # registers them
    classes = set(DATASETS[dataset].facts["classes"])
    columns = [column for column in load_table(name).columns if column.over == over and column.classes]
    assert columns
    for column in columns:
        assert set(column.classes) & classes, column.title
    if not over:  # every organ has one column, and the average is over them all
        assert all(sum(column.is_of(name) for column in columns) == 1 for name in classes)
        (average,) = [column for column in load_table(name).columns if not column.classes]
        assert average.structures == len(classes) == len(columns)


def test_names_by_which_results_are_addressed_are_data_sets_or_headings() -> None:
    assert layouts()
    known = {entry.name for entry in DATASETS}
    for name in TABLES:
        table = load_table(name)
        for column in table.columns:
            assert not column.over or column.over in column.data
        addresses = {address.casefold() for column in table.columns for address in column.data}
        headings = {"amos", "btcv", "refuge2-disc", "refuge2-cup", "isic", "opticcup", "braintumor", "thyroidnodule"}
        assert addresses - headings - {"brats2021"} <= known


def test_organs_of_scores_find_their_columns(tmp_path: Path) -> None:
    assert layouts()
    table, organs = load_table("table2"), DATASETS["amos2022"].facts["classes"]
    told = {f"dice/{organ}": {"mean": 0.5 + i / 100, "ci95": None} for i, organ in enumerate(organs)} | FULL
    (tmp_path / "metrics.json").write_text(json.dumps({"summary": told, "cases": [{"name": "a"}]}), encoding="utf-8")
    ours = filled(table, f"V2={tmp_path}")
    assert len(ours.scores) == 16
    assert ours.scores["Spleen"].mean == 0.5
    assert ours.scores["Pros."].mean == pytest.approx(0.64)
    assert ours.scores["Avg."] == Score(0.9, (0.85, 0.95))


def test_an_average_over_other_structures_is_left_out_and_said(tmp_path: Path) -> None:
    """BTCV with both adrenal glands has 13 labels; table 3 has one column for them."""
    assert layouts()
    organs = DATASETS["btcv"].facts["classes"]
    told = {f"dice/{organ}": {"mean": 0.5, "ci95": None} for organ in organs} | FULL
    (tmp_path / "metrics.json").write_text(json.dumps({"summary": told, "cases": [{"name": "a"}]}), encoding="utf-8")
    ours = filled(load_table("table3"), f"V2={tmp_path}")
    assert len(ours.scores) == 11
    assert not {"AG", "Ave"} & set(ours.scores)
    assert "no number for AG, Ave" in ours.remarks[0]


def test_one_structure_fills_the_columns_of_its_name_alone(tmp_path: Path) -> None:
    told = {"summary": FULL, "cases": [{"name": "a"}], "made": {"structures": ["spleen"]}}
    (tmp_path / "metrics.json").write_text(json.dumps(told), encoding="utf-8")
    ours = filled(load_table("table2"), f"V2={tmp_path}")
    assert {title: score.mean for title, score in ours.scores.items()} == {"Spleen": 0.9}
    assert "no number for R.Kid, L.Kid" in ours.remarks[0]
    assert ours.remarks[0].endswith("the scores are of spleen")
    ours = filled(load_table("table1"), f"V2/REFUGE2={tmp_path}")
    assert not ours.scores
    assert "no number for REFUGE2-Disc Dice, REFUGE2-Cup Dice" in ours.remarks[0]
    assert filled(load_table("table5"), f"V2={tmp_path}").scores["Dice"].mean == 90  # all columns are of one
    told["made"] = {"structures": ["cup"]}
    (tmp_path / "metrics.json").write_text(json.dumps(told), encoding="utf-8")
    assert {*filled(load_table("table1"), f"V2/REFUGE2={tmp_path}").scores} == {"REFUGE2-Cup Dice"}


def test_results_go_where_they_are_addressed(tmp_path: Path) -> None:
    table = load_table("table1")
    both = scores(tmp_path / "a", dice=0.8, iou=0.7, dice__disc=0.9, iou__disc=0.85, dice__cup=0.7, iou__cup=0.6)
    one = scores(tmp_path / "b", dice=0.6, iou=0.5, hd95=4.0)
    ours = filled(table, f"V2/refuge2={both}", f"V2/BraTs={one}")
    means = {title: score.mean for title, score in ours.scores.items()}
    assert means == pytest.approx(
        {
            "REFUGE2-Disc Dice": 90,
            "REFUGE2-Disc IoU": 85,
            "REFUGE2-Cup Dice": 70,
            "REFUGE2-Cup IoU": 60,
            "BraTs Dice": 60,
            "BraTs IoU": 50,
            "BraTs HD95": 4,
        }
    )
    assert ours.scores["BraTs Dice"].interval == pytest.approx((55, 65))
    assert set(filled(table, f"V2/REFUGE2-Cup={both}").scores) == {"REFUGE2-Cup Dice", "REFUGE2-Cup IoU"}
    assert filled(table, f"V2/ISIC={one}").scores["ISIC Dice"].mean == pytest.approx(
        60
    )  # of one structure, whatever its name
    with pytest.raises(ConfigError, match="two results for REFUGE2-Cup Dice, REFUGE2-Cup IoU"):
        filled(table, f"V2/REFUGE2={both}", f"V2/REFUGE2-Cup={both}")


def test_a_result_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    table = load_table("table1")
    folder = scores(tmp_path / "a", dice=0.8)
    for text in (f"V2={folder}", f"/ISIC={folder}", "V2/ISIC", "V2/ISIC=", f"V2/={folder}"):
        with pytest.raises(ConfigError, match="NAME/DATA=FOLDER"):
            parse_result(text, table)
    with pytest.raises(ConfigError, match="is not of the form NAME=FOLDER"):
        parse_result(str(folder), load_table("table2"))
    with pytest.raises(ConfigError, match="no column for 'ISIK'.*Did you mean 'ISIC'"):
        parse_result(f"V2/ISIK={folder}", table)
    (tmp_path / "empty").mkdir()
    for place, found in (("gone", "no such folder"), ("empty", "an empty folder"), (".", "a, empty")):
        with pytest.raises(DataError, match=f"expected metrics.json.*found {found}"):
            parse_result(f"V2/ISIC={tmp_path / place}", table)
    for text in ("[", "[]", '{"summary": {"dice": 1}, "cases": []}', '{"summary": {}}'):
        (folder / "metrics.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="expected what 'medsegdiff evaluate --out' writes"):
            filled(table, f"V2/ISIC={folder}")


def test_numbers_of_theirs_and_ours_are_never_in_one_row() -> None:
    table = load_table("table5")
    ours = [
        Ours("MSD-trans", {"Dice": Score(91.234), "calls": Score(200.0)}, ()),
        Ours("new", {"Dice": Score(1.0)}, ()),
    ]
    printed = lay_out(table, ours)
    rows = [[cell.text for cell in line] for line in printed.lines]
    heads = [head.text for _, head in printed.heads]
    assert {row[heads.index("whose")] for row in rows} == {"paper", "ours"}
    for row in rows:
        for column in table.columns:
            empty = row[heads.index(column.name)] == "–"
            assert empty or column.whose in ("both", row[heads.index("whose")])
    methods = [row[0] for row in rows]
    assert methods.index("MSD-trans") == methods.index("MSD-Trans") + 1  # ours follows theirs
    assert methods[-1] == "new"
    assert "Gflops" in heads
    assert "calls" not in [head.text for _, head in lay_out(table).heads]  # the paper's table alone is the paper's


def test_the_paper_s_numbers_are_written_as_it_printed_them() -> None:
    text = as_text(lay_out(load_table("table1")))
    for words in ("78.44", "73.78", "11.20", " 79.0 "):
        assert words in text
    assert text.count("†") == 15 + 1
    row = next(line for line in as_text(lay_out(load_table("table5"))).splitlines() if line.startswith("MedSegDiff-V2"))
    assert row.split() == ["MedSegDiff-V2", "paper", "46", "983", "82.6", "23.5", "87.9"]


def test_text_is_in_columns() -> None:
    lines = as_text(lay_out(load_table("table2"))).splitlines()
    rule = [i for i, line in enumerate(lines) if line.startswith("──")]
    ends = {len(line.rstrip("†")) for line in lines[rule[1] + 1 : rule[2]]}
    assert len(ends) == 1 or max(ends) - min(ends) == 1  # a sign moves a number by itself
    assert len(rule) == 3


def test_csv_holds_numbers_alone() -> None:
    table = load_table("table1")
    ours = [Ours("MedSegDiff-V2", {"ISIC Dice": Score(90.0, (85.0, 95.0)), "BraTs HD95": Score(4.0)}, ())]
    rows = list(csv.DictReader(as_csv(lay_out(table, ours)).splitlines()))
    assert len(rows) == 17 + 3
    for row in rows:
        for column in table.columns:
            assert row[column.title] == "" or float(row[column.title]) > 0
    theirs, mine, low, high = rows[-4:]
    assert [row["whose"] for row in rows[-4:]] == ["paper", "ours", "ours, 95 % low", "ours, 95 % high"]
    assert (theirs["ISIC Dice"], mine["ISIC Dice"], low["ISIC Dice"], high["ISIC Dice"]) == (
        "93.2",
        "90.0",
        "85.0",
        "95.0",
    )
    assert (mine["BraTs HD95"], low["BraTs HD95"], mine["TNMIX Dice"]) == ("4.00", "", "")
    assert "REFUGE2-Disc IoU: impossible" in theirs["errors"]
    assert mine["errors"] == ""
    assert {row["method"] for row in rows[-4:]} == {"MedSegDiff-V2"}


@pytest.mark.parametrize("name", TABLES)
def test_latex_has_as_many_cells_in_every_row(name: str) -> None:
    table = load_table(name)
    column = next(column for column in table.columns if column.whose == "both")
    text = as_latex(lay_out(table, [Ours("50 % & more_", {column.title: Score(1.0, (0.5, 2.0))}, ("from a_b #1",))]))
    rows = [line.replace(r"\&", "") for line in text.splitlines() if line.endswith(r"\\")]
    spec = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    for row in rows:
        spans = [int(span.partition("}")[0]) - 1 for span in row.split(r"\multicolumn{")[1:]]
        assert row.count("&") + 1 + sum(spans) == len(spec), row
    assert r"50 \% \& more\_" in text
    assert r"from a\_b \#1" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert not set("†‡§¶✓–−…") & set(text)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_table_is_written_in_every_format(name: str, form: str) -> None:
    table = load_table(name)
    text = FORMATS[form](lay_out(table))
    for row in table.rows:
        assert row.method in text
    for fault in table.faults:
        assert form == "csv" or fault.kind in text
