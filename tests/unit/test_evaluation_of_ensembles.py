"""Evaluation of members, probabilities and several raters: numbers worked out by hand on small masks."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.config.data import DataConfig
from medsegdiff.errors import DataError
from medsegdiff.evaluation import Measure, evaluate, predictions
from medsegdiff.inference.record import Record
from medsegdiff.io.image import read_map
from tests.makers import write_png
from tests.scored import numbers, table

HALF = slice(0, 10)


def box(rows: slice, columns: slice = HALF) -> np.ndarray:
    mask = np.zeros((20, 20), np.uint8)
    mask[rows, columns] = 255
    return mask


def write_members(root: Path, *masks: np.ndarray, name: str = "a") -> None:
    for number, mask in enumerate(masks):
        write_png(root / f"{number:02d}" / f"{name}.png", mask)


def write_raters(root: Path, *masks: np.ndarray, name: str = "a") -> None:
    for number, mask in enumerate(masks):
        write_png(root / f"rater{number + 1}" / f"{name}.png", mask)


def test_members_are_fused_and_scored_against_every_rater(tmp_path: Path) -> None:
    small, large = box(slice(0, 5)), box(slice(0, 10))  # IoU ½, Dice ⅔
    write_members(tmp_path / "members", small, large)
    write_raters(tmp_path / "masks", small, large)
    result = evaluate(tmp_path / "members", tmp_path)
    case = numbers(result)
    assert result.setup.members == 2
    assert result.setup.raters == (2, 2)
    assert case["ged"] == pytest.approx(0, abs=1e-12)  # both sets are the same
    assert case["hm_iou"] == 1
    assert case["d_max"] == 1
    assert case["rater_dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert case["agreement"] == pytest.approx(2 / 3)
    assert case["ece"] == pytest.approx(0, abs=1e-6)  # the share of members is the share of raters
    assert case["brier"] == pytest.approx(0, abs=1e-6)
    assert case["dice@rater1"] + case["dice@rater2"] == pytest.approx(1 + 2 / 3)  # the fused mask is one of the two


def test_members_are_fused_to_the_mask_that_the_fusion_decides_on(tmp_path: Path) -> None:
    write_members(tmp_path / "members", *(box(slice(start, start + 5)) for start in (0, 5, 10)))
    write_png(tmp_path / "masks" / "a.png", box(slice(0, 15)))  # expected Dice ½; ⅓ of one of them
    assert numbers(evaluate(tmp_path / "members", tmp_path, fusion="dice"))["dice"] == 1
    assert numbers(evaluate(tmp_path / "members", tmp_path, fusion="majority"))["dice"] == 0


def test_members_are_fused_for_as_many_raters_as_make_the_reference(tmp_path: Path) -> None:
    """Two of three members draw the small mask, as one rater most likely does; the union of two is likely the large."""
    small, large = box(slice(0, 5)), box(slice(0, 10))
    write_members(tmp_path / "out" / "members", small, small, large)
    write_raters(tmp_path / "masks", small, large)
    found = evaluate(tmp_path / "out" / "members", tmp_path, fusion="dice")
    assert numbers(found)["dice"] == 1
    assert found.setup.fused_by == "dice for the majority of 2 raters"
    record = Record(task="binary", classes=("foreground",), raters=1).model_dump_json(exclude_none=True)
    (tmp_path / "out" / "segment.json").write_text(record)
    found = evaluate(tmp_path / "out" / "members", tmp_path, fusion="dice")  # the run was made for one
    assert numbers(found)["dice"] == pytest.approx(2 / 3)
    assert found.setup.fused_by == "dice"


def test_a_case_without_members_is_not_scored_as_an_ensemble(tmp_path: Path) -> None:
    for name in "ab":
        write_png(tmp_path / "out" / "masks" / f"{name}.png", box(slice(0, 5)))
        write_raters(tmp_path / "masks", box(slice(0, 5)), box(slice(0, 10)), name=name)
    write_members(tmp_path / "out" / "members", box(slice(0, 5)), box(slice(0, 10)))
    with pytest.raises(DataError, match="'b' has no member, though others have"):
        evaluate(tmp_path / "out", tmp_path)


def test_disjoint_ensembles_are_as_far_as_can_be(tmp_path: Path) -> None:
    write_members(tmp_path / "members", box(slice(0, 5)), box(slice(0, 5)))
    write_raters(tmp_path / "masks", box(slice(10, 15)), box(slice(10, 15)))
    case = numbers(evaluate(tmp_path / "members", tmp_path))
    assert case["ged"] == pytest.approx(2)
    assert (case["hm_iou"], case["d_max"], case["agreement"]) == (0, 0, 1)


def test_one_rater_has_agreement_and_no_energy_distance(tmp_path: Path) -> None:
    write_members(tmp_path / "members", box(slice(0, 5)), box(slice(0, 10)))
    write_png(tmp_path / "masks" / "a.png", box(slice(0, 10)))
    case = numbers(evaluate(tmp_path / "members", tmp_path))
    assert case["agreement"] == pytest.approx(2 / 3)
    assert not {"ged", "hm_iou", "d_max", "rater_dice"} & case.keys()


def test_a_single_mask_is_an_ensemble_of_one(tmp_path: Path) -> None:
    write_png(tmp_path / "pred" / "a.png", box(slice(0, 10)))
    write_raters(tmp_path / "masks", box(slice(0, 5)), box(slice(0, 10)))
    case = numbers(evaluate(tmp_path / "pred", tmp_path))
    assert case["ged"] == pytest.approx(2 * 0.25 - 0 - 0.25)  # distances to raters ½ and 0, raters ½ apart in 2 of 4
    assert "agreement" not in case
    assert "ece" not in case


def test_probabilities_are_cut_at_one_half_and_calibrated(tmp_path: Path) -> None:
    write_png(tmp_path / "masks" / "a.png", box(slice(0, 20)))
    p = np.full((20, 20), 64, np.uint8)
    p[:, HALF] = 191  # 0.749 where the reference is, 0.251 elsewhere
    write_png(tmp_path / "probability" / "a.png", p)
    result = evaluate(tmp_path / "probability", tmp_path / "masks")
    case = numbers(result)
    assert case["dice"] == 1
    assert case["ece"] == pytest.approx(64 / 255, abs=1e-4)
    assert case["brier"] == pytest.approx((64 / 255) ** 2, abs=1e-4)
    assert case["aurc"] == pytest.approx(0, abs=1e-9)
    renamed = (tmp_path / "probability").rename(tmp_path / "soft")
    assert numbers(evaluate(renamed, tmp_path / "masks", kind="probabilities")) == case
    Image.fromarray(np.round(p / 255 * 65535).astype(np.uint16)).save(renamed / "a.png")
    assert numbers(evaluate(renamed, tmp_path / "masks", kind="probabilities"))["ece"] == pytest.approx(case["ece"])


def test_probabilities_of_classes_exclude_each_other(tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[:5], labels[5:10] = 1, 2
    write_png(tmp_path / "masks" / "a.png", labels)
    for name, values in (("class_1", np.where(labels == 1, 102, 26)), ("class_2", np.where(labels == 2, 115, 26))):
        write_png(tmp_path / "probability" / name / "a.png", values.astype(np.uint8))
    case = numbers(evaluate(tmp_path / "probability", tmp_path / "masks"))  # background is what is left: .8, ½, .45
    assert (case["dice/class_1"], case["dice/class_2"]) == (0, 1)
    (tmp_path / "probability" / "class_2" / "a.png").unlink()
    with pytest.raises(DataError, match="expected a folder of probabilities for each of background, class_1, class_2"):
        evaluate(tmp_path / "probability", tmp_path / "masks")


@pytest.mark.parametrize("background", [True, False])
def test_maps_of_many_classes_are_read_twice_each_and_one_after_the_other(
    background: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 13 classes the likeliest: one to three share 240 of 255, and the first of them counts."""
    rng, classes, side, read = np.random.default_rng(0), 13, 256, list[str]()
    order, some = rng.random((classes, side, side)).argsort(axis=0).argsort(axis=0), rng.integers(1, 4, (side, side))
    shares = np.where(order < some, 240 // some, 0).astype(np.uint8)
    shares[0] = 255 - shares[1:].sum(axis=0, dtype=int)
    for index, values in enumerate(shares):
        if index or background:
            write_png(tmp_path / "probability" / (f"class_{index}" if index else "background") / "a.png", values)
    truth = shares.argmax(axis=0).astype(np.uint8)
    write_png(tmp_path / "masks" / "a.png", np.where(rng.random(truth.shape) < 0.9, truth, 12).astype(np.uint8))

    def counted(file: Path) -> np.ndarray:
        read.append(file.parent.name)
        return read_map(file)

    monkeypatch.setattr(predictions, "read_map", counted)
    case = numbers(evaluate(tmp_path / "probability", tmp_path / "masks"))
    for index in range(1, classes):
        reference = np.asarray(Image.open(tmp_path / "masks" / "a.png")) == index
        both = np.count_nonzero(reference & (truth == index))
        own = np.count_nonzero(reference) + np.count_nonzero(truth == index)
        assert case[f"dice/class_{index}"] == pytest.approx(2 * both / own)
        assert read.count(f"class_{index}") == 2
    names = [None, *(f"class_{index}" for index in range(1, classes))]
    maps = predictions.Maps(tmp_path, tuple(of and {"a": tmp_path / "probability" / of / "a.png"} for of in names))
    tracemalloc.start()
    maps.decided("a", exclusive=True)
    assert tracemalloc.get_traced_memory()[1] < 8 * 4 * side**2  # maps of 32 bits
    tracemalloc.stop()


def test_members_beside_masks_are_found(tmp_path: Path) -> None:
    write_png(tmp_path / "out" / "masks" / "a.png", box(slice(0, 10)))
    for number, mask in enumerate((box(slice(0, 5)), box(slice(0, 10)), box(slice(0, 10)))):
        write_png(tmp_path / "out" / "members" / f"{number:02d}" / "masks" / "a.png", mask)
    write_png(tmp_path / "ref" / "a.png", box(slice(0, 10)))
    result = evaluate(tmp_path / "out", tmp_path / "ref")
    assert numbers(result)["dice"] == 1
    assert numbers(result)["ece"] == pytest.approx(50 * (1 / 3) / 400)  # 50 pixels are given ⅔ and are foreground
    assert result.setup.probability_is == "The share of members that drew a pixel."
    (tmp_path / "out" / "members" / "01" / "masks" / "a.png").rename(
        tmp_path / "out" / "members" / "01" / "masks" / "b.png"
    )
    with pytest.raises(DataError, match=r"members/01/masks: 'a' is missing, but later members have it"):
        evaluate(tmp_path / "out", tmp_path / "ref")


def test_risk_falls_where_uncertainty_points_at_errors(tmp_path: Path) -> None:
    """40 of 400 pixels are wrong, and just these are uncertain: the best order there is."""
    truth, predicted = box(slice(0, 10)), box(slice(0, 14))
    write_png(tmp_path / "masks" / "a.png", truth)
    p = np.where(predicted > 0, np.where(truth > 0, 255, 140), 0).astype(np.uint8)
    write_png(tmp_path / "probability" / "a.png", p)
    result = evaluate(tmp_path / "probability", tmp_path / "masks")
    case = numbers(result)
    assert case["excess_aurc"] == pytest.approx(case["aurc"] - (0.1 + 0.9 * np.log(0.9)))
    assert case["excess_aurc"] == pytest.approx(0.0, abs=1e-3)
    pooled = result.to_dict()["pooled"]["all"]
    assert pooled["risk_coverage"]["value"] == pytest.approx([0, 0.1])
    assert pooled["risk_coverage"]["coverage"] == pytest.approx([0.9, 1])
    assert pooled["dice_coverage"]["value"] == pytest.approx([1, 2 * 100 / 240])


def test_groups_are_averaged_before_the_mean(tmp_path: Path) -> None:
    for name, rows in (("a", 10), ("b", 10), ("c", 0)):
        write_png(tmp_path / "masks" / f"{name}.png", box(slice(0, 10)))
        write_png(tmp_path / "pred" / f"{name}.png", box(slice(0, rows)))
    assert evaluate(tmp_path / "pred", tmp_path / "masks").mean("dice").mean == pytest.approx(2 / 3)
    (tmp_path / "split.csv").write_text("id,split,patient\na,test,p1\nb,test,p1\nc,test,p2\n", encoding="utf-8")
    result = evaluate(tmp_path / "pred", tmp_path / "masks")
    assert result.scores.groups == {"a": "p1", "b": "p1", "c": "p2"}
    assert result.mean("dice").mean == pytest.approx(1 / 2)
    assert result.setup.groups == 2


def test_the_interval_is_over_groups_not_cases() -> None:
    """Ten groups of a hundred equal cases each tell as much as ten cases."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=10)
    grouped = [{"name": f"{g}_{i}", "group": str(g), "x": level} for g, level in enumerate(levels) for i in range(100)]
    single = [{"name": str(g), "x": level} for g, level in enumerate(levels)]
    assert table(grouped).means()[Measure("x")].ci95 == pytest.approx(table(single).means()[Measure("x")].ci95)


def test_a_number_that_a_case_lacks_is_left_out_of_the_mean(tmp_path: Path) -> None:
    rows = [{"name": "a", "x": 1.0, "y": 2.0}, {"name": "b", "x": 3.0}, {"name": "c", "x": float("nan"), "y": 4.0}]
    found = table(rows).means()
    assert (found[Measure("x")].mean, found[Measure("y")].mean) == (2, 3)


def test_everything_is_written_and_says_how_it_is_defined(tmp_path: Path) -> None:
    write_members(tmp_path / "members", box(slice(0, 5)), box(slice(0, 10)))
    write_raters(tmp_path / "masks", box(slice(0, 5)), box(slice(0, 10)))
    evaluate(tmp_path / "members", tmp_path).save(tmp_path / "scores")
    stored = json.loads((tmp_path / "scores" / "metrics.json").read_text(encoding="utf-8"))
    assert list(stored["summary"]["raters"]) == ["rater1", "rater2"]
    for name in (*stored["summary"], *stored["summary"]["raters"]["rater1"]):
        assert name in stored["conventions"] or name == "raters", name
    assert len(stored["pooled"]["all"]["reliability"]["observed"]) == 15
    assert stored["made"]["fused_by"] == "staple"


def test_pixels_that_nobody_labelled_count_nowhere(tmp_path: Path) -> None:
    reference = box(slice(0, 10)) // 255
    reference[:, 10:] = 2
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "lesion": 1, "ignore": 2}}
    root = tmp_path / "Dataset001_x"
    for name in ("a", "b", "c"):
        write_png(
            root / "imagesTr" / f"{name}_0000.png", np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8)
        )
        write_png(root / "labelsTr" / f"{name}.png", reference)
        p = np.full((20, 20), 128, np.uint8)
        p[:, HALF] = box(slice(0, 10))[:, HALF]
        write_png(tmp_path / "probability" / f"{name}.png", p)
    (root / "dataset.json").write_text(json.dumps({**description, "numTraining": 3, "file_ending": ".png"}))
    case = numbers(evaluate(tmp_path / "probability", root, data=DataConfig()))
    assert case["dice"] == 1
    assert (case["ece"], case["brier"], case["aurc"]) == pytest.approx((0, 0, 0), abs=1e-9)


def test_the_saved_map_of_uncertainty_orders_the_pixels(tmp_path: Path) -> None:
    """All 40 wrong pixels are certain by their probability, and uncertain by the map."""
    truth, predicted = box(slice(0, 10)), box(slice(0, 14))
    write_png(tmp_path / "masks" / "a.png", truth)
    write_png(tmp_path / "out" / "masks" / "a.png", predicted)
    write_png(tmp_path / "out" / "probability" / "a.png", predicted)
    blind = numbers(evaluate(tmp_path / "out", tmp_path / "masks"))
    assert blind["aurc"] == pytest.approx(0.1)  # all pixels are equally certain: the error rate
    write_png(tmp_path / "out" / "uncertainty" / "a.png", predicted - truth)
    seeing = numbers(evaluate(tmp_path / "out", tmp_path / "masks"))
    assert seeing["excess_aurc"] == pytest.approx(0.0, abs=1e-9)
    assert seeing["ece"] == blind["ece"]
    (tmp_path / "out" / "uncertainty" / "a.png").rename(tmp_path / "out" / "uncertainty" / "b.png")
    with pytest.raises(DataError, match="1 of 1 cases have no map: a"):
        evaluate(tmp_path / "out", tmp_path / "masks")


def test_members_drawn_on_demand_differ_in_number(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 4)):
        write_png(tmp_path / "masks" / f"{name}.png", box(slice(0, 10)))
        write_members(tmp_path / "members", *(box(slice(0, 7 + k)) for k in range(count)), name=name)
    result = evaluate(tmp_path / "members", tmp_path / "masks")
    assert (result.setup.members_least, result.setup.members) == (2, 4)
    assert result.conventions["members"].startswith("Cases have 2 to 4 of them. With more of them hm_iou")
    assert numbers(result)["agreement"] == pytest.approx(2 * 7 / 15)
    assert result.curve is None  # of two members at most there is no curve over all cases
    write_members(tmp_path / "members", *(box(slice(0, 7 + k)) for k in range(3)), name="a")
    curve = evaluate(tmp_path / "members", tmp_path / "masks").curve
    assert curve is not None
    assert curve.num_members.tolist() == [1, 2, 3]


def test_a_single_member_agrees_with_nobody(tmp_path: Path) -> None:
    write_members(tmp_path / "members", box(slice(0, 10)))
    write_png(tmp_path / "masks" / "a.png", box(slice(0, 10)))
    result = evaluate(tmp_path / "members", tmp_path / "masks")
    assert Measure("agreement") not in result.summary
    assert result.setup.probability_is == ""


def test_empty_masks_of_empty_references_are_no_cause_for_doubt(tmp_path: Path) -> None:
    for folder in ("p", "r"):
        write_png(tmp_path / folder / "a.png", box(slice(0, 0)))
    (told,) = evaluate(tmp_path / "p", tmp_path / "r").warnings
    assert "No scored reference holds foreground" in told  # scores are; masks are not
    write_png(tmp_path / "r" / "a.png", box(slice(0, 9)))
    assert "1 empty" in evaluate(tmp_path / "p", tmp_path / "r").warnings[0]


def test_what_cannot_be_understood_says_the_way_out(tmp_path: Path) -> None:
    write_png(tmp_path / "masks" / "a.png", box(slice(0, 10)))
    write_members(tmp_path / "out" / "members", box(slice(0, 10)))
    with pytest.raises(DataError, match=r"holds no masks, but members/\. Score .*members"):
        evaluate(tmp_path / "out", tmp_path / "masks")
    write_png(tmp_path / "out" / "masks" / "a.png", box(slice(0, 10)))
    (tmp_path / "out" / "segment.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"segment\.json: expected what 'medsegdiff segment' writes"):
        evaluate(tmp_path / "out", tmp_path / "masks")


def test_the_tolerance_is_told(tmp_path: Path) -> None:
    for folder in ("p", "r"):
        write_png(tmp_path / folder / "a.png", box(slice(0, 10)))
    assert evaluate(tmp_path / "p", tmp_path / "r", tolerance=5.0).conventions["tolerance"] == "Of nsd here: 5 px."
