"""Testing an exported run by itself: a picture made of waves and noise, and what PyTorch made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medsegdiff.diffusion.philox import randn
from medsegdiff.errors import CheckpointError
from medsegdiff.io.graphs import Graph
from medsegdiff.runtime.facts import MEAN, Facts
from medsegdiff.seeding import derive_seed

FILE = "selftest.npz"
"""Beside the graphs."""
EVERY = 4
"""Of the pixels along each axis, one in so many is kept."""
TOLERANCE = 1e-3
"""What results may differ by, relative to 1 or, of larger numbers, to these."""


def picture(channels: int, grid: tuple[int, int]) -> Float[np.ndarray, "1 c h w"]:
    """Make an image of waves, of mean 0 and deviation 1, about, other ones in each channel."""
    rows, columns = (np.linspace(0, 2 * math.pi, side) for side in grid)
    waves = [np.sin(rows * (2 + channel))[:, None] + np.cos(columns * 3 + channel) for channel in range(channels)]
    return np.stack(waves)[None].astype(np.float32)


def trial_noise(channels: int, grid: tuple[int, int]) -> Float[np.ndarray, "2 k h w"]:
    """Draw noise of two members."""
    key = derive_seed(0, "selftest")
    return randn([(key, 0), (key, 1)], (channels, *grid))


def check(folder: Path, facts: Facts, look: Graph, step: Graph) -> float:
    """Compare what graphs make of the sample with what PyTorch made of it when the run was exported.

    Args:
        folder: Of the exported run.
        facts: That it tells.
        look: Its graph.
        step: Its graph.

    Returns:
        The largest difference.

    Raises:
        CheckpointError: If it is beyond what rounding explains.
    """
    file = folder / FILE
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such file. Export the run anew, with 'medsegdiff export'.")
    grid, row = facts.image.grid, facts.table[len(facts.table) // 2]
    image = picture(facts.image.network_channels, grid)
    known = {"image": image, **look({"image": image})}
    x_t = trial_noise(len(facts.labels.classes), grid)
    at = {name: np.array([getattr(row, name)], np.float32) for name in ("t", "alpha", "sigma")}
    found = {**known, **step({"x_t": x_t, **at, **known}, wanted=("x_0",))}
    if (folder / f"{MEAN}.onnx").is_file():
        found |= Graph(folder / f"{MEAN}.onnx")({"image": image})
    apart = 0.0
    with np.load(file) as expected:
        for name in set(expected.files) & set(found):
            wanted = expected[name]
            differences = np.abs(found[name][..., ::EVERY, ::EVERY] - wanted) / np.maximum(np.abs(wanted), 1)
            apart = max(apart, float(np.nan_to_num(differences, nan=math.inf).max()))
    if apart > TOLERANCE:
        raise CheckpointError(
            f"{folder}: the graphs give other results than PyTorch gave when they were exported; they differ by "
            f"{apart:.2g}, {TOLERANCE:g} is allowed. Export the run anew, or take another version of onnxruntime."
        )
    return apart
