from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.split import assign, evenly, make_split, names_in, write_split
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,patient,Fold\n", "the column Fold has no meaning. Parts .* are in split, patients in patient"),
        ("id,subset\n", "the column subset has no meaning"),
        ("name;part\n", "expected the columns 'id' and 'split', separated by commas; found: name;part"),
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
