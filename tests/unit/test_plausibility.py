"""What makes a mask suspicious, on masks whose nature is known; and the warning of ``segment``."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.metrics.distribution import agreement
from medsegdiff.metrics.plausibility import Appearance, alikeness, appearance_of, roughness, warning_of
from tests.makers import disc, make_folder
from tests.program import call
from tests.unit.test_diagnosis import fresh_run


def noise(share: float, size: tuple[int, ...] = (64, 64), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < share


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("size", [(64, 64), (300, 200), (20, 40, 40)])
def test_independent_pixels_are_as_rough_as_chance(share: float, size: tuple[int, ...]) -> None:
    assert roughness(noise(share, size)) == pytest.approx(1, abs=0.1)


def test_roughness_is_the_ratio_of_differing_neighbours_counted_by_hand() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = mask[1, 2] = True
    pairs = [(mask[i, j], mask[i + 1, j]) for i in range(3) for j in range(4)]
    pairs += [(mask[i, j], mask[i, j + 1]) for i in range(4) for j in range(3)]
    differ = sum(a != b for a, b in pairs) / len(pairs)
    assert differ == 6 / 24
    assert roughness(mask) == pytest.approx(differ / (2 * (2 / 16) * (14 / 16)))


@pytest.mark.parametrize("radius", [4, 10, 25])
def test_a_disc_is_smooth_at_any_size(radius: float) -> None:
    for scale in (1, 8):
        mask = disc((64 * scale, 64 * scale), (32 * scale, 30 * scale), radius * scale)
        assert roughness(mask) < 0.35
        assert appearance_of(mask).suspicion == ""


def test_noise_enlarged_with_its_image_is_still_noise() -> None:
    enlarged = noise(0.3, (64, 64)).repeat(8, axis=0).repeat(8, axis=1)
    assert appearance_of(enlarged).suspicion == "scattered"


def test_lines_a_pixel_wide_are_no_noise() -> None:
    mask = np.zeros((64, 64), bool)
    mask[::9] = True
    mask[:, 5::13] = True
    assert appearance_of(mask).suspicion == ""


def test_empty_full_and_single_pixels() -> None:
    assert appearance_of(np.zeros((8, 8), np.uint8)).suspicion == "empty"
    assert appearance_of(np.ones((8, 8), np.uint8)).suspicion == "full"
    single = np.zeros((64, 64), bool)
    single[3, 4] = single[40, 20] = True
    assert appearance_of(single).suspicion == ""  # two small findings are no noise
    assert appearance_of(np.zeros((0, 4), bool)).suspicion == "empty"


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_independent_members_have_no_alikeness_and_equal_ones_have_all(share: float) -> None:
    members = np.stack([noise(share, seed=seed) for seed in range(6)])
    assert alikeness(agreement(members), float(members.mean())) == pytest.approx(0, abs=0.05)
    assert alikeness(agreement(members[[0, 0, 0]]), float(members[0].mean())) == pytest.approx(1)


def test_compact_members_at_places_of_their_own_are_unlike() -> None:
    centres = itertools.product((10, 32, 54), (10, 32, 54))
    members = np.stack([disc((64, 64), centre, 6) for centre in centres])
    shared = {"agreement": agreement(members), "members": float(members.mean())}
    assert appearance_of(members[0], **shared).suspicion == "unlike"
    assert (
        appearance_of(members.mean(axis=0) > 0.5, **shared).suspicion == "unlike"
    )  # the fused mask is empty, and that is why
    moved = np.stack([disc((64, 64), (30 + shift, 30), 10) for shift in range(5)])
    assert appearance_of(moved[2], agreement=agreement(moved), members=float(moved.mean())).suspicion == ""


def test_members_that_are_all_empty_are_an_empty_mask() -> None:
    assert appearance_of(np.zeros((8, 8), bool), agreement=1.0, members=0.0).suspicion == "empty"


def test_a_warning_counts_what_it_saw() -> None:
    empty, good, full = (Appearance(share, 0.1) for share in (0.0, 0.2, 1.0))
    scattered = Appearance(0.3, 0.95)
    told = warning_of([empty, empty, scattered, scattered, scattered, full, good])
    assert told.startswith("Of 7 masks: 2 empty, 1 full, 3 scattered like noise.")
    assert "untrained" in told


def test_no_warning_where_masks_may_well_be_right() -> None:
    empty, good, scattered = Appearance(0.0, 0.0), Appearance(0.2, 0.1), Appearance(0.3, 0.95)
    assert warning_of([]) == ""
    assert warning_of([good]) == ""
    assert warning_of([empty] * 30 + [good]) == ""  # most slices of a volume hold nothing
    assert warning_of([good, good, good, scattered]) == ""
    assert warning_of([empty, empty]) != ""
    assert warning_of([empty] * 30 + [scattered]) != ""  # all that is there is noise


def test_segment_warns_of_an_untrained_model_and_names_the_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = fresh_run(tmp_path / "run"), make_folder(tmp_path / "data", count=3)
    assert call("segment", data, "--model", run, "--out", tmp_path / "out", "--device", "cpu") == 0
    shown = capsys.readouterr().err
    assert "Warning: Of 3 masks: 3 " in shown
    assert "The model looks untrained" in shown
    assert f"medsegdiff doctor {run}" in shown
