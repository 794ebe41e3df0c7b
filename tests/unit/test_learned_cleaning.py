"""What calibration learns to clean, from masks whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.evaluation import evaluate
from medsegdiff.training.cleaning import Learned, learn_cleaning
from tests.makers import disc, write_png

SIZE = (32, 32)
Faults = Callable[[np.ndarray, int], np.ndarray]


def island(mask: np.ndarray, number: int) -> np.ndarray:
    """Draw 4 to 6 pixels far from the structure."""
    drawn = mask.copy()
    drawn[1, 1 : 5 + number % 3] = True
    return drawn


def hole(mask: np.ndarray, number: int) -> np.ndarray:
    drawn = mask.copy()
    drawn[16, 14 : 16 + number % 2] = False
    return drawn


def right(mask: np.ndarray, number: int) -> np.ndarray:
    return mask


def single() -> np.ndarray:
    return disc(SIZE, (16, 16), 6)


def pair_of() -> np.ndarray:
    return disc(SIZE, (12, 8), 4) | disc(SIZE, (20, 24), 5)


def learned(root: Path, truth: np.ndarray, faults: Faults, *, patients: int = 12, each: int = 1) -> Learned:
    lines = ["id,split,patient"]
    for number in range(patients * each):
        name = f"p{number:02d}"
        write_png(root / "masks" / f"{name}.png", truth.astype(np.uint8) * np.uint8(255))
        drawn = faults(truth, number // each).astype(np.uint8)
        write_png(root / "drawn" / f"{name}.png", drawn * np.uint8(255))
        lines.append(f"{name},test,{number // each}")
    (root / "split.csv").write_text("\n".join(lines) + "\n")
    found = evaluate(root / "drawn", root / "masks")
    assert found.pairing is not None
    return learn_cleaning(found.pairing)


def test_islands_that_no_reference_has_are_removed(tmp_path: Path) -> None:
    found = learned(tmp_path, single(), island)
    (how,) = found.cleaning.values()
    gain = found.gains["foreground"]
    assert how.keep == "largest" or how.remove_below
    assert not how.fill_holes
    inside = single().sum()
    before = np.mean([2 * inside / (2 * inside + 4 + number % 3) for number in range(12)])
    assert (gain.before, gain.after) == (pytest.approx(before), 1.0)
    assert (gain.better, gain.worse) == (12, 0)
    assert gain.p < 0.05


def test_where_a_structure_has_two_parts_small_islands_go_and_both_parts_stay(tmp_path: Path) -> None:
    found = learned(tmp_path, pair_of(), island)
    assert found.cleaning == {"foreground": Cleaning(remove_below="7px")}  # islands have 6 at most
    assert found.gains["foreground"].after == 1.0


def test_several_steps_are_taken_where_each_helps(tmp_path: Path) -> None:
    found = learned(tmp_path, single(), lambda mask, number: hole(island(mask, number), number))
    how = found.cleaning["foreground"]
    assert how.fill_holes
    assert how.keep == "largest" or how.remove_below
    assert (found.gains["foreground"].after, found.gains["foreground"].worse) == (1.0, 0)


@pytest.mark.parametrize(("faults", "patients", "each"), [(right, 12, 1), (island, 3, 4)])
def test_nothing_is_learned_of_right_masks_and_of_few_patients(
    faults: Faults, patients: int, each: int, tmp_path: Path
) -> None:
    assert learned(tmp_path, single(), faults, patients=patients, each=each) == Learned()


def test_a_step_that_helps_some_and_harms_as_many_is_not_taken(tmp_path: Path) -> None:
    """Half of the references hold the island."""

    def sometimes(mask: np.ndarray, number: int) -> np.ndarray:
        return island(mask, number) if number % 2 else mask

    truth = island(single(), 0)
    found = learned(tmp_path, truth, lambda mask, number: mask if number % 2 else sometimes(single(), 1))
    assert found == Learned()
