"""What values mean: classes, regions of labels, and pixels that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.config.data import DataConfig
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, collate
from medsegdiff.data.masks import Masks
from medsegdiff.data.open import open_source
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import grid_mask
from medsegdiff.errors import DataError
from medsegdiff.evaluation import evaluate
from medsegdiff.labels import Labels
from medsegdiff.nn.losses import cross_entropy, mean_of, soft_dice
from medsegdiff.report.evaluation import write_page
from tests.makers import as_told, write_png

HERE = Path("mask.png")
STORED = np.array([[0, 1], [2, 4]], np.uint8)


def test_regions_are_made_of_labels_and_may_overlap() -> None:
    coding = Labels("regions", ("WT", "TC", "ET"), values=((1, 2, 4), (1, 4), (4,)))
    assert coding.read(STORED, HERE).tolist() == [[[0, 1], [1, 1]], [[0, 1], [0, 1]], [[0, 0], [0, 1]]]


def test_classes_may_have_any_values() -> None:
    coding = Labels("exclusive", ("background", "a", "b", "c"), values=((0,), (1,), (2,), (4,)))
    assert coding.read(STORED, HERE).argmax(axis=0).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="mask value 3 has no meaning; .* of background 0, a 1, b 2, c 4"):
        coding.read(np.array([[3]], np.uint8), HERE)


def test_what_is_to_be_ignored_is_background_and_known() -> None:
    coding = Labels("exclusive", ("background", "a"), ignore=4)
    masks = Masks({"": {"x": HERE}}, kind="flat", where=HERE, declared=coding)
    stored = [(HERE, np.array([[0, 1], [4, 4]], np.uint8))]
    assert masks.coded(stored, coding)[0].argmax(axis=0).tolist() == [[0, 1], [0, 0]]
    assert masks.ignored(stored, coding).tolist() == [[[0, 0], [1, 1]]]


def test_the_data_set_is_not_contradicted() -> None:
    masks = Masks({"": {"x": HERE}}, kind="flat", where=HERE, declared=Labels("binary", ("tumour",)))
    assert masks.labels([0, 1], classes=("tumour",)).classes == ("tumour",)
    with pytest.raises(DataError, match=r"tells of the classes tumour \(binary\)"):
        masks.labels([0, 1], task="exclusive")


@pytest.mark.parametrize("exclusive", [False, True])
def test_pixels_that_nobody_labelled_have_no_loss(exclusive: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    mask = torch.nn.functional.one_hot(torch.randint(3, (2, 4, 4), generator=generator), 3).movedim(-1, 1).float()
    labelled = torch.ones(2, 1, 4, 4)
    labelled[:, :, 2:] = 0
    cut_logits, cut_mask = logits[:, :, :2], mask[:, :, :2]
    whole = cross_entropy(logits, mask, exclusive=exclusive, labelled=labelled)
    assert torch.allclose(whole, cross_entropy(cut_logits, cut_mask, exclusive=exclusive))
    assert torch.allclose(
        soft_dice(logits.sigmoid(), mask, labelled=labelled), soft_dice(cut_logits.sigmoid(), cut_mask)
    )
    assert mean_of(logits, torch.zeros_like(labelled)).tolist() == [0, 0]  # nothing labelled, nothing to divide by


def make_nnunet(root: Path) -> Path:
    """A data set in which the right half of every image was left unlabelled (value 2)."""
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
        labels = np.zeros((16, 16), np.uint8)
        labels[4:9, 2:7], labels[:, 8:] = 1, 2
        write_png(root / "images" / f"c{number}.png", image)
        write_png(root / "masks" / f"c{number}.png", labels)
    return root


def test_unlabelled_pixels_reach_the_batch_and_move_with_the_mask(tmp_path: Path) -> None:
    config = DataConfig(image_size=16)
    source = open_source(make_nnunet(tmp_path), config)
    labels = source.masks.declared = Labels("binary", ("a",), values=((1,),), ignore=2)
    source.info = replace(source.info, labels=labels)
    cases = PreparedCases(source, as_told(config, channels=1, labels=labels), stride=8)
    for augment in (False, True):
        stream = TrainingStream(cases, source.info.names("train"), seed=0, augment=augment)
        batch = as_batch(collate([stream[position] for position in range(8)]))
        assert batch.mask.shape == batch.labelled.shape == (8, 1, 16, 16)
        assert not ((batch.mask > 0.5) & (batch.labelled < 0.5)).any()
        assert 0.2 < batch.labelled.mean() < 0.8
    assert grid_mask(np.ones((1, 1, 4, 4), np.uint8), Placement((4, 4), (4, 4), (8, 8)), exclusive=False).sum() == 16


def test_unlabelled_pixels_are_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_nnunet(tmp_path)
    everywhere = np.zeros((16, 16), np.uint8)
    everywhere[4:9, 2:7], everywhere[:, 8:] = 255, 255  # right where it was labelled, full where it was not
    for number in range(6):
        write_png(tmp_path / "out" / f"c{number}.png", everywhere)
    coding = Labels("binary", ("a",), values=((1,),), ignore=2)
    monkeypatch.setattr(Masks, "labels", lambda *args, **kwargs: coding)
    found = evaluate(tmp_path / "out", tmp_path)
    assert (found.mean("dice").mean, found.mean("specificity").mean) == (1, 1)
    everywhere[:, :8] = 255
    write_png(tmp_path / "out" / "c0.png", everywhere)
    assert evaluate(tmp_path / "out", tmp_path).scores.value("c0", "specificity") == 0


def test_a_case_of_which_nobody_labelled_a_pixel_has_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of either mask, which would be a perfect empty case."""
    make_nnunet(tmp_path)
    write_png(tmp_path / "masks" / "c0.png", np.full((16, 16), 2, np.uint8))
    for number in range(6):
        write_png(tmp_path / "out" / f"c{number}.png", np.zeros((16, 16), np.uint8))
    coding = Labels("binary", ("a",), values=((1,),), ignore=2)
    monkeypatch.setattr(Masks, "labels", lambda *args, **kwargs: coding)
    found = evaluate(tmp_path / "out", tmp_path)
    assert np.isnan(found.scores.value("c0", "dice"))
    assert (found.mean("dice").mean, found.mean("nsd").mean, found.mean("sensitivity").mean) == (0, 0, 0)
    assert found.empty == {"no_reference": 0, "no_prediction": 5, "both": 0}
    write_page(found, tmp_path / "report.html")
