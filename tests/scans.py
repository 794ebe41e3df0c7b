"""Scans for tests: volumes of known values, in Hounsfield units or others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.volumes import save

SPACING = np.diag([0.5, 0.75, 3.0, 1.0])


def make_scans(root: Path, *, structures: tuple[float, ...] = (30.0, 300.0), kinds: str = "c") -> Path:
    """Volumes of 12×10×6 voxels: air around a body, in it structures of known values; c is CT, m is MR."""
    rng = np.random.default_rng(0)
    for i in range(8):
        labels = np.zeros((12, 10, 6), np.uint8)
        for number, _ in enumerate(structures):
            labels[3 + 2 * number : 5 + 2 * number, 3:7, 1:5] = number + 1
        body = np.zeros(labels.shape, bool)
        body[1:-1, 1:-1] = True
        ct = np.where(body, -100.0, -1000.0)
        for number, value in enumerate(structures):
            ct[labels == number + 1] = value
        mr = np.where(body, rng.integers(100, 900, labels.shape), 0)
        channels = [ct if kind == "c" else mr for kind in kinds]
        voxels = np.stack(channels, axis=3).astype(np.int16)
        save(root / "images" / f"v{i}.nii", voxels if len(kinds) > 1 else voxels[..., 0], SPACING)
        save(root / "masks" / f"v{i}.nii", labels, SPACING)
    return root
