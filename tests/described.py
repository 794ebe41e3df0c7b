"""Folders of nnU-Net and the Decathlon for tests, written by hand: by nibabel, Pillow and json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.volumes import oblique, save

SHAPE = (6, 5, 4)


def voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-500, 1500, SHAPE).astype(np.int16)


def nested(seed: int, *, top: int = 2) -> np.ndarray:
    """Labels 0 … top at random."""
    return np.random.default_rng(100 + seed).integers(0, top + 1, SHAPE).astype(np.uint8)


def describe(root: Path, **changed: Any) -> Path:
    """Write ``dataset.json`` with its keys; ``None`` leaves one out."""
    root.mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in changed.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(told))
    return root


def make_nnunet(root: Path, *, count: int = 4, channels: tuple[str, ...] = ("CT",), **changed: Any) -> Path:
    """Volumes with labels 0, 1, 2, and a test case without."""
    labels = changed.pop("labels", {"background": 0, "liver": 1, "tumour": 2})
    top = max(max(value) if isinstance(value, list) else value for value in labels.values())
    for i in range(count + 1):
        short = "Tr" if i < count else "Ts"
        for channel in range(len(channels)):
            save(root / f"images{short}" / f"c{i}_{channel:04d}.nii.gz", voxels(10 * i + channel), oblique())
        if i < count:
            save(root / "labelsTr" / f"c{i}.nii.gz", nested(i, top=top), oblique())
    told: dict[str, Any] = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    return describe(root, **(told | changed))


def make_msd(root: Path, *, count: int = 4, channels: tuple[str, ...] = ("CT",), **changed: Any) -> Path:
    """Volumes with labels 0, 1, 2, channels along the fourth axis, and a test case without labels."""
    for i in range(count + 1):
        stacked = np.stack([voxels(10 * i + channel) for channel in range(len(channels))], axis=3)
        image = stacked if len(channels) > 1 else stacked[..., 0]
        save(root / ("imagesTr" if i < count else "imagesTs") / f"v_{i:03d}.nii.gz", image, oblique())
        if i < count:
            save(root / "labelsTr" / f"v_{i:03d}.nii.gz", nested(i), oblique())
    told: dict[str, Any] = {
        "name": "Small",
        "modality": {str(number): name for number, name in enumerate(channels)},
        "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "numTraining": count,
        "training": [
            {"image": f"./imagesTr/v_{i:03d}.nii.gz", "label": f"./labelsTr/v_{i:03d}.nii.gz"} for i in range(count)
        ],
        "test": [f"./imagesTs/v_{count:03d}.nii.gz"],
    }
    return describe(root, **(told | changed))
