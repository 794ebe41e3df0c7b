"""Images that are not like those before, against the statistics of multivariate normals and on real pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medsegdiff.data.split import names_in
from medsegdiff.metrics.likeness import AXES, SHRINK, features_of, fit_likeness

WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blurred": lambda image: gaussian_filter(image, (0, 4, 4)),
    "inverted": lambda image: 1 - image,
    "noisy": lambda image: np.clip(image + 0.15 * np.random.default_rng(0).standard_normal(image.shape), 0, 1),
    "windowed": lambda image: np.clip(4 * (image - 0.35), 0, 1),
}


def test_distance_is_1_on_average_for_normal_features() -> None:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((6, 6)) / 3 + np.eye(6)
    told = fit_likeness(list(rng.standard_normal((400, 6)) @ mix))
    apart = [told.distance(of) for of in rng.standard_normal((400, 6)) @ mix]
    assert np.mean(np.square(apart)) == pytest.approx(1, abs=0.35)  # correlations are shrunk
    assert 0.95 < np.mean(np.array(apart) <= told.usual) <= 1
    assert told.distance(np.full(6, 50.0)) > 5 * told.usual


def test_the_distance_is_that_of_correlations_that_are_shrunk() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((50, 5)) @ rng.standard_normal((5, 5)) + 3
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    shrunk = (1 - SHRINK) * np.corrcoef(values.T) + SHRINK * np.eye(5)
    told = fit_likeness(list(values))
    for value, of in zip(values[:4], z[:4], strict=True):
        assert told.distance(value) == pytest.approx(np.sqrt(of @ np.linalg.inv(shrunk) @ of / 5))


def test_of_many_features_the_axes_that_vary_most_are_told_apart() -> None:
    """Two hidden numbers make 200: breaking what they have in common is unlike, more of the same is less so."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((2, 200))

    def some(count: int) -> np.ndarray:
        return rng.standard_normal((count, 2)) @ mix + 0.1 * rng.standard_normal((count, 200))

    told = fit_likeness(list(some(60)), list(some(60)))
    assert len(told.axes) == AXES
    usual = np.median([told.distance(of) for of in some(40)])
    more = np.median([told.distance(2 * of) for of in some(40)])
    broken = np.median([told.distance(rng.permutation(of)) for of in some(40)])
    assert usual < more < broken
    assert told.usual < broken


def test_a_patient_is_not_on_both_sides() -> None:
    """Images of a patient are alike: measured by themselves, those of a new one would all be unusual."""
    rng = np.random.default_rng(0)

    def patients(count: int) -> tuple[list[np.ndarray], list[str]]:
        own = rng.standard_normal((count, 20))
        values = np.repeat(own, 8, axis=0) + 0.05 * rng.standard_normal((8 * count, 20))
        return list(values), np.repeat(np.arange(count).astype(str), 8).tolist()

    (values, groups), (new, _) = patients(12), patients(40)
    by_patient, by_image = fit_likeness(values, groups=groups), fit_likeness(values)
    held = [np.mean([of.distance(value) <= of.usual for value in new]) for of in (by_patient, by_image)]
    assert held[0] > 0.95
    assert held[1] < 0.5


def test_features_of_other_channels_are_infinitely_far() -> None:
    grey = [features_of(np.random.default_rng(seed).random((1, 16, 16))) for seed in range(5)]
    assert fit_likeness(grey).distance(features_of(np.zeros((3, 16, 16)))) == np.inf


def test_a_large_picture_has_the_features_of_the_pixels_that_are_looked_at() -> None:
    small = np.random.default_rng(0).random((1, 1500, 1200)).astype(np.float32)
    large = small.repeat(2, axis=1).repeat(2, axis=2)  # 7 million pixels, of which every second is looked at
    assert features_of(large) == pytest.approx(features_of(small))


def test_images_of_one_value_and_of_a_pixel_have_features() -> None:
    for image in (np.full((1, 7, 9), 3.0), np.zeros((1, 1, 1)), np.zeros((2, 9, 8))):
        assert np.isfinite(features_of(image)).all()


@pytest.mark.parametrize(("data", "suffix"), [("heart_lv", "png"), ("isic2016", "jpg")])
def test_spoilt_pictures_are_less_like_the_others(data: str, suffix: str, real_data: Callable[[str], Path]) -> None:
    """AUROC of the distance, spoilt against clean pictures of patients that nothing was learned from."""
    root = real_data(data)

    def some(part: str, most: int) -> list[np.ndarray]:
        files = sorted(root / "images" / f"{name}.{suffix}" for name in names_in(root / "split.csv", part))
        return [_read(file) for file in files[:: max(1, len(files) // most)][:most]]

    told = fit_likeness([features_of(image) for image in some("train", 100)])
    test = some("test", 30)
    clean = np.array([told.distance(features_of(image)) for image in test])
    found = {}
    for name, spoil in WRONG.items():
        spoilt = np.array([told.distance(features_of(spoil(image))) for image in test])
        found[name] = float((spoilt[:, None] > clean).mean())
    assert np.mean(list(found.values())) >= 0.9, found
    assert min(found.values()) >= 0.8, found


def _read(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        pixels = np.asarray(picture, np.float32) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
