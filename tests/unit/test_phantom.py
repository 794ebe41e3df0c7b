from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import ListedSource, open_source
from medsegdiff.data.phantom import PhantomSource, make_lesion, write_phantom


def test_raters_follow_the_distribution_that_is_told() -> None:
    lesion = make_lesion(48, 3)
    masks, weights = lesion.distribution()
    assert weights.sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([lesion.raters(rng) for _ in range(1200)])
    shares = [np.mean((drawn == mask).all(axis=(1, 2))) for mask in masks]
    assert shares == pytest.approx(weights.tolist(), abs=0.02)
    assert np.abs(drawn.mean(axis=0) - lesion.probability()).max() < 0.025


def test_each_part_is_drawn_as_often_as_it_is_probable() -> None:
    lesion = make_lesion(48, 3)
    probability = lesion.probability()
    for part, p in ((lesion.core, 1.0), (lesion.rim, lesion.p_rim), (lesion.satellite, lesion.p_satellite)):
        assert np.allclose(probability[part], p)
    assert not probability[~(lesion.core | lesion.rim | lesion.satellite)].any()


def test_fainter_parts_are_drawn_by_fewer() -> None:
    """The picture tells the probability: brightness of the rim above the ground rises with p."""
    lesions = [make_lesion(64, seed) for seed in range(120)]
    seen = [(l.p_rim, l.image[0][l.rim].mean()) for l in lesions]
    assert np.corrcoef(np.array(seen).T)[0, 1] > 0.7


def test_core_is_in_every_mask_and_parts_do_not_overlap() -> None:
    for seed in range(20):
        lesion = make_lesion(64, seed)
        assert lesion.core.any()
        assert all((mask & lesion.core).sum() == lesion.core.sum() for mask in lesion.distribution()[0])
        assert not (lesion.core & lesion.rim).any()
        assert not (lesion.satellite & (lesion.core | lesion.rim)).any()


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    config = DataConfig(image_size=32)
    phantom = PhantomSource(config, counts=(4, 2, 2))
    write_phantom(phantom, tmp_path)
    stored = open_source(tmp_path, config)
    assert isinstance(stored, ListedSource)
    assert stored.info.split == phantom.info.split
    assert stored.info.raters == phantom.info.raters
    for name in phantom.info.split:
        a, b = phantom.load(name), stored.load(name)
        assert np.allclose(a.image, b.image, atol=1e-6)
        assert np.array_equal(a.mask, b.mask)


def test_another_seed_is_another_data_set() -> None:
    a, b = (PhantomSource(DataConfig(image_size=32, split_seed=s)).load("lesion_0000").image for s in (0, 1))
    assert not np.array_equal(a, b)
