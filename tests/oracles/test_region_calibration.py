"""A few steps must still give each region its probability, whatever its size: the exact denoiser tells.

The mask is one region of n pixels, all foreground with probability p, else all background. Then the sum of x_t over
the region is all that matters, and the best prediction of x_0 has a closed form: tanh(α Σx_t / σ² + ½ logit p).
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, NoiseSchedule, make_schedule
from medsegdiff.diffusion.spacing import REGION_RANGE, SPACINGS, make_table, tells_nothing

SCHEDULE = make_schedule("cosine", signal_scale=0.1)
SIZES = (64, 256, 1024, 4096, 16384)


def share_of_foreground(schedule: NoiseSchedule, n: int, p: float, *, steps: int, spacing: str) -> float:
    """Sample the region many times. y = Σx_t / √n has unit noise and the signal α √n."""
    table = make_table("dpmpp-2m", schedule, num_steps=steps, spacing=spacing)

    def denoise(y: torch.Tensor, t: float) -> torch.Tensor:
        now = Level.of(schedule.lam_at(t))
        evidence = now.alpha * math.sqrt(n) * y / now.sigma**2
        return math.sqrt(n) * torch.tanh(evidence + 0.5 * math.log(p / (1 - p)))

    quantiles = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    y = torch.special.ndtri(quantiles).reshape(-1, 1, 1, 1).float()
    return (sample(denoise, y, table) > 0).float().mean().item()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_five_steps_give_a_region_of_any_size_about_its_probability(n: int, p: float) -> None:
    assert share_of_foreground(SCHEDULE, n, p, steps=5, spacing="regions") == pytest.approx(p, abs=0.04)
    assert share_of_foreground(SCHEDULE, n, p, steps=8, spacing="regions") == pytest.approx(p, abs=0.025)


@pytest.mark.parametrize(("steps", "least"), [(2, 0.02), (3, 0.18), (4, 0.21)])
def test_fewer_steps_give_every_region_a_part_of_its_probability(steps: int, least: float) -> None:
    """Too little, which is said where they are asked for; but no size is left out."""
    shares = [share_of_foreground(SCHEDULE, n, 0.3, steps=steps, spacing="regions") for n in SIZES]
    assert least < min(shares) < max(shares) < 0.3


def test_five_steps_spread_over_all_of_the_schedule_do_not() -> None:
    """What the spacing is for: elsewhere the share depends on the size of the region, and is far too small."""
    for spacing in ("logsnr", "trailing", "linspace"):
        shares = [share_of_foreground(SCHEDULE, n, 0.3, steps=5, spacing=spacing) for n in SIZES]
        assert min(shares) < 0.2


@pytest.mark.parametrize("pixels", SIZES)
@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_where_noise_tells_nothing_the_exact_prediction_is_that_of_the_image_alone(pixels: int, p: float) -> None:
    """Even of a region that is as large as the image; of noise that is a little weaker it is not."""
    y = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)

    def told(lam: float) -> torch.Tensor:
        now = Level.of(lam)
        return torch.tanh(now.alpha * math.sqrt(pixels) * y / now.sigma**2 + 0.5 * math.log(p / (1 - p)))

    last = max(lam for lam in torch.arange(-20, 0, 0.01).tolist() if tells_nothing(lam, pixels))
    assert told(last).std() / 2 < 0.01
    assert told(last + 4).std() / 2 > 0.01


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("zero", [False, True])
def test_times_fall_and_end_where_regions_are_settled(schedule: str, scale: float, zero: bool) -> None:
    made = make_schedule(schedule, signal_scale=scale, zero_terminal_snr=zero)
    for steps in (1, 2, 3, 4, 5, 8):
        times = SPACINGS["regions"](made, steps)
        assert len(times) == steps
        assert times[0] == 999
        assert all(a > b for a, b in pairwise(times))
        assert all(made.lam_at(t) <= REGION_RANGE[1] + 1e-3 for t in times)
    assert made.lam_at(times[-1]) == pytest.approx(min(REGION_RANGE[1], float(made.lam[0])), abs=1e-3)
    levels = [made.lam_at(t) for t in times[1:]]
    steps_in_lam = [b - a for a, b in pairwise(levels)]
    assert max(steps_in_lam) == pytest.approx(min(steps_in_lam), rel=0.01)
