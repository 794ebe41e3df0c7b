"""Regions that are made of labels, from a benchmark in its own layout to scores: four channels in, label maps out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from medsegdiff import Segmenter
from medsegdiff.config.data import DataConfig
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.open import open_source
from medsegdiff.errors import DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.inference import saving
from medsegdiff.inference.ensemble import Ensemble
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import Uncertainty
from medsegdiff.inference.writer import ITK_SNAP
from medsegdiff.labels import Labels
from medsegdiff.models.base import build_model
from medsegdiff.training.train import train
from medsegdiff.training.validation import Validator
from medsegdiff.types import Geometry
from tests.makers import as_told, randomised, small_config, write_png
from tests.published import OLD, volume
from tests.scored import numbers


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
    spec = segmenter.config.spec
    assert (spec.layout, spec.channels, spec.channel_files, spec.labels.label_values) == ("brats", 4, 4, (2, 1, 4))
    assert segmenter.config.image_channels == 12  # with the slices above and below
    case = shutil.copytree(brats / "BraTS2021_00003", tmp_path / "new" / "BraTS2021_00003")
    (case / "BraTS2021_00003_seg.nii.gz").unlink()  # to be segmented, a case needs no labels
    finished = segment_files(
        segmenter, find_inputs([case], like=segmenter.config), tmp_path / "out", members=2, steps=2
    )
    assert [image.name for image in finished.done] == ["BraTS2021_00003"]
    written = nib.load(tmp_path / "out" / "labels" / "BraTS2021_00003.nii.gz")
    assert set(np.unique(written.dataobj).tolist()) <= {0, 1, 2, 4}
    assert "    4" in (tmp_path / "out" / "labels" / ITK_SNAP).read_text()
    by_regions = evaluate(tmp_path / "out", brats, present_only=True)
    assert {"dice/WT", "dice/TC", "dice/ET"} <= set(numbers(by_regions))


def test_label_maps_of_regions_are_scored_as_regions(brats: Path, tmp_path: Path) -> None:
    """Whoever's label maps these are: here the references themselves, in one of which a part is called another."""
    for case in brats.iterdir():
        seg = nib.load(case / f"{case.name}_seg.nii.gz")
        stored = np.asarray(seg.dataobj).copy()
        if case.name == "BraTS2021_00000":
            stored[stored == 4] = 1
        (tmp_path / "maps").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(stored, seg.affine), tmp_path / "maps" / f"{case.name}.nii.gz")
    found = evaluate(tmp_path / "maps", brats)
    scored = {name: numbers(found, name) for name in found.scores.groups}
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
        labels=Labels("regions", ("WT", "TC", "ET"), order=(2, 1, 4)),
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


def test_labels_with_gaps_keep_their_values_and_are_scored(brats: Path, tmp_path: Path) -> None:
    data = DataConfig(layout="brats-labels")
    config = small_config("train.max_steps=2", "train.val_every=2", "train.save_every=2", "data.layout=brats-labels")
    train(brats, tmp_path / "run", config, device="cpu")
    segmenter = Segmenter.from_pretrained(tmp_path / "run", device="cpu")
    assert segmenter.config.spec.labels.label_values == (1, 2, 4)
    files = find_inputs([brats], like=segmenter.config)[:1]
    segment_files(segmenter, files, tmp_path / "out", members=2, steps=1)
    found = nib.load(tmp_path / "out" / "labels" / f"{files[0].name}.nii.gz")
    assert set(np.unique(found.dataobj).tolist()) <= {0, 1, 2, 4}
    scored = evaluate(tmp_path / "out", brats, present_only=True)  # the layout of the model is told beside its masks
    assert "dice/enhancing tumour" in numbers(scored)
    (tmp_path / "maps").mkdir()
    for case in brats.iterdir():
        shutil.copy(case / f"{case.name}_seg.nii.gz", tmp_path / "maps" / f"{case.name}.nii.gz")
    assert evaluate(tmp_path / "maps", brats, data=data).mean("dice").mean == 1


