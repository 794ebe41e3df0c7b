"""Cleaning of masks beside MONAI's and SimpleITK's, on random masks."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from monai.transforms import FillHoles

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.inference.cleaning import clean
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

SHAPES = [(24, 30), (9, 12, 10)]


def blobs(shape: tuple[int, ...], seed: int, share: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def cleaned(mask: np.ndarray, how: Cleaning) -> np.ndarray:
    own = mask.copy()
    affine = np.eye(4) if mask.ndim == 3 else None
    clean(own, Labels("binary", ("x",)), {"x": how}, Geometry(mask.shape, (1.0,) * mask.ndim, affine))
    return own


def sorted_components(mask: np.ndarray) -> np.ndarray:
    """Number components by size, the largest first, as SimpleITK does."""
    numbers = SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(mask), True)
    return SimpleITK.GetArrayFromImage(SimpleITK.RelabelComponent(numbers, sortByObjectSize=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_components_are_kept_as_simpleitk_sorts_them(shape: tuple[int, ...], share: float) -> None:
    for seed in range(5):
        mask = blobs(shape, seed, share)
        numbers = sorted_components(mask)
        sizes = np.bincount(numbers.ravel())
        sizes[0] = 0
        least = int(np.median(sizes[1:])) + 1
        assert np.array_equal(cleaned(mask, Cleaning(remove_below=f"{least}px")), sizes[numbers] >= least)
        largest = cleaned(mask, Cleaning(keep="largest"))
        assert largest.sum() == sizes.max()
        assert len(np.unique(numbers[largest > 0])) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_holes_are_those_of_monai(shape: tuple[int, ...], share: float) -> None:
    filled = 0
    for seed in range(5):
        mask = blobs(shape, seed, share)
        found = cleaned(mask, Cleaning(fill_holes=True))
        assert np.array_equal(found, np.asarray(FillHoles(connectivity=1)(mask[None].copy()))[0])
        filled += int(found.sum() - mask.sum())
    assert filled > 0
