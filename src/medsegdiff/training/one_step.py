"""Networks that sample in one step, from pure noise: what they need, what they are shown, how their answer is read."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.schedule import Level
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import MODELS, Said
from medsegdiff.types import Batch


def check_one_step(config: ResolvedConfig, *, what: str, flag: str) -> None:
    """Refuse networks that can't learn to sample in one step, and settings that sample in more."""
    facts = MODELS[config.model.name].facts
    if config.diffusion.target != "x0" or facts.kind != "diffusion" or getattr(config.model, "learn_sigma", False):
        raise ConfigError(
            f"{what} needs a diffusion model that predicts the mask (diffusion.target x0) and no variance; this "
            f"one is {config.model.name} with target {config.diffusion.target}. Train one that does."
        )
    if (config.sampling.steps, config.train.val_steps) != (1, 1):
        raise ConfigError(
            f"{what} makes a network that samples in one step: sampling.steps is {config.sampling.steps}, "
            f"train.val_steps {config.train.val_steps}. Set both to 1, as 'train --start RUN {flag}' does."
        )


def pure_noise(batch: Batch, *, members: int, seed: int) -> Float[Tensor, "n k h w"]:
    """Draw x_T of so many members of each image, one image after the other; it follows from the image's position."""
    named = [(f"position {position}", number) for position in batch.positions for number in range(members)]
    shape = (batch.mask.shape[1], batch.mask.shape[2], batch.mask.shape[3])
    return MemberNoise(seed, named, shape, device=batch.mask.device)()


def asked_once(
    model: nn.Module, image: Float[Tensor, "b c h w"], noise: Float[Tensor, "n k h w"], process: Process, *, t: float
) -> tuple[Said, Float[Tensor, "n k h w"]]:
    """Ask a network at once for the masks that lie behind pure noise of time t; they come as logits."""
    times = torch.full((len(noise),), round(t), device=noise.device)
    said = Said(*model(image, noise, times.float()))
    anchor = None if said.logits is None else said.logits.repeat_interleave(len(noise) // len(image), dim=0)
    level = Level.of(process.schedule.lam_at(t))
    return said, process.completed(said.prediction.float(), anchor, noise, level)
