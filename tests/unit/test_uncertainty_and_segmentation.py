from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.errors import DataError
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.io.picture import header_of
from medsegdiff.io.raster import read_map, read_mask
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry


def test_maps_of_a_pixel_by_hand() -> None:
    members = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1, 1)
    maps = uncertainty_of(members, exclusive=False)
    assert maps.std.item() == pytest.approx(math.sqrt(0.75 * 0.25))
    assert maps.entropy.item() == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert maps.disagreement.item() == pytest.approx(0.25)


def test_members_that_agree_are_certain() -> None:
    maps = uncertainty_of((torch.rand(1, 2, 5, 5) > 0.5).float().expand(6, 2, 5, 5), exclusive=False)
    assert max(maps.std.max(), maps.entropy.max(), maps.disagreement.max()) == pytest.approx(0, abs=1e-6)


def test_classes_all_equally_likely_have_entropy_1() -> None:
    members = torch.eye(3).reshape(3, 3, 1, 1)
    maps = uncertainty_of(members, exclusive=True)
    assert maps.entropy.item() == pytest.approx(1)
    assert maps.disagreement.item() == pytest.approx(2 / 3)


def result(task: str) -> Segmentation:
    classes = {"binary": ("lesion",), "exclusive": ("background", "a", "b"), "regions": ("disc", "cup")}[task]
    labels = np.zeros((6, 8), np.uint8)
    labels[1:4, 2:6] = 1
    if task == "exclusive":
        labels[4:, :] = 2
    mask = np.stack([labels, labels[::-1]]) if task == "regions" else labels
    probability = np.random.default_rng(0).random((len(classes), 6, 8)).astype(np.float32)
    return Segmentation(
        name="x",
        mask=mask,
        probability=probability,
        uncertainty=uncertainty_of(torch.rand(3, len(classes), 6, 8), exclusive=task == "exclusive"),
        members=np.stack([mask, mask]),
        anchor=mask,
        anchor_probability=probability,
        sensitivity=None,
        specificity=None,
        image=np.random.default_rng(1).random((3, 6, 8)).astype(np.float32),
        geometry=Geometry((6, 8), (1.0, 1.0)),
        labels=Labels(task, classes),
    )


def test_a_binary_result_is_saved(tmp_path: Path) -> None:
    binary = result("binary")
    binary.save(tmp_path, members=True)
    assert np.array_equal(read_mask(tmp_path / "masks" / "x.png"), binary.mask * 255)
    assert np.array_equal(read_mask(tmp_path / "labels" / "x.png"), binary.mask)
    assert np.array_equal(read_mask(tmp_path / "members" / "01" / "masks" / "x.png"), binary.mask * 255)
    assert np.array_equal(read_mask(tmp_path / "anchor" / "masks" / "x.png"), binary.mask * 255)
    assert np.abs(read_map(tmp_path / "probability" / "x.png") - binary.probability[0]).max() < 1e-4
    assert header_of(tmp_path / "overlay" / "x.png")[0] == (6, 8)
    assert (tmp_path / "uncertainty" / "x.png").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/medsegdiff-evil", "..", "", "a/b"])
def test_a_result_is_saved_in_its_folder_or_not_at_all(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="its results are files of that name"):
        replace(result("binary"), name=name).save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_classes_never_overwrite_each_other(tmp_path: Path) -> None:
    twins = replace(result("regions"), labels=Labels("regions", ("left/right", "left-right")))
    with pytest.raises(DataError, match="would share the folder 'left-right'"):
        twins.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_classes_and_regions_get_a_folder_each(tmp_path: Path) -> None:
    result("exclusive").save(tmp_path / "e")
    assert np.array_equal(read_mask(tmp_path / "e" / "labels" / "x.png"), result("exclusive").mask)
    assert np.array_equal(read_mask(tmp_path / "e" / "masks" / "b" / "x.png") > 0, result("exclusive").mask == 2)
    assert not (tmp_path / "e" / "members").exists()
    result("regions").save(tmp_path / "r")
    assert np.array_equal(read_mask(tmp_path / "r" / "masks" / "cup" / "x.png") > 0, result("regions").mask[1] > 0)
    assert not (tmp_path / "r" / "labels").exists()
    assert (tmp_path / "r" / "probability" / "disc" / "x.png").exists()
