from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.split import Before, assign, evenly, make_split, names_in, write_split
from medsegdiff.errors import DataError

NAMES = [f"n{i}" for i in range(20)]


def parts(names: list[str], file: Path, config: DataConfig) -> dict[str, str]:
    return make_split(assign({name: CaseFiles(name, (Path(name),)) for name in names}, file), config)


def rows(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_followed_and_validation_is_taken_from_training(tmp_path: Path) -> None:
    lines = [f"{n},{'test' if i < 5 else 'train'}" for i, n in enumerate(NAMES)]
    split = parts(NAMES, rows(tmp_path / "split.csv", "id,split\n" + "\n".join(lines)), DataConfig())
    assert [split[n] for n in NAMES[:5]] == ["test"] * 5
    assert sorted(split.values()).count("val") == 2


def test_validation_that_is_named_is_kept(tmp_path: Path) -> None:
    file = rows(tmp_path / "split.csv", "image,split\nn0.png,training\nn1.png,validation\nn2,test\n")
    assert parts(NAMES, file, DataConfig()) == {"n0": "train", "n1": "val", "n2": "test"}


def test_groups_are_not_torn_apart(tmp_path: Path) -> None:
    lines = "\n".join(f"{n},train,p{i // 4}" for i, n in enumerate(NAMES))
    split = parts(NAMES, rows(tmp_path / "split.csv", f"id,split,patient\n{lines}"), DataConfig(val_fraction=0.4))
    for group in range(5):
        assert len({split[n] for n in NAMES[4 * group : 4 * group + 4]}) == 1
    assert list(split.values()).count("val") == 8


@pytest.mark.parametrize(
    "head", ["ID,Split,Patient", "Id,SPLIT ,patient_id", "image,split,Subject ID", "id,split,patientId"]
)
def test_columns_are_known_however_they_are_spelt(tmp_path: Path, head: str) -> None:
    lines = [f"{n},{'Test' if i < 8 else 'train'},p{i // 4}{' ' * (i % 2)}" for i, n in enumerate(NAMES)]
    found = assign(
        {n: CaseFiles(n, (Path(n),)) for n in NAMES}, rows(tmp_path / "split.csv", "\n".join([head, *lines]))
    )
    assert [case.part for case in found.values()].count("test") == 8
    assert {case.group for case in found.values()} == {f"p{i}" for i in range(5)}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_of_a_spreadsheet_in_another_language_is_read(tmp_path: Path, mark: str) -> None:
    lines = ["id,patient", *(f'{n},"p{i // 4},x"' for i, n in enumerate(NAMES))]
    file = rows(tmp_path / "split.csv", "\r\n".join(line.replace(",", mark, 1) for line in lines))
    found = assign({n: CaseFiles(n, (Path(n),)) for n in NAMES}, file)
    assert {case.group for case in found.values()} == {f"p{i},x" for i in range(5)}


@pytest.mark.parametrize(
    "head", ["id;split;age (years, rounded)", "sep=;\r\nid;split;age", 'age (years, rounded);"ID";split']
)
def test_a_comma_in_the_name_of_a_column_separates_nothing(tmp_path: Path, head: str) -> None:
    row = "61,5;n1;test" if head.startswith("age") else "n1;test;61,5"
    assert names_in(rows(tmp_path / "split.csv", f"{head}\r\n{row}\r\n"), "test") == {"n1"}


def test_the_column_of_patients_is_the_one_that_says_something(tmp_path: Path) -> None:
    lines = [f"{n},,p{i // 4},abdomen" for i, n in enumerate(NAMES)]
    file = rows(tmp_path / "split.csv", "\n".join(["id,group,patient,part", *lines]))
    found = assign({n: CaseFiles(n, (Path(n),)) for n in NAMES}, file)
    assert {case.group for case in found.values()} == {f"p{i}" for i in range(5)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,patient,Fold\nn1,p1,2\n", "the column Fold has no meaning. Parts .* are in split, patients in patient"),
        ("id,subset\nn1,dev\n", "the column subset has no meaning"),
        ("id,subset\nn1,abdomen\n", "expected the column id, and split or patient or both, .*: id, subset"),
        (
            "name;part\n",
            "expected the column id, and split or patient or both, .* semicolons or tabs; found: name, part",
        ),
        ("name|split\n", "or tabs; found: name|split"),
        ("id,split\nn1\n", "unknown split ''"),
        ("id,split\nnobody,train\n", "1 cases have no image: nobody"),
        ("id,split\nn1,train\nn1,test\n", "listed more than once: n1"),
        ("id,split\nn1,learning\n", "unknown split 'learning'; allowed are train, val and test"),
        ("id,split\nn1,test\n", "No case is left for the part 'train'"),
        ("id,split\nn1,train\n", "No case is left for the part 'val'"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parts(NAMES, rows(tmp_path / "split.csv", text), DataConfig())


def test_a_file_in_another_encoding_says_how_to_save_it(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_bytes("id,split\nmüller,train\n".encode("latin-1"))
    with pytest.raises(DataError, match="CSV UTF-8"):
        parts(["müller"], tmp_path / "split.csv", DataConfig())


def test_parts_are_listed_by_any_of_their_names(tmp_path: Path) -> None:
    file = rows(tmp_path / "split.csv", "id,split\na.png,training\nb.v2,validation\nc,test\n")
    assert names_in(file, "train") == {"a.png"}
    assert names_in(file, "validation") == {"b.v2"}
    assert names_in(file, "all") == {"a.png", "b.v2", "c"}
    with pytest.raises(DataError, match="'exam' holds no case; there are test, train, val"):
        names_in(file, "exam")


def test_a_split_is_written_with_its_hash_and_read_back(tmp_path: Path) -> None:
    split = parts(NAMES, tmp_path / "none.csv", DataConfig())
    digest = write_split(tmp_path / "split.csv", split)
    assert parts(NAMES, tmp_path / "split.csv", DataConfig()) == split
    assert write_split(tmp_path / "again.csv", dict(reversed(split.items()))) == digest


def test_tiny_data_sets_keep_a_case_in_each_part(tmp_path: Path) -> None:
    split = parts(["a", "b", "c"], tmp_path / "none.csv", DataConfig())
    assert sorted(split.values()) == ["test", "train", "val"]


def test_groups_alone_keep_held_out_cases_held_out(tmp_path: Path) -> None:
    cases = {n: CaseFiles(n, (Path(n),), part="test" if i < 5 else "train") for i, n in enumerate(NAMES)}
    file = rows(tmp_path / "split.csv", "id,patient\n" + "\n".join(f"{n},p{i // 2}" for i, n in enumerate(NAMES)))
    found = assign(cases, file)
    assert [case.part for case in found.values()].count("test") == 5
    assert found["n0"].group == found["n1"].group == "p0"
    split = make_split(found, DataConfig())
    assert {split[n] for n in NAMES[:5]} == {"test"}


def test_items_are_chosen_evenly_and_all_where_there_are_few() -> None:
    assert evenly([3, 4, 8], 5) == [3, 4, 8]
    assert evenly(range(100, 201), 5) == [100, 125, 150, 175, 200]
    assert evenly(range(10), 1) == [0]
    assert evenly([], 5) == []


def of_groups(count: int, *, told: str = "") -> dict[str, CaseFiles]:
    """Three cases of each patient."""
    names = [(f"c{i:03d}", f"p{i // 3:02d}") for i in range(count)]
    return {name: CaseFiles(name, (Path(name),), part=told, group=group) for name, group in names}


def test_cases_stay_in_their_part_when_others_are_added() -> None:
    config, cases = DataConfig(), of_groups(120)
    before = make_split(of_groups(90), config)
    split = make_split(cases, config, before=Before(before, "runs/first"))
    assert {name: split[name] for name in before} == before
    new = [split[name] for name in cases if name not in before]
    assert {part: new.count(part) for part in ("train", "val", "test")} == {"train": 21, "val": 3, "test": 6}
    assert [list(split.values()).count(part) for part in ("train", "val", "test")] == [87, 9, 24]
    assert make_split(cases, DataConfig(split_seed=7), before=Before(split, "runs/first")) == split


def test_a_new_case_of_a_known_patient_goes_where_the_others_are() -> None:
    before = make_split(of_groups(90), DataConfig())
    without = {name: part for name, part in before.items() if name[-1] != "4"}  # of some patients one was not there
    assert make_split(of_groups(90), DataConfig(split_seed=3), before=Before(without, "runs/first")) == before


def test_a_patient_of_several_parts_is_for_training_where_training_has_seen_him() -> None:
    cases = of_groups(30)
    before = dict.fromkeys(cases, "test") | {"c000": "train", "c004": "val", "c012": "val", "c013": "train"}
    split = make_split(cases, DataConfig(), before=Before(before, "runs/first"))
    parts = {case.group: split[name] for name, case in cases.items()}
    assert parts == {f"p{i:02d}": "test" for i in range(10)} | {"p00": "train", "p01": "val", "p04": "train"}


def test_validation_is_drawn_from_what_training_has_not_seen() -> None:
    cases = of_groups(30, told="train")
    before = {name: "train" for name, case in cases.items() if case.group != "p06"}
    split = make_split(cases, DataConfig(), before=Before(before, "runs/first"))
    assert {name for name, part in split.items() if part == "val"} == {"c018", "c019", "c020"}


def by_number(before: dict[str, str], *, cases: int = 40, of: str = "runs/first") -> dict[str, int]:
    """Size of each part of cases ``000``, ``001`` …, of which a run that training starts with had others."""
    names = [f"{number:03d}" for number in range(cases)]
    split = make_split(
        {name: CaseFiles(name, (Path(name),)) for name in names}, DataConfig(), before=Before(before, of)
    )
    assert not [name for name in names if before.get(name) == "train" != split[name]]
    return {part: list(split.values()).count(part) for part in ("train", "val", "test")}


@pytest.mark.parametrize(("part", "trained"), [("test", 0), ("test", 1), ("test", 4), ("val", 0)])
def test_where_all_would_be_held_out_the_usual_share_is(part: str, trained: int) -> None:
    before = {f"{number:03d}": "train" if number < trained else part for number in range(100)}
    assert by_number(before) == {"train": 29, "val": 3, "test": 8}


def test_held_out_cases_stay_as_long_as_each_part_keeps_one() -> None:
    held = {f"{number:03d}": "test" for number in range(36)}
    assert by_number(held | {"036": "val", "037": "train"}) == {"train": 3, "val": 1, "test": 36}
    assert by_number(held | {"036": "train", "037": "train"}) == {"train": 3, "val": 1, "test": 36}
    trained = {f"{number:03d}": "train" for number in range(38)}
    assert by_number(trained) == {"train": 38, "val": 1, "test": 1}  # of two new ones
    assert by_number(trained | {"038": "train"}) == {"train": 39, "val": 1, "test": 0}


@pytest.mark.parametrize("told", ["", "train"])
def test_a_run_that_has_seen_all_cases_is_named_with_the_way_out(told: str, tmp_path: Path) -> None:
    cases = of_groups(30, told=told)
    before = Before(dict.fromkeys([*cases][::3], "train"), "runs/first")
    words = (
        r"No case is left for the part 'val'.* runs/first has been trained on 30 of them.*in a split\.csv in the data"
    )
    with pytest.raises(DataError, match=words):
        make_split(cases, DataConfig(), before=before)
    parts = [f"{name},{'val' if i < 6 else 'train'}" for i, name in enumerate(cases)]
    split = make_split(
        assign(cases, rows(tmp_path / "split.csv", "\n".join(["id,split", *parts]))), DataConfig(), before=before
    )
    assert list(split.values()).count("val") == 6