def test_validation_does_not_score_what_nobody_labelled(tmp_path: Path) -> None:
    """A data set of nnU-Net from end to end: a network that is right wherever it was told."""
    root = tmp_path / "Dataset001_Half"
    for number in range(8):
        labels = np.zeros((32, 32), np.uint8)
        labels[6:16, 4:13], labels[:, 16:] = 1, 2
        picture = 60 + 120 * (labels == 1) + np.random.default_rng(number).integers(0, 9, labels.shape)
        write_png(root / "imagesTr" / f"c{number}_0000.png", picture.astype(np.uint8))
        write_png(root / "labelsTr" / f"c{number}.png", labels)
    told = {"channel_names": {"0": "light"}, "labels": {"background": 0, "disc": 1, "ignore": 2}}
    (root / "dataset.json").write_text(json.dumps(told | {"numTraining": 8, "file_ending": ".png"}))
    source = open_source(root, DataConfig(image_size=32))
    assert (source.info.labels.task, source.info.labels.classes) == ("binary", ("disc",))
    config = small_config("data.task=binary", "data.classes=[disc]", "data.channels=1")
    cases = PreparedCases(source, as_told(config.data, channels=1), stride=16)
    validator = Validator(config, cases, source.info.names("val"), Accelerator(cpu=True))
    name = source.info.names("val")[0]
    truth, ignored = cases[name].mask[0].float(), cases[name].ignored[0].float()
    members = torch.maximum(truth, ignored)[None, None].expand(2, 1, 1, 32, 32)
    scored = validator._score(
        cases[name], Ensemble(members.clone(), members[0].clone(), members.mean(dim=0)[None], (0.0,)), 0
    )
    assert (scored.dice, scored.dice_anchor, scored.agreement) == (1, 1, 1)


def test_class_names_with_a_slash_are_written_and_scored(tmp_path: Path) -> None:
    for number in range(5):
        for structure in ("whole", "core"):
            mask = np.zeros((32, 32), np.uint8)
            mask[8:20, 8 : 20 if structure == "whole" else 12] = 1
            write_png(tmp_path / "files" / f"{structure}{number}.png", mask)
        write_png(
            tmp_path / "files" / f"image{number}.png",
            np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8),
        )
    rows = [f"p/{n},files/image{n}.png,files/whole{n}.png,files/core{n}.png" for n in range(5)]
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,mask_whole/tumour,mask_core", *rows]))
    config = small_config("train.max_steps=2", "train.val_every=2", "train.save_every=2")
    train(tmp_path / "cases.csv", tmp_path / "run", config, device="cpu")
    segmenter = Segmenter.from_pretrained(tmp_path / "run", device="cpu")
    files = find_inputs([tmp_path / "cases.csv"], like=segmenter.config)
    finished = segment_files(segmenter, files, tmp_path / "out", members=2, steps=1)
    assert [image.name for image in finished.done] == [f"p-{n}" for n in range(5)]
    assert {p.name for p in (tmp_path / "out" / "masks").iterdir()} == {"whole-tumour", "core"}
    assert "dice/whole/tumour" in numbers(evaluate(tmp_path / "out", tmp_path / "cases.csv"))


def test_one_bad_volume_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        for channel in range(2):
            volume(tmp_path / "in" / f"c{number}_{channel:04d}.nii.gz", rng.integers(1, 99, (8, 8, 3)))
    (tmp_path / "in" / "c0_0001.nii.gz").unlink()
    config = small_config("data.channels=2", "data.task=binary", "data.classes=[a]")
    config = config.model_copy(update={"spec": config.spec.model_copy(update={"channel_files": 2})})
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu")
    write = saving.write_result

    def refusing(out: Path, found: Segmentation, *args: object, **kwargs: object) -> None:
        if found.name == "c1":
            raise DataError("c1: the header of the series does not allow a DICOM-SEG")
        write(out, found, *args, **kwargs)

    monkeypatch.setattr(saving, "write_result", refusing)
    files = find_inputs([tmp_path / "in"], like=config)
    finished = segment_files(segmenter, files, tmp_path / "out", members=2, steps=1)
    assert [image.name for image in finished.done] == ["c2"]
    assert ["the model expects 2" in e or "DICOM-SEG" in e for e in finished.failed.values()] == [True, True]


def test_a_picture_is_refused_by_a_model_of_ct(tmp_path: Path) -> None:
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[a]", "data.modalities=[ct]")
    segmenter = Segmenter(randomised(build_model(config)), config, device="cpu")
    with pytest.raises(DataError, match="holds no Hounsfield units"):
        segmenter(np.random.default_rng(0).integers(-1000, 1000, (32, 32), dtype=np.int16), members=1, steps=1)
