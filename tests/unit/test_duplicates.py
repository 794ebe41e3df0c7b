"""Near-duplicates across parts: every pair is found, as comparing each with each finds it, and in little memory."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medsegdiff.data.duplicates import ALIKE, near_duplicates, thumbnail

PARTS = ("train", "val", "test")


def brute(thumbnails: dict[str, torch.Tensor], split: dict[str, str]) -> dict[tuple[str, str], float]:
    pairs = combinations([name for name in thumbnails if name in split], 2)
    found = {(a, b): float(thumbnails[a].double() @ thumbnails[b].double()) for a, b in pairs if split[a] != split[b]}
    return {pair: value for pair, value in found.items() if value > ALIKE}


def alike(number: int, *, noise: float, kinds: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Thumbnails of so many kinds, and nothing (a blank image) among them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(kinds, 2048, generator=generator)
    values = centres[torch.arange(number) % kinds] + noise * torch.randn(number, 2048, generator=generator)
    values[number // 2] = 0
    return {f"c{i}": torch.nn.functional.normalize(row, dim=0) for i, row in enumerate(values)}


def as_pairs(found: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(pair["a"], pair["b"]): pair["correlation"] for pair in found}


@pytest.mark.parametrize(
    ("number", "noise", "kinds"), [(120, 0.15, 9), (200, 0.22, 20), (300, 2.0, 300), (40, 0.01, 1)]
)
@pytest.mark.parametrize("block", [7, 4096])
def test_pairs_are_those_of_each_with_each(number: int, noise: float, kinds: int, block: int) -> None:
    thumbnails = alike(number, noise=noise, kinds=kinds)
    split = {name: PARTS[i % 7 % 3] for i, name in enumerate(thumbnails) if i % 11}
    found = near_duplicates(thumbnails, split, block=block)
    expected = brute(thumbnails, split)
    assert bool(expected) == (kinds < 300)
    assert as_pairs(found) == pytest.approx(expected, abs=1e-5)
    values = [pair["correlation"] for pair in found]
    assert values == sorted(values, reverse=True)
    assert all(pair["splits"] == [split[pair["a"]], split[pair["b"]]] for pair in found)


def test_of_many_pairs_the_most_alike_are_listed() -> None:
    thumbnails = alike(120, noise=0.15, kinds=1)
    split = {name: PARTS[i % 3] for i, name in enumerate(thumbnails)}
    best = sorted(brute(thumbnails, split).values(), reverse=True)
    found = near_duplicates(thumbnails, split, most=50, block=16)
    assert [pair["correlation"] for pair in found] == pytest.approx(best[:50], abs=1e-5)


def test_an_image_without_numbers_hides_no_others() -> None:
    thumbnails = alike(12, noise=0.05, kinds=2)
    thumbnails["c0"] = torch.full((2048,), torch.nan)
    split = {name: PARTS[i % 3] for i, name in enumerate(thumbnails)}
    assert as_pairs(near_duplicates(thumbnails, split)).keys() == brute(thumbnails, split).keys()


def test_a_copy_that_was_resized_and_brightened_is_found_and_another_image_is_not() -> None:
    rng = np.random.default_rng(0)
    one, other = (gaussian_filter(rng.normal(size=(1, 96, 96)), (0, 4, 4)).astype(np.float32) for _ in range(2))
    copy = torch.nn.functional.interpolate(torch.from_numpy(one)[None], size=(80, 80), mode="bilinear")[0] * 1.3 + 0.2
    thumbnails = {"one": thumbnail(one), "copy": thumbnail(copy.numpy()), "other": thumbnail(other)}
    pairs = near_duplicates(thumbnails, {"one": "train", "copy": "test", "other": "test"})
    assert [(p["a"], p["b"]) for p in pairs] == [("one", "copy")]
    assert near_duplicates(thumbnails, dict.fromkeys(thumbnails, "train")) == []
    assert near_duplicates({}, {}) == []


def test_thousands_of_images_are_compared_a_block_at_a_time() -> None:
    """No table of each with each: that of 12,000 would take more than half a gigabyte."""
    values = torch.nn.functional.normalize(torch.randn(12_000, 96, generator=torch.Generator().manual_seed(0)), dim=1)
    values[9_000] = values[7]
    largest = 0
    product = torch.Tensor.__matmul__

    def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        made = product(a, b)
        largest = max(largest, made.numel())
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", watched)
        names = [f"c{i}" for i in range(len(values))]
        split = {name: "train" if i < 7_000 else "test" for i, name in enumerate(names)}
        found = near_duplicates(dict(zip(names, values, strict=True)), split)
    assert [(pair["a"], pair["b"]) for pair in found] == [("c7", "c9000")]
    assert largest <= 4096**2
