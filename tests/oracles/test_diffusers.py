"""Our tables against the schedulers of `diffusers`, step by step, with a network that is not linear."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from medsegdiff.diffusion.samplers import sample  # noqa: E402
from medsegdiff.diffusion.schedule import Level, make_schedule  # noqa: E402
from medsegdiff.diffusion.spacing import make_table  # noqa: E402

SCHEDULE = make_schedule("linear")
COMMON = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def predict(x_t: torch.Tensor, t: float) -> torch.Tensor:
    """Any smooth function of both will do; this one predicts x_0."""
    return torch.tanh(1.7 * x_t + 0.3 * torch.sin(torch.tensor(t / 100.0)))


def ours(sampler: str, steps: int, x_T: torch.Tensor, *, eta: float = 0.0, noises: list[torch.Tensor] | None = None):
    remaining = iter(noises or [])
    table = make_table(sampler, SCHEDULE, num_steps=steps, spacing="trailing", eta=eta)
    return sample(predict, x_T, table, noise=lambda: next(remaining))


def theirs(scheduler: object, steps: int, x_T: torch.Tensor, **options: object) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = x_T
    for t in scheduler.timesteps:
        x = scheduler.step(predict(x, float(t)), int(t), x, **options).prev_sample
    return x


@pytest.fixture
def x_T() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_ddim(x_T: torch.Tensor, steps: int) -> None:
    scheduler = diffusers.DDIMScheduler(
        **COMMON, prediction_type="sample", clip_sample=False, timestep_spacing="trailing"
    )
    assert torch.allclose(ours("ddim", steps, x_T), theirs(scheduler, steps, x_T), atol=1e-5)


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_dpm_solver_2m_and_1(x_T: torch.Tensor, steps: int) -> None:
    for sampler, order in (("dpmpp-2m", 2), ("dpmpp-1", 1)):
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **COMMON,
            prediction_type="sample",
            algorithm_type="dpmsolver++",
            solver_order=order,
            solver_type="midpoint",
            timestep_spacing="trailing",
            final_sigmas_type="zero",
            lower_order_final=True,
        )
        assert torch.allclose(ours(sampler, steps, x_T), theirs(scheduler, steps, x_T), atol=1e-5)


def test_sde_dpm_solver_2m_with_the_same_noise(x_T: torch.Tensor) -> None:
    noises = [torch.randn_like(x_T) for _ in range(20)]
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **COMMON,
        prediction_type="sample",
        algorithm_type="sde-dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(20)
    x = x_T
    for t, noise in zip(scheduler.timesteps, noises, strict=True):
        x = scheduler.step(predict(x, float(t)), int(t), x, variance_noise=noise).prev_sample
    assert torch.allclose(ours("dpmpp-sde-2m", 20, x_T, noises=noises), x, atol=1e-5)


@pytest.mark.parametrize("steps", [1000, 50])
def test_ddpm_full_and_respaced_with_the_same_noise(x_T: torch.Tensor, steps: int, monkeypatch: object) -> None:
    noises = [torch.randn_like(x_T) for _ in range(steps)]
    scheduler = diffusers.DDPMScheduler(
        **COMMON,
        prediction_type="sample",
        clip_sample=False,
        variance_type="fixed_small",
        timestep_spacing="trailing",
    )
    scheduler.alphas = 1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # theirs are of single precision,
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)  # which a thousand steps add up to 1e-4
    remaining = iter(noises)
    module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    monkeypatch.setattr(module, lambda *args, **options: next(remaining))
    assert torch.allclose(ours("ddpm", steps, x_T, noises=noises), theirs(scheduler, steps, x_T), atol=1e-5)


@pytest.mark.parametrize("steps", [25, 250])
def test_ddim_with_eta_1_is_ddpm(x_T: torch.Tensor, steps: int) -> None:
    noises = [torch.randn_like(x_T) for _ in range(steps)]
    a, b = ours("ddim", steps, x_T, eta=1.0, noises=noises), ours("ddpm", steps, x_T, noises=noises)
    assert torch.allclose(a, b, atol=1e-9)


def test_dpm_solver_1_is_ddim(x_T: torch.Tensor) -> None:
    assert torch.allclose(ours("dpmpp-1", 20, x_T), ours("ddim", 20, x_T), atol=1e-9)


def test_levels_are_the_schedulers() -> None:
    scheduler = diffusers.DDIMScheduler(**COMMON)
    for t in (0.0, 1.0, 500.0, 999.0):
        level = Level.of(SCHEDULE.lam_at(t))
        assert level.alpha**2 == pytest.approx(scheduler.alphas_cumprod[int(t)].item(), rel=1e-5)
