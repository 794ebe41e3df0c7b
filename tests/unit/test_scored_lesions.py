"""Lesions in ``evaluate``: as components and as drawn one by one, in tables, files, pages, comparisons and errors."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.instances import kept_apart
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.evaluation.compare import compare, read_run
from medsegdiff.labels import Labels
from medsegdiff.metrics.lesions import LesionRule
from medsegdiff.report.evaluation import write_page
from tests.makers import write_png
from tests.program import call
from tests.scored import numbers
from tests.volumes import oblique, save

SIZE = (24, 30)
CELLS = {
    "a": [(2, 8, 2, 8), (2, 8, 8, 14), (14, 20, 20, 26)],  # the first two touch
    "b": [(5, 11, 5, 11)],
    "c": [(3, 9, 3, 9), (12, 18, 3, 9)],
}
"""Boxes of the instances of each image."""


def box(of: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[of[0] : of[1], of[2] : of[3]] = 255
    return mask


def of_nuclei(root: Path) -> Path:
    """A folder for each image, with a file for each instance, as the Data Science Bowl 2018 has them."""
    for name, cells in CELLS.items():
        write_png(root / name / "images" / f"{name}.png", np.full(SIZE, 90, np.uint8))
        for i, cell in enumerate(cells):
            write_png(root / name / "masks" / f"{i}{name}.png", box(cell))
    return root


def side_by_side(root: Path) -> Path:
    """Masks beside their images, numbered where there are several."""
    for name, cells in CELLS.items():
        write_png(root / f"{name}.png", np.full(SIZE, 90, np.uint8))
        for i, cell in enumerate(cells):
            write_png(root / (f"{name}_mask_{i}.png" if i else f"{name}_mask.png"), box(cell))
    return root


def predicted(root: Path, *, parted: bool = True) -> Path:
    """What was drawn, united; ``parted`` leaves a line between instances that touch."""
    for name, cells in CELLS.items():
        mask = np.max([box(cell) for cell in cells], axis=0)
        mask[2:8, 8] *= not (parted and name == "a")
        write_png(root / f"{name}.png", mask)
    return root


@pytest.mark.parametrize("tree", [of_nuclei, side_by_side])
def test_instances_that_touch_are_two_as_drawn_and_one_as_components(tree: object, tmp_path: Path) -> None:
    data, masks = tree(tmp_path / "data"), predicted(tmp_path / "masks")
    drawn = evaluate(masks, data, lesions=LesionRule("drawn"))
    of = numbers(drawn, "a")
    assert (of["lesion_f1"], of["rq"]) == (1, 1)
    assert of["sq"] == pytest.approx((1 + 30 / 36 + 1) / 3)
    assert of["pq"] == pytest.approx(of["sq"])
    assert drawn.lesions["foreground"].matching.tp == 6
    joined = evaluate(masks, data, lesions=LesionRule())
    of = numbers(joined, "a")  # the component of 72 pixels meets two of 36 and 30: the first has an IoU of just ½
    assert of["lesion_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert of["lesion_dice"] == pytest.approx((2 * 66 / (72 + 66) + 1) / 2)
    blobs = evaluate(predicted(tmp_path / "blobs", parted=False), data, lesions=LesionRule("drawn"))
    assert numbers(blobs, "a")["lesion_recall"] == pytest.approx(1 / 3)


def test_scores_without_lesions_are_as_they_were(tmp_path: Path) -> None:
    data, masks = of_nuclei(tmp_path / "data"), predicted(tmp_path / "masks")
    plain, more = evaluate(masks, data), evaluate(masks, data, lesions=LesionRule("drawn"))
    assert plain.setup.lesions is None
    assert "lesion" not in plain.conventions
    assert not plain.lesions
    known = numbers(plain, "a")
    assert known == {name: value for name, value in numbers(more, "a").items() if name in known}
    assert set(numbers(more, "a")) - set(known) == {
        *("lesion_f1", "lesion_precision", "lesion_recall", "lesion_dice", "pq", "sq", "rq")
    }


def test_files_and_page_say_which_lesions_were_counted(tmp_path: Path) -> None:
    data, masks = of_nuclei(tmp_path / "data"), predicted(tmp_path / "masks")
    for instances, words in (("drawn", "An instance as it was drawn"), ("components", "A connected component")):
        found = evaluate(masks, data, lesions=LesionRule(instances, above=3.0))
        found.save(tmp_path / instances)
        told = json.loads((tmp_path / instances / "metrics.json").read_text(encoding="utf-8"))
        rule = {"iou": 0.5, "above": 3.0, "connectivity": 8, "dilation": 0, "unit": "px"}
        assert told["made"]["lesions"] == {"instances": instances, **rule}
        assert told["conventions"]["lesion"].startswith(words)
        assert "Only lesions above 3 px count" in told["conventions"]["lesion"]
        assert "(TP + ½FP + ½FN)" in told["conventions"]["pq"]
        assert told["summary"]["lesion_f1"]["ci95"][0] <= told["summary"]["lesion_f1"]["mean"]
        write_page(found, tmp_path / f"{instances}.html")
        page = (tmp_path / f"{instances}.html").read_text(encoding="utf-8")
        assert words in page
        assert "Lesions of all cases" in page
        assert "lesion F1 ↑" in page
    counts = {"tp": 4, "fp": 2, "fn": 1, "without": 0}
    shares = {"lesion_f1": 8 / 11, "lesion_precision": 4 / 6, "lesion_recall": 4 / 5, "sq": 1.0}
    assert (counts | shares).items() <= told["lesions"]["all"].items()
    with (tmp_path / "drawn" / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "lesion_f1"]
    assert {row["case"]: float(row["value"]) for row in rows} == {"a": 1, "b": 1, "c": 1}


def test_cases_without_a_lesion_are_counted_and_left_out_of_means(tmp_path: Path) -> None:
    for name, reference, prediction in (("a", 1, 1), ("b", 0, 0), ("c", 1, 0)):
        write_png(tmp_path / "ref" / f"{name}.png", box((2, 8, 2, 8)) * np.uint8(reference))
        write_png(tmp_path / "pred" / f"{name}.png", box((2, 8, 2, 8)) * np.uint8(prediction))
    found = evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule())
    assert math.isnan(numbers(found, "b")["pq"])
    assert numbers(found, "b")["dice"] == 1
    assert found.mean("pq").mean == pytest.approx(1 / 2)
    assert found.to_dict()["lesions"]["all"]["without"] == 1
    assert found.mean("lesion_precision").mean == 1  # of one case alone: nothing is predicted in another


def test_each_structure_has_lesions_of_its_own(tmp_path: Path) -> None:
    labels = np.where(box((2, 8, 2, 8)) > 0, 1, 0) + np.where(box((2, 8, 8, 14)) > 0, 2, 0)
    write_png(tmp_path / "ref" / "a.png", labels.astype(np.uint8))
    write_png(tmp_path / "pred" / "a.png", np.where(labels == 2, 2, 0).astype(np.uint8))
    found = evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule())
    of = numbers(found, "a")
    assert [of[f"lesion_f1{name}"] for name in ("/class_1", "/class_2", "")] == [0, 1, 0.5]
    assert (found.all_lesions["all"].matching.tp, found.all_lesions["class_1"].matching.fn) == (1, 1)


def test_volumes_are_measured_in_cubic_millimetres(tmp_path: Path) -> None:
    drawn = np.zeros((12, 12, 10), np.uint8)
    drawn[1:4, 1:4, 1:3], drawn[7:9, 7:9, 6] = 1, 1  # 18 and 4 voxels of 2 mm³
    missed = drawn.copy()
    missed[7:9, 7:9] = 0
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    for folder, voxels in (("ref", drawn), ("pred", missed)):
        save(tmp_path / folder / "a.nii.gz", voxels, affine)
    recall = {
        above: numbers(evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule(above=above)))["lesion_recall"]
        for above in (0.0, 7.9, 8.0)
    }
    assert recall == {0.0: 0.5, 7.9: 0.5, 8.0: 1.0}
    told = evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule(above=8.0))
    assert (told.setup.lesions["connectivity"], told.setup.lesions["dilation"]) == (26, 3)
    assert "above 8 mm³" in told.conventions["lesion"]


def test_a_voxel_of_a_sheared_grid_has_the_volume_that_its_affine_says(tmp_path: Path) -> None:
    affine = oblique((1.0, 1.0, 2.0), shear=0.75)  # sheared: a step along the last axis is longer than the slices apart
    volume = abs(np.linalg.det(affine[:3, :3]))
    assert volume < 0.99 * np.prod(np.linalg.norm(affine[:3, :3], axis=0))
    drawn = np.zeros((12, 12, 10), np.uint8)
    drawn[1:4, 1:4, 1:3] = 1
    for folder in ("ref", "pred"):
        save(tmp_path / folder / "a.nii.gz", drawn, affine, codes=(0, 1))
    counts = [
        evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule(above=float(18 * volume * factor))).lesions
        for factor in (0.999, 1.001)
    ]
    assert [of["foreground"].matching.tp for of in counts] == [1, 0]


def test_a_part_of_a_large_instance_stays_an_instance(tmp_path: Path) -> None:
    shapes = [(2, 20, 2, 20), (5, 9, 5, 9), (15, 23, 15, 25)]  # the second lies in the first, the third overlaps it
    for i, shape in enumerate(shapes):
        write_png(tmp_path / "masks" / f"part{i}" / "a.png", box(shape))
    write_png(tmp_path / "masks" / "part3" / "a.png", box((0, 0, 0, 0)))
    masks = mask_folder(tmp_path / "masks", kind="instances")
    (found,) = kept_apart(masks, "a", Labels("binary"), index=0)
    sizes = sorted(np.bincount(found.ravel())[1:].tolist())
    assert sizes == sorted([18 * 18 - 16 - 25, 16, 80])
    assert np.array_equal(found > 0, masks.stored("a")[0][1] > 0)
    (grey,) = kept_apart(masks.above(128), "a", Labels("binary"), index=0)
    assert np.array_equal(grey, found)


def test_instances_of_several_structures_are_told_apart(tmp_path: Path) -> None:
    for i, (value, shape) in enumerate([(1, (2, 8, 2, 8)), (2, (2, 8, 8, 14)), (2, (12, 20, 8, 14))]):
        write_png(tmp_path / "masks" / f"part{i}" / "a.png", box(shape) // 255 * np.uint8(value))
    masks = mask_folder(tmp_path / "masks", kind="instances")
    labels = masks.labels(masks.values())
    assert [int(kept_apart(masks, "a", labels, index=index).max()) for index in (1, 2)] == [1, 2]


def rated(root: Path) -> Path:
    """Two raters, each with a file for every instance."""
    for name, cells in CELLS.items():
        write_png(root / "images" / f"{name}.png", np.full(SIZE, 90, np.uint8))
        for rater in ("rater1", "rater2"):
            for i, cell in enumerate(cells):
                write_png(root / "masks" / rater / f"{name}_{i}.png", box(cell))
    return root


def test_what_raters_drew_one_by_one_is_compared_with_each(tmp_path: Path) -> None:
    data, masks = rated(tmp_path / "data"), predicted(tmp_path / "masks")
    asked = DataConfig(layout="tree", mask_folders="raters")
    with pytest.raises(ConfigError, match="drew one by one has no majority.*--reference each"):
        evaluate(masks, data, data=asked, lesions=LesionRule("drawn"))
    found = evaluate(masks, data, data=asked, lesions=LesionRule("drawn"), reference="each")
    assert found.setup.raters == (2, 2)
    assert numbers(found, "a")["lesion_f1"] == 1
    assert found.lesions["foreground"].matching.tp == 12


def test_lesions_as_drawn_need_files_of_their_own(tmp_path: Path) -> None:
    write_png(tmp_path / "ref" / "a.png", box((2, 8, 2, 8)))
    write_png(tmp_path / "pred" / "a.png", box((2, 8, 2, 8)))
    with pytest.raises(DataError, match="none are kept apart.*--lesions components.*mask_folders=instances"):
        evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule("drawn"))
    with pytest.raises(ConfigError, match="in 2 axes allowed are 4, 8"):
        evaluate(tmp_path / "pred", tmp_path / "ref", lesions=LesionRule(connectivity=26))


def test_lesions_are_compared_where_they_were_counted_alike(tmp_path: Path) -> None:
    data = of_nuclei(tmp_path / "data")
    for name, parted in (("one", True), ("two", False)):
        masks = predicted(tmp_path / f"{name}-masks", parted=parted)
        evaluate(masks, data, lesions=LesionRule("drawn")).save(tmp_path / name)
        evaluate(masks, data, lesions=LesionRule("drawn", iou=0.3)).save(tmp_path / f"{name}-near")
        evaluate(masks, data).save(tmp_path / f"{name}-plain")
    one, two, near, plain = (read_run(tmp_path / name) for name in ("one", "two", "two-near", "two-plain"))
    found = {row.metric: row for row in compare([one, two]).differences}
    assert found["lesion_recall"].mean == pytest.approx(-2 / 9)
    assert found["pq"].better == "higher"
    assert "pq" not in {row.metric for row in compare([one, plain]).differences}
    with pytest.raises(DataError, match="different rules for lesions"):
        compare([one, near])


def test_the_command_counts_lesions_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, masks = of_nuclei(tmp_path / "data"), predicted(tmp_path / "masks")
    assert call("evaluate", masks, data, "--lesions", "drawn", "--lesion-iou", "0.9", "--connectivity", "4") == 0
    said = capsys.readouterr()
    assert "lesion_recall 0.888889" in said.out  # (2/3 + 1 + 1) / 3
    assert "lesions: 5 of 6 found, 1 false" in " ".join(said.err.split())
    assert "An instance as it was drawn" in said.err
    assert call("evaluate", masks, data, "--lesion-above", "5") == 2
    assert "above 5 of lesions is given" in " ".join(capsys.readouterr().err.split())
    options = ("--lesions", "components", "--lesion-above", "5", "--lesion-dilation", "2", "--json")
    assert call("evaluate", masks, data, *options) == 0
    told = json.loads(capsys.readouterr().out)["made"]["lesions"]
    assert (told["above"], told["dilation"], told["instances"]) == (5, 2, "components")


def test_the_rule_is_not_changed_by_what_it_is_fitted_to() -> None:
    rule = LesionRule(iou=0.3)
    assert rule.settled(3) == replace(rule, connectivity=26, dilation=3)
    assert rule.settled(2).settled(2) == replace(rule, connectivity=8, dilation=0)
