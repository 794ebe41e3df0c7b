"""Nothing counts as right: a structure is scored where the data set has it, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.mask_values import labels_of
from medsegdiff.data.open import open_source
from medsegdiff.errors import DataError
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import Record
from medsegdiff.labels import Labels
from tests.makers import write_png
from tests.scored import numbers

SIZE = (60, 60)


def rings(shift: int, values: tuple[int, ...]) -> np.ndarray:
    """Rings around each other, of so many values from the middle outwards."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    radius = np.hypot(y - 30, x - 30 - shift)
    places = [radius < 6 * (number + 1) for number in range(len(values))]
    return np.select(places, values, 0).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    """Counted plainly."""
    return float(2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum()))


def write(root: Path, shift: int, values: tuple[int, ...], *, names: str = "ab") -> Path:
    for name in names:
        write_png(root / f"{name}.png", rings(shift, values))
    return root


def say(folder: Path, labels: Labels) -> None:
    """Leave what ``segment`` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(task=labels.task, classes=labels.classes, values=labels.values)
    (folder / "segment.json").write_text(record.model_dump_json(exclude_none=True))


def scored(evaluation: Evaluation) -> dict[str, float]:
    return {name.removeprefix("dice/"): v for name, v in numbers(evaluation).items() if name.startswith("dice/")}


@pytest.mark.parametrize("values", [(4, 1, 2), (1, 3), (1, 2, 3), (7, 1)])
def test_a_number_that_occurs_nowhere_is_no_class(tmp_path: Path, values: tuple[int, ...]) -> None:
    found = evaluate(write(tmp_path / "pred", 8, values), write(tmp_path / "ref", 0, values))
    expected = {f"class_{value}": dice(rings(0, values), rings(8, values), value) for value in values}
    assert scored(found) == pytest.approx(expected)
    assert found.mean("dice").mean == pytest.approx(np.mean(list(expected.values())))
    assert found.warnings == ()


def test_classes_of_a_data_set_are_those_that_occur_and_are_written_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "masks", 0, (4, 1, 2), names="abcdefgh")
    write(tmp_path / "images", 0, (90, 200, 50), names="abcdefgh")
    source = open_source(tmp_path, DataConfig())
    labels = source.info.labels
    assert labels.classes == ("background", "class_1", "class_2", "class_4")
    mask = source.load("a").mask
    assert mask is not None
    stored = rings(0, (4, 1, 2))
    assert all((mask[0, number] == (stored == value)).all() for number, value in enumerate((0, 1, 2, 4)))
    assert (labels.write(mask[0].argmax(axis=0).astype(np.uint8)) == stored).all()


def test_class_indices_without_gaps_are_what_they_were() -> None:
    assert labels_of([0, 1, 2], task=None, classes=None, where=Path()) == Labels(
        "exclusive", ("background", "class_1", "class_2")
    )


def test_a_class_that_is_declared_counts_and_its_absence_is_said(tmp_path: Path) -> None:
    data = DataConfig(classes=("background", "a", "b", "c"))
    found = evaluate(write(tmp_path / "pred", 8, (1, 2)), write(tmp_path / "ref", 0, (1, 2)), data=data)
    assert scored(found)["c"] == 1
    assert found.warnings == ("No scored reference holds c: scores are perfect wherever nothing is predicted.",)


def test_a_class_that_the_model_knows_and_no_reference_holds_is_not_scored(tmp_path: Path) -> None:
    say(tmp_path / "out", Labels("exclusive", ("background", "liver", "spleen", "aorta")))
    found = evaluate(write(tmp_path / "out" / "labels", 8, (1, 2, 3)).parent, write(tmp_path / "ref", 0, (1, 2)))
    one, other = rings(0, (1, 2)), rings(8, (1, 2, 3))
    assert scored(found) == pytest.approx({"liver": dice(one, other, 1), "spleen": dice(one, other, 2)})
    assert found.warnings == ("No reference holds aorta: not scored, and where predicted counted as nothing.",)


def test_references_of_a_model_with_values_of_its_own_are_read_by_them(tmp_path: Path) -> None:
    say(tmp_path / "out", Labels("exclusive", ("background", "liver", "spleen"), values=((0,), (2,), (5,))))
    found = evaluate(write(tmp_path / "out" / "labels", 8, (2, 5)).parent, write(tmp_path / "ref", 0, (2, 5)))
    assert scored(found)["spleen"] == pytest.approx(dice(rings(0, (2, 5)), rings(8, (2, 5)), 5))
    with pytest.raises(DataError, match="mask value 7 is out of range; the model .* knows liver 2, spleen 5"):
        evaluate(tmp_path / "out", write(tmp_path / "more", 0, (2, 5, 7)))


@pytest.mark.parametrize("inner", ["other", "other/masks", "nnunet/fold_0"])
def test_a_record_speaks_for_its_own_folders_alone(tmp_path: Path, inner: str) -> None:
    """Other predictions that lie in the folder of a run are of another model."""
    say(tmp_path / "run", Labels("exclusive", ("background", "a", "b", "c", "d", "e")))
    theirs = write(tmp_path / "run" / inner, 8, (1, 2))
    assert not SegmentationFolder.around(theirs).exists
    found = evaluate(theirs, write(tmp_path / "ref", 0, (1, 2)))
    assert [*scored(found)] == ["class_1", "class_2"]
    assert found.warnings == ()


@pytest.mark.parametrize("part", ["masks", "labels", "anchor", "members/00", "anchor/masks", "probability"])
def test_a_record_is_found_from_each_of_its_parts(tmp_path: Path, part: str) -> None:
    say(tmp_path / "out", Labels())
    (tmp_path / "out" / part).mkdir(parents=True)
    assert SegmentationFolder.around(tmp_path / "out" / part).root.resolve() == (tmp_path / "out").resolve()


@pytest.mark.parametrize("structures", [("cup", "disc"), ("",)])
def test_references_that_are_all_empty_are_said(tmp_path: Path, structures: tuple[str, ...]) -> None:
    """Their scores tell no more than whether nothing was predicted."""
    for folder in ("ref", "pred"):
        for structure in structures:
            for name in "ab":
                full = folder == "ref" and structure == "disc"
                write_png(tmp_path / folder / structure / f"{name}.png", rings(0, (255,)) * np.uint8(full))
    found = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert any(f"No scored reference holds {structures[0] or 'foreground'}:" in told for told in found.warnings)
    assert "disc" not in " ".join(found.warnings)
    assert json.dumps(found.to_dict()["doubts"])


@pytest.mark.parametrize("missing", [1, 3])
def test_predictions_that_are_missing_are_an_error_that_lists_them(tmp_path: Path, missing: int) -> None:
    write(tmp_path / "ref", 0, (1, 2), names="abcde")
    write(tmp_path / "pred", 0, (1, 2), names="abcde"[missing:])
    with pytest.raises(DataError, match=f"{missing} of 5 references have no prediction.*: a"):
        evaluate(tmp_path / "pred", tmp_path / "ref")
    write(tmp_path / "ref", 0, (1, 2), names="x")
    members = write(tmp_path / "out" / "members" / "00", 0, (1, 2), names="abcde").parent
    with pytest.raises(DataError, match="1 of 6 references have no prediction.*: x"):
        evaluate(members, tmp_path / "ref")
