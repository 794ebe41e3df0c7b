"""Folders as people have them, with pictures of discs whose masks are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.makers import disc, write_png

SIZE = (24, 20)


def drawn(seed: int) -> np.ndarray:
    """The true mask of an image."""
    rng = np.random.default_rng(seed)
    return disc(SIZE, tuple(rng.uniform(8, 12, size=2)), rng.uniform(3, 6))


def halves(mask: np.ndarray) -> list[np.ndarray]:
    """Two instances that make a mask."""
    left = np.arange(SIZE[1]) < SIZE[1] // 2
    return [mask & left, mask & ~left]


def write_tree(root: Path, files: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Write images with their masks, none, one or two halves of one; the truth is given by image."""
    truth = {}
    for seed, (image, masks) in enumerate(files.items()):
        mask = truth[image] = drawn(seed)
        grey = 80 + 90 * mask + np.random.default_rng(seed).normal(0, 10, SIZE)
        write_png(root / image, np.clip(grey, 0, 255).astype(np.uint8))
        for path, part in zip(masks, [mask] if len(masks) == 1 else halves(mask), strict=False):
            write_png(root / path, part.astype(np.uint8) * np.uint8(255))
    return truth


def side_by_side() -> dict[str, list[str]]:
    """Kinds of images in folders, masks beside them; one image has two."""
    files = {
        f"{kind}/{kind} ({i}).png": [f"{kind}/{kind} ({i})_mask.png"]
        for kind in ("benign", "malignant")
        for i in range(5)
    }
    return files | {"benign/benign (1).png": ["benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png"]}


def in_parts() -> dict[str, list[str]]:
    """Parts, then images and labels, then sub-folders."""
    counts = {"Train": 4, "Val": 2, "Test": 2}
    return {
        f"{part}/Images/{sub}/x{i}.png": [f"{part}/Labels/{sub}/x{i}.png"]
        for part, count in counts.items()
        for sub in ("north", "south")
        for i in range(count)
    }


def a_folder_each() -> dict[str, list[str]]:
    """A folder for each image, with a file for each of its one or two instances."""
    names = [f"{i}c0ffee" for i in range(9)]
    return {
        f"{name}/images/{name}.png": [f"{name}/masks/{i}{name[::-1]}.png" for i in range(1 + number % 2)]
        for number, name in enumerate(names)
    }


def other_words() -> dict[str, list[str]]:
    """Other words for images and masks."""
    return {f"img/x{i}.png": [f"labels/x{i}_mask.png"] for i in range(8)}


TREES = {tree.__name__: tree for tree in (side_by_side, in_parts, a_folder_each, other_words)}
