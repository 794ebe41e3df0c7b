"""What a spec can say of a published data set without any code: parts, patients, raters, folders around."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Part, list_benchmark, matches
from medsegdiff.data.dataset import Listing
from medsegdiff.data.open import ListedSource
from medsegdiff.errors import DataError
from medsegdiff.labels import Labels
from tests.makers import write_png
from tests.pictures import LESION, photograph

SPEC = Benchmark(
    name="polyps",
    labels=Labels("binary", ("polyp",)),
    files="Train/p1_001.png, Train_gt/p1_001_mask.png, Test",
    licence="CC-BY-4.0",
    home="https://example.org",
    parts=(Part("train", "Train/*.png", "Train_gt/*.png"), Part("test", "Test/**/*.png|Old/*")),
)


def make(root: Path) -> Path:
    for name in ("p1_001", "p1_002", "p2_001"):
        photograph(root / "Train" / f"{name}.png")
        write_png(root / "Train_gt" / f"{name}_mask.png", LESION)
    photograph(root / "Test" / "site" / "p3_001.png")
    photograph(root / "Old" / "p4_001.png")
    (root / "Old" / "licence.txt").touch()
    (root / "Train" / "._p1_001.png").write_bytes(b"of a Mac")
    return root


def listing(root: Path, spec: Benchmark = SPEC) -> Listing:
    return list_benchmark(spec, root, DataConfig())


def test_a_spec_of_a_few_lines_is_read_as_a_data_set(tmp_path: Path) -> None:
    assert not matches(SPEC, tmp_path)
    source = ListedSource(listing(make(tmp_path)), DataConfig(image_size=32))
    assert matches(SPEC, tmp_path)
    assert (source.info.layout, source.info.labels.task, source.info.labels.classes) == ("polyps", "binary", ("polyp",))
    assert {name: case.part for name, case in source.listing.cases.items()} == {
        "p1_001": "train",
        "p1_002": "train",
        "p2_001": "train",
        "p3_001": "test",
        "p4_001": "test",
    }
    assert source.load("p1_002").mask.sum() == (LESION > 0).sum()
    assert source.masks.root == tmp_path / "Train_gt"
    (tmp_path / "split.csv").write_text("id,split\np2_001,train\np1_001,val\n")
    assert listing(tmp_path).unlisted == ("p1_002", "p3_001", "p4_001")


def test_the_beginning_of_a_name_tells_the_patient(tmp_path: Path) -> None:
    found = listing(make(tmp_path), replace(SPEC, patient=r"p\d+"))
    assert [case.group for case in found.cases.values()] == ["p1", "p1", "p2", "p3", "p4"]


def test_the_end_of_a_masks_name_tells_the_rater(tmp_path: Path) -> None:
    for name in ("p1_001", "p2_001"):
        write_png(make(tmp_path) / "Train_gt" / f"{name}_second.png", LESION)
    found = listing(tmp_path, replace(SPEC, mask_endings={"first": "_001", "second": "_001_second"}))
    assert (found.masks.kind, found.masks.folders) == ("raters", ("first", "second"))
    assert found.masks.by_folder("p1") == {
        "first": tmp_path / "Train_gt" / "p1_001_mask.png",
        "second": tmp_path / "Train_gt" / "p1_001_second.png",
    }


def test_a_part_that_trains_is_refused_without_masks_unless_it_may_lack_them(tmp_path: Path) -> None:
    (make(tmp_path) / "Train_gt").rename(tmp_path / "masks")
    words = r"expected the masks of Train in Train_gt, named as the images are; found Old/, Test/, Train/, masks/"
    with pytest.raises(DataError, match=words):
        listing(tmp_path)
    found = listing(tmp_path, replace(SPEC, unlabelled=("train", "test")))
    assert (len(found.cases), found.masks.names) == (5, [])
    assert found.masks.root == tmp_path / "Train_gt"  # where they would be


def test_folders_may_lie_in_another_and_variants_are_not_detected(tmp_path: Path) -> None:
    make(tmp_path / "polyps")
    assert not matches(SPEC, tmp_path)
    around = replace(SPEC, around=("polyps",))
    assert matches(around, tmp_path)
    found = listing(tmp_path, around)
    assert list(found.cases) == ["p1_001", "p1_002", "p2_001", "p3_001", "p4_001"]
    assert found.masks.root == tmp_path / "polyps" / "Train_gt"
    assert not matches(replace(around, variant_of="polyps"), tmp_path)
