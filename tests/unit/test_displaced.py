"""Masks that were moved off what they outline: one patient of several, a whole folder, and real ones."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medsegdiff.config.data import DataConfig
from medsegdiff.data.inspect import inspect_folder
from tests.makers import disc, write_png

SIDE = 96


def write(root: Path, moved: dict[str, tuple[int, int]], *, each: int = 6, inside: float = 60.0) -> Path:
    """Discs on a rough ground, beside a brighter and larger organ; masks of some patients are moved."""
    rng, rows = np.random.default_rng(0), ["id,patient,split"]
    for patient, (down, right) in moved.items():
        for number in range(each):
            name, (y, x) = f"{patient}{number}", rng.uniform(38, 58, size=2)
            mask = disc((SIDE, SIDE), (y, x), rng.uniform(8, 12))
            ground = 90 + gaussian_filter(rng.normal(0, 60, (SIDE, SIDE)), 3)
            ground += inside * mask + 1.5 * inside * disc((SIDE, SIDE), (y, x - 34), 14)
            write_png(root / "images" / f"{name}.png", np.clip(ground, 0, 255).astype(np.uint8))
            write_png(root / "masks" / f"{name}.png", np.roll(mask, (down, right), (0, 1)).astype(np.uint8) * 255)
            rows.append(f"{name},{patient},{'train' if patient != 'c' else 'test'}")
    (root / "split.csv").write_text("\n".join(rows) + "\n")
    return root


def beside(root: Path) -> list[str]:
    return [of for of in inspect_folder(root, DataConfig()).remarks if "beside what they outline" in of]


@pytest.mark.parametrize("inside", [60.0, -50.0])
def test_a_patient_whose_masks_were_moved_is_named_with_the_way_back(tmp_path: Path, inside: float) -> None:
    assert beside(write(tmp_path / "sound", {"a": (0, 0), "b": (0, 0), "c": (1, -1)}, inside=inside)) == []
    (told,) = beside(write(tmp_path / "moved", {"a": (0, 0), "b": (5, -8), "c": (0, 0)}, inside=inside))
    assert told.startswith("b: in 6 images")
    assert "5 % up" in told
    assert re.search("[89] % to the right", told)


def test_of_few_images_nothing_is_said(tmp_path: Path) -> None:
    assert beside(write(tmp_path, {"a": (0, 0), "b": (5, -8)}, each=4)) == []


def test_all_of_a_folder_without_patients_may_be_displaced(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": (6, 0)}, each=8)
    (root / "split.csv").unlink()
    (told,) = beside(root)
    assert told.startswith("In 8 images")
    assert "6 % up" in told


@pytest.mark.parametrize("inside", [60.0, -50.0])
@pytest.mark.parametrize("gap", [3, 4, 6])
def test_masks_well_inside_of_what_they_outline_are_not_displaced(tmp_path: Path, inside: float, gap: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        middle, radius = rng.uniform(42, 54, size=2), rng.uniform(16, 24)
        ground = 120 + gaussian_filter(rng.normal(0, 30, (SIDE, SIDE)), 3) + inside * disc((SIDE, SIDE), middle, radius)
        mask = disc((SIDE, SIDE), middle, radius - gap)
        write_png(tmp_path / "images" / f"{number}.png", np.clip(ground, 0, 255).astype(np.uint8))
        write_png(tmp_path / "masks" / f"{number}.png", mask.astype(np.uint8) * 255)
    assert beside(tmp_path) == []


def test_one_patient_of_the_sunnybrook_data_is_displaced(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = real_data("heart_lv").resolve()
    chosen = [
        row
        for row in csv.DictReader((root / "split.csv").read_text().splitlines())
        if row["patient"] in ("SC-N-06", "SC-N-05")
    ]
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for row in chosen:
            (tmp_path / kind / f"{row['id']}.png").symlink_to(root / kind / f"{row['id']}.png")
    lines = ["id,split,patient", *(",".join(row.values()) for row in chosen)]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    (told,) = beside(tmp_path)
    assert told.startswith("SC-N-06: in 13 images")
    assert "4 % to the right" in told
