from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.evaluation import Measure, evaluate
from medsegdiff.evaluation.scores import Mean
from tests.makers import write_png
from tests.scored import numbers, table


def square(at: int, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[5:15, at : at + 10] = 255
    return mask


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    for name, shift in (("a", 0), ("b", 5), ("c", 0)):
        write_png(tmp_path / "pred" / f"{name}.png", square(shift))
        write_png(tmp_path / "ref" / f"{name}_mask.png", square(0))
    return tmp_path / "pred", tmp_path / "ref"


def test_scores_by_hand(two: tuple[Path, Path], tmp_path: Path) -> None:
    result = evaluate(*two)
    by_name = {name: numbers(result, name) for name in result.scores.groups}
    assert (by_name["a"]["dice"], by_name["a"]["iou"], by_name["a"]["hd95"]) == (1, 1, 0)
    assert by_name["b"]["dice"] == pytest.approx(0.5)
    assert by_name["b"]["iou"] == pytest.approx(1 / 3)
    assert by_name["b"]["hd95"] == pytest.approx(5)
    dice = result.mean("dice")
    assert dice.mean == pytest.approx(2.5 / 3)
    low, high = dice.ci95 or pytest.fail("three cases have an interval")
    assert 0.5 <= low < dice.mean < high <= 1
    result.save(tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert stored["summary"]["dice"]["mean"] == dice.mean
    assert "both empty" in stored["conventions"]["dice"]
    with (tmp_path / "out" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows if row["metric"] == "dice"] == ["a", "b", "c"]
    assert [float(row["value"]) for row in rows if row["metric"] == "hd95"] == pytest.approx([0, 5, 0])


def test_names_that_do_not_match_are_listed(two: tuple[Path, Path]) -> None:
    (two[0] / "c.png").unlink()
    with pytest.raises(DataError, match="1 of 3 references have no prediction.*: c"):
        evaluate(*two)
    write_png(two[0] / "c.png", square(0))
    write_png(two[0] / "zebra.png", square(0))
    with pytest.raises(DataError, match="1 predictions have no reference.*: zebra"):
        evaluate(*two)


def test_a_split_limits_what_must_be_there(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_png(tmp_path / "data" / "masks" / f"{name}.png", square(0))
    (tmp_path / "data" / "split.csv").write_text("id,split\na,test\nb,train\nc,val\n", encoding="utf-8")
    write_png(tmp_path / "pred" / "a.png", square(0))
    assert list(evaluate(tmp_path / "pred", tmp_path / "data", split="test").scores.groups) == ["a"]
    with pytest.raises(DataError, match="holds no case; there are test, train, val"):
        evaluate(tmp_path / "pred", tmp_path / "data", split="exam")
    inside = evaluate(tmp_path / "pred", tmp_path / "data" / "masks", split="test")  # split.csv lies above
    assert len(inside.scores) == 1
    (tmp_path / "data" / "split.csv").rename(tmp_path / "pred" / "split.csv")  # as 'segment --split' leaves it
    assert len(evaluate(tmp_path / "pred", tmp_path / "data", split="test").scores) == 1
    (tmp_path / "pred" / "split.csv").unlink()
    with pytest.raises(DataError, match=r"There is no split\.csv"):
        evaluate(tmp_path / "pred", tmp_path / "data", split="test")


def test_names_of_a_split_are_looked_up_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 cases, each would be compared with all."""

    class Listed(list[str]):
        def __contains__(self, name: object) -> bool:
            raise AssertionError(f"{name} is searched in a list")

    make = Masks.__init__

    def listed(self: Masks, *args: object, **options: object) -> None:
        make(self, *args, **options)
        self.names = Listed(self.names)

    monkeypatch.setattr(Masks, "__init__", listed)
    for name in ("a", "b"):
        write_png(tmp_path / "data" / "images" / f"{name}.png", square(2))
        write_png(tmp_path / "data" / "masks" / f"{name}.png", square(0))
        write_png(tmp_path / "pred" / f"{name}.png", square(0))
    (tmp_path / "data" / "split.csv").write_text("id,split,patient\na.png,test,p\nb,test,p\n", encoding="utf-8")
    found = evaluate(tmp_path / "pred", tmp_path / "data", split="test", present_only=True)
    assert set(found.scores.groups) == {"a", "b"}
    assert inspect_folder(tmp_path / "data", DataConfig()).images == 2


def test_sizes_must_be_equal(two: tuple[Path, Path]) -> None:
    write_png(two[0] / "b.png", square(0, (20, 24)))
    with pytest.raises(GeometryError, match="'b': the prediction is 20×24, the reference 20×20"):
        evaluate(*two)


def test_raters_are_fused_by_majority_and_a_tie_is_foreground(tmp_path: Path) -> None:
    for rater, shift in (("rater1", 0), ("rater2", 5)):
        write_png(tmp_path / "masks" / rater / "a.png", square(shift))
    write_png(tmp_path / "pred" / "a.png", square(0) | square(5))
    assert numbers(evaluate(tmp_path / "pred", tmp_path))["dice"] == 1


def test_classes_and_regions_are_scored_one_by_one(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8], labels[12:18] = 1, 2
    write_png(tmp_path / "ref" / "a.png", labels)
    write_png(tmp_path / "pred" / "a.png", np.where(labels == 2, 0, labels).astype(np.uint8))
    case = numbers(evaluate(tmp_path / "pred", tmp_path / "ref"))
    assert (case["dice/class_1"], case["dice/class_2"], case["dice"]) == (1, 0, 0.5)
    for name, mask in (("disc", labels > 0), ("cup", labels == 1)):
        write_png(tmp_path / "regions" / name / "a.png", mask.astype(np.uint8) * np.uint8(255))
        write_png(tmp_path / "found" / name / "a.png", (labels > 0).astype(np.uint8) * np.uint8(255))
    case = numbers(evaluate(tmp_path / "found", tmp_path / "regions"))
    assert case["dice/disc"] == 1
    assert case["dice/cup"] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="hold the structures cup, disc"):
        evaluate(tmp_path / "pred", tmp_path / "regions")


def test_a_wrong_class_is_a_wrong_prediction_not_an_error(tmp_path: Path) -> None:
    """What the values mean follows from all masks, not from those that are scored."""
    for name, top in (("a", 1), ("b", 2)):
        labels = np.zeros((20, 20), np.uint8)
        labels[2:8] = top
        write_png(tmp_path / "data" / "masks" / f"{name}.png", labels)
    (tmp_path / "data" / "split.csv").write_text("id,split\na,test\nb,train\n", encoding="utf-8")
    predicted = np.zeros((20, 20), np.uint8)
    predicted[2:8], predicted[12:14] = 1, 3
    write_png(tmp_path / "pred" / "a.png", predicted)
    found = evaluate(tmp_path / "pred", tmp_path / "data", split="test")
    case = numbers(found)
    assert (case["dice/class_1"], case["dice/class_2"]) == (1, 1)
    assert "dice/class_3" not in case  # no reference has it
    assert "No reference holds class_3" in found.warnings[0]
    assert "No scored reference holds class_2" in found.warnings[1]


def test_probabilities_and_several_predictions_are_not_taken_for_a_mask(two: tuple[Path, Path]) -> None:
    write_png(two[0] / "a.png", np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8))
    with pytest.raises(DataError, match="If these are probabilities, .* say --as probabilities"):
        evaluate(*two)
    assert numbers(evaluate(*two, data=DataConfig(task="binary")))["dice"] < 1
    for model in ("model_a", "model_b"):
        write_png(two[0].parent / "both" / model / "a.png", square(0))
    with pytest.raises(DataError, match="several folders: model_a, model_b. Score one of them at a time"):
        evaluate(two[0].parent / "both", two[1])


def test_folders_can_be_called_raters(tmp_path: Path) -> None:
    for rater, shift in (("smith", 0), ("jones", 5)):
        write_png(tmp_path / "masks" / rater / "a.png", square(shift))
    write_png(tmp_path / "pred" / "a.png", square(0) | square(5))
    with pytest.raises(DataError, match="hold the structures"):
        evaluate(tmp_path / "pred", tmp_path)
    assert numbers(evaluate(tmp_path / "pred", tmp_path, data=DataConfig(mask_folders="raters")))["dice"] == 1


def test_one_structure_may_lie_flat(tmp_path: Path) -> None:
    write_png(tmp_path / "masks" / "lesion" / "a.png", square(0))
    write_png(tmp_path / "pred" / "masks" / "a.png", square(0))
    assert numbers(evaluate(tmp_path / "pred", tmp_path))["dice"] == 1


def test_empty_references_are_scored_by_the_table(tmp_path: Path) -> None:
    for folder in ("p", "r"):
        write_png(tmp_path / folder / "a.png", np.zeros((20, 20), np.uint8))
    assert numbers(evaluate(tmp_path / "p", tmp_path / "r"))["dice"] == 1


def test_empty_masks_are_counted(tmp_path: Path) -> None:
    nothing = np.zeros((20, 20), np.uint8)
    for name, p, r in (("a", nothing, nothing), ("b", square(0), nothing), ("c", nothing, square(0))):
        write_png(tmp_path / "p" / f"{name}.png", p)
        write_png(tmp_path / "r" / f"{name}.png", r)
    result = evaluate(tmp_path / "p", tmp_path / "r")
    assert result.empty == {"no_reference": 1, "no_prediction": 1, "both": 1}
    assert result.scores.column("dice") == [1, 0, 0]


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    """Of 400 numbers with deviation 1 the interval is about ±0.098 wide on each side."""
    values = np.random.default_rng(0).normal(5, 1, 400)
    found = table([{"name": str(i), "x": v} for i, v in enumerate(values)]).means()[Measure("x")]
    assert found.mean == pytest.approx(values.mean())
    low, high = found.ci95 or pytest.fail("400 cases have an interval")
    assert high - low == pytest.approx(4 * values.std() / 20, rel=0.1)
    assert table([{"name": "a", "x": 1.0}]).means()[Measure("x")] == Mean(1.0, None)


def test_a_structure_that_is_missing_is_named_on_either_side(tmp_path: Path) -> None:
    for folder in ("found", "regions"):
        for name in ("disc", "cup"):
            for case in ("a", "b"):
                write_png(tmp_path / folder / name / f"{case}.png", square(0))
    (tmp_path / "found" / "cup" / "b.png").unlink()
    with pytest.raises(DataError, match=r"found: structures are missing: b \(no cup\)"):
        evaluate(tmp_path / "found", tmp_path / "regions")
    write_png(tmp_path / "found" / "cup" / "b.png", square(0))
    (tmp_path / "regions" / "disc" / "a.png").unlink()
    with pytest.raises(DataError, match=r"regions: structures are missing: a \(no disc\)"):
        evaluate(tmp_path / "found", tmp_path / "regions")


def test_test_cases_without_a_reference_are_named_with_the_ways_out(tmp_path: Path) -> None:
    for folder, names in (("pred/masks", "ab"), ("data/masks", "ac")):
        for name in names:
            write_png(tmp_path / folder / f"{name}.png", square(0))
    (tmp_path / "pred" / "split.csv").write_text("id,split\na,val\nb,test\n")
    with pytest.raises(DataError, match=r"1 of 1 cases have no reference in .*: b\. .*labelsTs.*--split.*split\.csv"):
        evaluate(tmp_path / "pred", tmp_path / "data", split="test")


def test_the_parts_of_a_data_set_count_though_a_split_names_its_patients(tmp_path: Path) -> None:
    data = tmp_path / "Dataset001_X"
    for name, part in (("a", "Tr"), ("b", "Ts")):
        write_png(data / f"images{part}" / f"{name}_0000.png", square(0))
        write_png(data / f"labels{part}" / f"{name}.png", square(0) // 255)
        write_png(tmp_path / "pred" / f"{name}.png", square(0) // 255)
    told = {"channel_names": {"0": "x"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".png"}
    (data / "dataset.json").write_text(json.dumps({**told, "numTraining": 1}))
    (data / "split.csv").write_text("id,patient\na,p\nb,q\n")
    assert evaluate(tmp_path / "pred", data, split="test").scores.groups == {"b": "q"}


def test_all_foreground_as_one_is_scored_as_one(tmp_path: Path) -> None:
    """Trained with data.task=binary on masks of several classes: the results say so themselves."""
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8], labels[8:14] = 1, 2
    write_png(tmp_path / "data" / "masks" / "a.png", labels)
    write_png(tmp_path / "pred" / "masks" / "a.png", (labels > 0).astype(np.uint8) * np.uint8(255))
    write_png(tmp_path / "pred" / "labels" / "a.png", (labels > 0).astype(np.uint8))
    (tmp_path / "pred" / "segment.json").write_text('{"task": "binary", "classes": ["foreground"]}')
    shutil.copytree(tmp_path / "pred" / "masks", tmp_path / "pred" / "members" / "00" / "masks")
    for part in (".", "members/00"):
        scored = numbers(evaluate(tmp_path / "pred" / part, tmp_path / "data"))
        assert {"dice": 1, "iou": 1, "hd95": 0}.items() <= scored.items()
        assert not any("/" in name for name in scored)


def test_grey_references_are_not_widened_because_the_results_have_one_structure(tmp_path: Path) -> None:
    write_png(tmp_path / "pred" / "masks" / "a.png", square(3))
    (tmp_path / "pred" / "segment.json").write_text('{"task": "binary", "classes": ["foreground"]}')
    soft = square(3).astype(int)
    soft[:, :3], soft[:, 13:] = 40, 60
    write_png(tmp_path / "ref" / "a.png", soft.astype(np.uint8))
    with pytest.raises(DataError, match=r"0, 40, 60, 255.*set data\.mask_threshold=128"):
        evaluate(tmp_path / "pred", tmp_path / "ref")
    assert numbers(evaluate(tmp_path / "pred", tmp_path / "ref", data=DataConfig(mask_threshold=128)))["dice"] == 1


def test_classes_saved_from_python_are_scored_by_their_labels(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8], labels[12:18] = 1, 2
    write_png(tmp_path / "ref" / "a.png", labels)
    write_png(tmp_path / "out" / "labels" / "a.png", labels)
    write_png(tmp_path / "out" / "overlay" / "a.png", np.dstack([labels, labels + 1, labels]))
    assert numbers(evaluate(tmp_path / "out", tmp_path / "ref"))["dice"] == 1


def test_names_are_those_of_the_images(tmp_path: Path) -> None:
    """An image may itself be called _seg; its mask of that name is then no mask of another image."""
    for folder in ("data/images", "data/masks", "pred"):
        write_png(tmp_path / folder / "a_seg.png", square(0))
    (tmp_path / "data" / "split.csv").write_text("id,split\na_seg,test\n", encoding="utf-8")
    assert list(evaluate(tmp_path / "pred", tmp_path / "data", split="test").scores.groups) == ["a_seg"]


def test_only_what_was_predicted_can_be_scored(two: tuple[Path, Path]) -> None:
    (two[0] / "c.png").unlink()
    assert list(evaluate(*two, present_only=True).scores.groups) == ["a", "b"]
