"""Images that are not like those before, against the statistics of multivariate normals and on real pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medsegdiff.data.split import names_in
from medsegdiff.metrics.likeness import features_of, fit_likeness

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


def test_features_of_other_channels_are_infinitely_far() -> None:
    grey = [features_of(np.random.default_rng(seed).random((1, 16, 16))) for seed in range(5)]
    assert fit_likeness(grey).distance(features_of(np.zeros((3, 16, 16)))) == np.inf


def test_a_large_picture_has_the_features_of_the_pixels_that_are_looked_at() -> None:
    small = np.random.default_rng(0).random((1, 1500, 1200)).astype(np.float32)
    large = small.repeat(2, axis=1).repeat(2, axis=2)  # 7 million pixels, of which every second is looked at
    assert features_of(large) == pytest.approx(features_of(small))


def test_images_of_one_value_and_of_a_pixel_have_features() -> None:
    for image in (np.full((1, 7, 9), 3.0), np.zeros((1, 1, 1)), np.zeros((2, 9, 8, 3))):
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
