"""The sampler of a run on data whose answer is known exactly: does it solve what it should, in the steps it takes?"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.oracles import one_hot_logits, order_of, two_point_logits
from medsegdiff.diffusion.process import Process, encode
from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.diffusion.schedule import Level, NoiseSchedule, schedule_of
from medsegdiff.diffusion.spacing import COVERING, make_table
from medsegdiff.doctor.finding import Finding, Verdict
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.denoiser import ImageCondition
from medsegdiff.types import Condition

FINENESS = (20, 10, 5)
"""Parts of T that are taken as steps to measure the order: 50, 100 and 200 steps of 1000."""
TELLING = 500
"""T below which steps can't be made fine enough to tell the order for certain."""
PROBABILITIES = (0.1, 0.3, 0.5)
SIDE, MEMBERS = 64, 4
"""Independent pixels that are drawn for each probability: 64·64·4, so that a share is known to 0.004."""
CLOSE, ROUGHLY = 0.03, 0.1
"""Error of a share up to which it is good, and up to which it is not wrong."""


def examine_sampling(config: ResolvedConfig) -> list[Finding]:
    """Examine the sampler, spacing and number of steps that a run samples with."""
    if config.sampling.spacing in COVERING:
        return [_order(config), _shares(config)]
    spacing, usual = config.sampling.spacing, config.sampling.model_copy(update={"spacing": COVERING[-1]})
    found = f"{spacing} spacing decides regions, not the single pixels whose answer is known here."
    return [
        _order(config.model_copy(update={"sampling": usual})),
        Finding("sampler", "calibration", "skipped", found, "Compare with segment --spacing logsnr --steps 20."),
    ]


def _order(config: ResolvedConfig) -> Finding:
    sampling, schedule = config.sampling, schedule_of(config.diffusion)
    expected = SAMPLERS[sampling.sampler].facts.order
    counts = sorted({schedule.num_train_timesteps // part for part in FINENESS})
    what = f"{sampling.sampler}, {sampling.spacing} spacing, {config.diffusion.schedule} schedule"
    if counts[0] < 3:
        return Finding("sampler", "order", "skipped", f"{what}: T = {schedule.num_train_timesteps} is too short.")
    tables = [
        make_table(sampling.sampler, schedule, num_steps=count, spacing=sampling.spacing, eta=sampling.eta)
        for count in counts
    ]
    measured = order_of(schedule, tables)
    steps = ", ".join(str(count) for count in counts)
    found = f"{what}: order {measured:.2f} on a Gaussian with {steps} steps, expected {expected}."
    numbers = {"measured": measured, "expected": expected, "steps": counts}
    verdict = _verdict(measured - expected, certain=schedule.num_train_timesteps >= TELLING)
    return Finding("sampler", "order", verdict, found, "" if verdict == "good" else _advice(config), numbers)


def _verdict(excess: float, *, certain: bool) -> Verdict:
    if excess >= -0.4:
        return "good"
    return "wrong" if not excess >= -0.6 and certain else "to look at"  # not a number is wrong


def _advice(config: ResolvedConfig) -> str:
    known = ", ".join(entry.name for entry in SAMPLERS if entry.name != config.sampling.sampler)
    return f"Sample with another: segment --sampler ({known})."


def _shares(config: ResolvedConfig) -> Finding:
    """Let the whole way of an ensemble draw pixels whose probability is known, with the steps that the run takes."""
    shares = {p: foreground_share(config, p) for p in PROBABILITIES}
    worst = max((abs(share - p) for p, share in shares.items()), key=lambda error: (math.isnan(error), error))
    given = ", ".join(f"{share:.3f} for {p}" for p, share in shares.items())
    found = f"{config.sampling.steps} steps draw pixels of a known probability: {given}."
    numbers = {"steps": config.sampling.steps, "shares": {str(p): share for p, share in shares.items()}}
    if worst <= CLOSE:
        return Finding("sampler", "calibration", "good", found, numbers=numbers)
    advice = "Take more steps (segment --steps), or logsnr spacing."
    verdict: Verdict = "to look at" if worst <= ROUGHLY else "wrong"
    return Finding("sampler", "calibration", verdict, found, advice, numbers)


def foreground_share(config: ResolvedConfig, probability: float) -> float:
    """Draw an ensemble with a denoiser that knows the answer, and count the foreground.

    It goes all the way that masks of the run go: schedule, target, clipping, sampler, noise of the members.
    """
    sampling = config.sampling.model_copy(update={"members": MEMBERS, "batch_size": MEMBERS})
    signed = config.diffusion.model_copy(update={"coding": "signed"})  # masks of 0 and 1 take the same steps, shifted
    config = config.model_copy(update={"diffusion": signed})
    sampler = EnsembleSampler(ExactPixels(config, probability), config, sampling, precision="fp32")
    drawn = sampler.draw(torch.zeros(1, 1, SIDE, SIDE), ["pixels"], seed=0).probability
    if config.spec.labels.exclusive:
        return float((drawn.argmax(dim=2) == 1).double().mean())
    return float((drawn >= 0.5).double().mean()) if drawn.isfinite().all() else float("nan")


class ExactPixels(DiffusionModel):
    """Predicts what an ideal network would where pixels are independent and their probability is known."""

    def __init__(self, config: ResolvedConfig, probability: float) -> None:
        super().__init__(stride=1)
        self.asked, self.process, self.channels = config.diffusion.target, Process.of(config), config.mask_channels
        self.probability = probability

    def condition(self, image: Float[Tensor, "b c h w"]) -> ImageCondition:
        """Look at nothing."""
        return ImageCondition(None, image)

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Float[Tensor, " #b"], condition: Condition
    ) -> Float[Tensor, "b k h w"]:
        """Predict ε, x_0 or v exactly."""
        level = level_at(self.process.schedule, float(time[0]))
        if self.process.labels.exclusive:
            rest = (1 - self.probability) / (self.channels - 1)
            logits = one_hot_logits(x_t, level, [self.probability if k == 1 else rest for k in range(self.channels)])
        else:
            logits = two_point_logits(x_t, level, self.probability)
        if self.asked == "x0":
            return logits
        x_0 = encode(self.process.labels.activate(logits))
        noise = (x_t - level.alpha * x_0) / level.sigma
        return noise if self.asked == "eps" else level.alpha * noise - level.sigma * x_0


def level_at(schedule: NoiseSchedule, t: float) -> Level:
    """Find the level of a time that was rounded to single precision on its way through a network."""
    return Level.of(schedule.lam_at(min(max(t, 0.0), schedule.num_train_timesteps - 1.0)))
