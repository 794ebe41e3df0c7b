"""Regions that are made of labels, from a benchmark in its own layout to scores: four channels in, label maps out."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.config import DataConfig
from medsegdiff.data.opening import open_source
from medsegdiff.evaluation import evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.finding import find_inputs
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.io.label_table import ITK_SNAP
from medsegdiff.training.train import train
from medsegdiff.types import Geometry
from tests.makers import small_config, write_png
from tests.published import OLD, volume


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    """Five tumours: a box of label 2, in it one of 1, in it one of 4, at another place in each case."""
    rng = np.random.default_rng(0)
    for number in range(5):
        name = f"BraTS2021_{number:05d}"
        labels = np.zeros((20, 18, 6), np.int16)
        x, y = rng.integers(2, 7, size=2)
        for side, value in ((10, 2), (6, 1), (3, 4)):
            labels[x : x + side, y : y + side, 1:5] = value
        for channel, word in enumerate(OLD):
            voxels = 100 + 60 * (labels > 0) * (channel + 1) + rng.normal(0, 9, labels.shape)
            volume(tmp_path / "data" / name / f"{name}_{word}.nii.gz", voxels.astype(np.int16))
        volume(tmp_path / "data" / name / f"{name}_seg.nii.gz", labels)
    return tmp_path / "data"


def test_regions_are_trained_on_segmented_written_as_labels_and_scored(brats: Path, tmp_path: Path) -> None:
    config = small_config("train.max_steps=2", "train.val_every=2", "train.save_every=2", "data.neighbours=1")
    assert train(brats, tmp_path / "run", config, device="cpu").reason == "finished"
    segmenter = Segmenter.from_pretrained(tmp_path / "run", device="cpu")
    data = segmenter.config.data
    assert (data.layout, data.channels, data.channel_files, data.label_values) == ("brats", 4, 4, (2, 1, 4))
    assert segmenter.config.image_channels == 12  # with the slices above and below
    case = shutil.copytree(brats / "BraTS2021_00003", tmp_path / "new" / "BraTS2021_00003")
    (case / "BraTS2021_00003_seg.nii.gz").unlink()  # to be segmented, a case needs no labels
    finished = segment_files(
        segmenter, find_inputs([case], data=data), tmp_path / "out", options={"members": 2, "steps": 2}
    )
    assert [image["name"] for image in finished.done] == ["BraTS2021_00003"]
    written = nib.load(tmp_path / "out" / "labels" / "BraTS2021_00003.nii.gz")
    assert set(np.unique(written.dataobj).tolist()) <= {0, 1, 2, 4}
    assert "    4" in (tmp_path / "out" / "labels" / ITK_SNAP).read_text()
    by_regions = evaluate(tmp_path / "out", brats, present_only=True)
    assert {"dice/WT", "dice/TC", "dice/ET"} <= set(by_regions.cases[0])


def test_label_maps_of_regions_are_scored_as_regions(brats: Path, tmp_path: Path) -> None:
    """Whoever's label maps these are: here the references themselves, in one of which a part is called another."""
    for case in brats.iterdir():
        seg = nib.load(case / f"{case.name}_seg.nii.gz")
        stored = np.asarray(seg.dataobj).copy()
        if case.name == "BraTS2021_00000":
            stored[stored == 4] = 1
        (tmp_path / "maps").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(stored, seg.affine), tmp_path / "maps" / f"{case.name}.nii.gz")
    scored = {row["name"]: row for row in evaluate(tmp_path / "maps", brats).cases}
    assert scored["BraTS2021_00001"]["dice"] == 1
    wrong = scored["BraTS2021_00000"]
    assert (wrong["dice/WT"], wrong["dice/TC"], wrong["dice/ET"]) == (1, 1, 0)


def test_inner_regions_are_painted_over_outer_ones(tmp_path: Path) -> None:
    regions = np.zeros((3, 8, 8), np.uint8)
    regions[0, 1:7, 1:7], regions[1, 2:6, 2:6], regions[2, 3:5, 3:5] = 1, 1, 1
    blank = np.zeros((8, 8), np.float32)
    result = Segmentation(
        name="a",
        mask=regions,
        probability=regions.astype(np.float32),
        uncertainty=Uncertainty(blank, blank, blank),
        members=regions[None],
        anchor=regions,
        anchor_probability=None,
        sensitivity=None,
        specificity=None,
        image=np.random.default_rng(0).random((1, 8, 8), dtype=np.float32),
        geometry=Geometry((8, 8), (1.0, 1.0)),
        task="regions",
        classes=("WT", "TC", "ET"),
        label_values=(2, 1, 4),
    )
    result.save(tmp_path)
    from medsegdiff.io.raster import read_mask

    labels = read_mask(tmp_path / "labels" / "a.png")
    assert [int((labels == value).sum()) for value in (0, 2, 1, 4)] == [28, 20, 12, 4]
    assert result.agreement() == 1


def test_cases_without_reference_are_loaded_without_mask(brats: Path, tmp_path: Path) -> None:
    (brats / "BraTS2021_00004" / "BraTS2021_00004_seg.nii.gz").unlink()
    source = open_source(brats, DataConfig())
    assert source.info.split["BraTS2021_00004"] == "test"
    assert [source.load(item).mask for item in source.info.items("test")] == [None] * 6
    for number in range(4):
        write_png(tmp_path / "flat" / "images" / f"{number}.png", np.eye(8, dtype=np.uint8) * 9)
        if number:
            write_png(tmp_path / "flat" / "masks" / f"{number}.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "flat" / "split.csv").write_text("id,split\n0,test\n1,train\n2,train\n3,val\n")
    assert open_source(tmp_path / "flat", DataConfig()).load("0").mask is None
