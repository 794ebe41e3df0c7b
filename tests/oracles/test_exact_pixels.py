"""Pixels whose probability is known, drawn all the way that masks go: schedule, target, sampler, noise of members."""

from __future__ import annotations

import itertools

import pytest

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.doctor.settings import examine_sampler
from tests.makers import small_config
from tests.oracles.exact import foreground_share

PROBABILITIES = (0.1, 0.3, 0.5)


def pixels(*overrides: str) -> ResolvedConfig:
    return small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]", "sampling.steps=20", *overrides)


def error(config: ResolvedConfig) -> float:
    """The worst difference of the share of foreground to its probability."""
    return max(abs(foreground_share(config, p) - p) for p in PROBABILITIES)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"])
def test_every_sampler_is_right_with_steps_enough(sampler: str) -> None:
    assert error(pixels(f"sampling.sampler={sampler}", "sampling.steps=60")) <= 0.03


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"])
def test_a_residual_of_nothing_is_the_posterior_of_pixels_by_themselves(sampler: str) -> None:
    about = ("diffusion.residual=true", f"sampling.sampler={sampler}", "sampling.steps=60")
    assert error(pixels(*about)) <= 0.03
    classes = pixels(*about, "data.task=exclusive", "data.classes=[background, a, b]")
    assert foreground_share(classes, 0.2) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_every_target_is_read_as_it_was_meant(target: str) -> None:
    assert error(pixels(f"diffusion.target={target}")) <= 0.03


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_exclusive_classes_and_regions_are_drawn_as_often_as_they_should(p: float) -> None:
    classes = pixels("data.task=exclusive", "data.classes=[background, a, b]", "sampling.steps=30")
    regions = pixels("data.task=regions", "data.classes=[a, b]", "sampling.steps=30")
    assert foreground_share(classes, p) == pytest.approx(p, abs=0.03)
    assert foreground_share(regions, p) == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize(
    ("schedule", "scale", "spacing"), list(itertools.product(["cosine", "linear"], [0.1, 1.0], ["logsnr", "trailing"]))
)
def test_the_doctor_judges_steps_as_what_they_draw_deserves(schedule: str, scale: float, spacing: str) -> None:
    """It only counts them; here they draw. What it calls good errs little, what it calls wrong draws nothing rare."""
    settings = (f"diffusion.schedule={schedule}", f"diffusion.signal_scale={scale}", f"sampling.spacing={spacing}")
    for steps in (1, 2, 3, 4, 6, 10, 20, 40):
        config = pixels(*settings, f"sampling.steps={steps}")
        verdict, found = examine_sampler(config)[0].verdict, error(config)
        assert verdict != "good" or found < 0.06, (steps, found)
        assert verdict != "wrong" or found > 0.2, (steps, found)
    assert verdict == "good" or spacing == "trailing"
