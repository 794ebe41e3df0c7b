"""Packed votes against the votes themselves."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.fusion import votes as module
from medsegdiff.fusion.votes import Votes

CASES = [(1, 2), (2, 2), (8, 2), (9, 2), (20, 2), (61, 2), (70, 2), (5, 3), (6, 4), (5, 16), (40, 5), (4, 300), (3, 1)]


def drawn(m: int, num_labels: int, n: int = 500) -> np.ndarray:
    """Votes that agree on half of the pixels, and by pairs of pixels."""
    votes = np.random.default_rng(m).integers(0, num_labels, (m, n))
    votes[:, : n // 2] = votes[0, : n // 2]
    return np.tile(votes, (1, 2))


def unpacked(packed: Votes) -> np.ndarray:
    """Which sample votes for which label where (m, k, n), read through `sums`."""
    m, k = packed.num_samples, packed.num_labels
    tables = np.eye(m * k).reshape(-1, m, k)
    return packed.sums(tables)[:, packed.of_pixel].reshape(m, k, -1)


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_nothing_is_lost_by_packing(m: int, num_labels: int) -> None:
    votes = drawn(m, num_labels).astype(np.int32)
    before = votes.copy()
    packed = Votes.of(votes, num_labels)
    assert np.array_equal(votes, before)
    assert np.array_equal(unpacked(packed).argmax(axis=1), votes)
    assert np.array_equal(unpacked(packed).sum(axis=1), np.ones((m, 1000)))


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_counts_are_how_many_pixels_have_a_pattern(m: int, num_labels: int) -> None:
    packed = Votes.of(drawn(m, num_labels), num_labels)
    assert np.array_equal(packed.count, np.bincount(packed.of_pixel, minlength=len(packed.count)))


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_totals_are_sums_over_pixels(m: int, num_labels: int) -> None:
    votes = drawn(m, num_labels)
    packed = Votes.of(votes, num_labels)
    weight = np.random.default_rng(0).random((2, len(packed.count)))
    said = np.eye(num_labels)[votes]  # (m, n, k)
    expected = np.einsum("mnk,cn->cmk", said, weight[:, packed.of_pixel])
    assert np.allclose(packed.totals(weight * packed.count), expected)


def test_pixels_with_the_same_votes_share_a_pattern() -> None:
    votes = np.array([[0, 1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 1, 0, 1]])
    packed = Votes.of(votes, 2)
    assert packed.of_pixel[:2].tolist() == [0, 1]  # those that agree come first
    assert packed.of_pixel[3] == 1
    assert packed.of_pixel[2] == packed.of_pixel[4] == packed.of_pixel[6] != packed.of_pixel[5]
    assert packed.count.tolist() == [1, 2, 3, 1]


@pytest.mark.parametrize("m", [3, 30, 70])
def test_packing_by_blocks_changes_nothing(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = drawn(m, 2)
    whole = Votes.of(votes, 2)
    monkeypatch.setattr(module, "BLOCK", 77)
    parts = Votes.of(votes, 2)
    assert np.array_equal(whole.of_pixel, parts.of_pixel)
    assert np.array_equal(whole.codes, parts.codes)
    assert np.array_equal(whole.count, parts.count)


def test_a_table_finds_what_sorting_finds() -> None:
    numbers = np.random.default_rng(0).integers(0, 3000, 1000)
    by_table, by_sorting = module._counted(numbers, 3000), module._counted(numbers, 2**40)
    for a, b in zip(by_table, by_sorting, strict=True):
        assert np.array_equal(a, b)
