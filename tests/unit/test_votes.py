"""Packed votes against the votes themselves."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.fusion import votes as module
from medsegdiff.fusion.votes import Votes

CASES = [(1, 2), (2, 2), (8, 2), (9, 2), (20, 2), (61, 2), (70, 2), (5, 3), (6, 4), (5, 16), (40, 5), (4, 300), (3, 1)]


def drawn(m: int, num_labels: int, n: int = 500) -> torch.Tensor:
    """Votes that agree on half of the pixels, and by pairs of pixels."""
    generator = torch.Generator().manual_seed(m)
    votes = torch.randint(0, num_labels, (m, n), generator=generator)
    votes[:, : n // 2] = votes[0, : n // 2].clone()
    return votes.repeat(1, 2)


def unpacked(packed: Votes) -> torch.Tensor:
    """Which sample votes for which label where (m, k, n), read through `sums`."""
    m, k = packed.num_samples, packed.num_labels
    tables = torch.eye(m * k, dtype=torch.float64).unflatten(1, (m, k))
    return packed.sums(tables)[:, packed.of_pixel].unflatten(0, (m, k))


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_nothing_is_lost_by_packing(m: int, num_labels: int) -> None:
    votes = drawn(m, num_labels).int()
    before = votes.clone()
    packed = Votes.of(votes, num_labels)
    assert torch.equal(votes, before)
    assert torch.equal(unpacked(packed).argmax(dim=1).int(), votes)
    assert torch.equal(unpacked(packed).sum(dim=1), torch.ones(m, 1000, dtype=torch.float64))


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_counts_are_how_many_pixels_have_a_pattern(m: int, num_labels: int) -> None:
    packed = Votes.of(drawn(m, num_labels), num_labels)
    assert torch.equal(packed.count, torch.bincount(packed.of_pixel, minlength=len(packed.count)).double())


@pytest.mark.parametrize(("m", "num_labels"), CASES)
def test_totals_are_sums_over_pixels(m: int, num_labels: int) -> None:
    votes = drawn(m, num_labels)
    packed = Votes.of(votes, num_labels)
    weight = torch.rand(2, len(packed.count), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    said = torch.nn.functional.one_hot(votes, num_labels).double()  # (m, n, k)
    expected = torch.einsum("mnk,cn->cmk", said, weight[:, packed.of_pixel])
    assert torch.allclose(packed.totals(weight * packed.count), expected)


def test_pixels_with_the_same_votes_share_a_pattern() -> None:
    votes = torch.tensor([[0, 1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 1, 0, 1]])
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
    assert torch.equal(whole.of_pixel, parts.of_pixel)
    assert torch.equal(whole.codes, parts.codes)
    assert torch.equal(whole.count, parts.count)


def test_a_table_finds_what_sorting_finds() -> None:
    numbers = torch.randint(0, 3000, (1000,), generator=torch.Generator().manual_seed(0))
    by_table, by_sorting = module._counted(numbers, 3000), module._counted(numbers, 2**40)
    for a, b in zip(by_table, by_sorting, strict=True):
        assert torch.equal(a.long(), b)
