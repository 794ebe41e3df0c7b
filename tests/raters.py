"""A data folder that several raters drew, and the members of an ensemble with their fused mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.makers import disc, write_png


def make_rated(
    root: Path, *, count: int = 4, size: tuple[int, int] = (48, 40), raters: int = 3, members: int = 4, seed: int = 0
) -> tuple[Path, Path]:
    """Write discs; later cases are predicted worse. Gives the predictions and the data."""
    rng = np.random.default_rng(seed)
    unit = min(size)
    for i in range(count):
        name, centre, radius = f"case{i}.png", (size[0] / 2, size[1] / 2), unit / 4
        inside = disc(size, centre, radius)
        image = np.clip(80 + 90 * inside + rng.normal(0, 10, size=size), 0, 255)
        write_png(root / "data" / "images" / name, image.astype(np.uint8))
        for rater in range(raters):
            drawn = disc(size, centre, radius + unit * rater / 40)
            write_png(root / "data" / "masks" / f"rater{rater + 1}" / name, _stored(drawn))
        off = (centre[0] + unit * i / 40, centre[1])
        found = [disc(size, off, radius + unit * rng.uniform(-0.05, 0.05)) for _ in range(members)]
        for member, mask in enumerate(found):
            write_png(root / "pred" / "members" / f"{member:02d}" / name, _stored(mask))
        write_png(root / "pred" / "masks" / name, _stored(np.mean(found, axis=0) >= 0.5))
    return root / "pred", root / "data"


def _stored(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(255)
