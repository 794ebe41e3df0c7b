"""Distillation of the sampler: a network learns to make in one step what a few steps of its teacher make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.losses import mask_loss
from medsegdiff.diffusion.process import Process
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import place
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.checkpoint import load_config, load_model
from medsegdiff.training.objective import Losses, training_losses, with_anchor
from medsegdiff.training.one_step import asked_once, check_one_step, pure_noise
from medsegdiff.training.scoring import Scoring
from medsegdiff.types import Batch

Objective = Callable[[nn.Module, Batch], Losses]
"""(network, batch) → what training makes small."""


def objective_of(config: ResolvedConfig, device: torch.device) -> Objective:
    """Find out what a network is trained for."""
    if config.train.score_members:
        return Scoring(config)
    if config.train.teacher is None:
        process, train = Process.of(config), config.train
        return partial(training_losses, process=process, loss=config.loss, seed=train.seed, draws=train.draws)
    return Distillation(config, device)


def check_teacher(config: ResolvedConfig) -> None:
    """Find out, before any image is read, whether a run can have the teacher that it names."""
    if config.train.teacher is None:
        return
    its = load_config(Path(config.train.teacher))
    check_one_step(config, what="Distillation", flag="--distill")
    for part in ("diffusion", "model"):
        if getattr(config, part) != getattr(its, part):
            raise ConfigError(
                f"Section '{part}' is not that of the teacher, {config.train.teacher}: what it says would mean "
                f"something else here. Leave {part}.… as it is."
            )


class Distillation:
    """The objective of one round of progressive distillation that ends in a single step.

    From the same noise and image the teacher walks ``train.teacher_steps`` deterministic steps (DDIM, trailing); the
    network is shown the noise and learns what the teacher comes to, with the loss that masks have (`mask_loss`) and
    the anchor's. A network that predicts the mask says in one step from pure noise the mean of all masks, unless it
    has learned to take from the noise which of them is meant.

    Source: Salimans & Ho (2022), Progressive Distillation, algorithm 2, for N = 1.
    """

    def __init__(self, config: ResolvedConfig, device: torch.device) -> None:
        check_teacher(config)
        teacher, _ = load_model(Path(config.train.teacher or ""))
        place(teacher, device)
        self.config, self.device = config, device
        self.walker = EnsembleSampler(teacher, config, teacher_steps(config), precision=config.train.precision)
        self.t = self.walker.table[0].t

    def target(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """Let the teacher walk."""
        drawn = self.walker.draw(batch.image, self._keys(batch), seed=self.config.train.seed)
        return drawn.probability[0].clone()  # of inference mode, which backward passes can't keep

    def noise(self, batch: Batch) -> Float[Tensor, "b k h w"]:
        """Draw the noise from which the teacher walks."""
        return pure_noise(batch, members=1, seed=self.config.train.seed)

    def __call__(self, model: nn.Module, batch: Batch) -> Losses:
        """Compare what the network says at once with what the teacher comes to."""
        labels, loss = self.walker.process.labels, self.config.loss
        t = torch.full((len(batch.image),), round(self.t), device=self.device)
        said, output = asked_once(model, batch.image, self.noise(batch), self.walker.process, t=self.t)
        l_n = mask_loss(
            output,
            self.target(batch),
            dice_weight=loss.x_0_dice,
            labels=labels,
            labelled=batch.labelled,
        )
        expected = loss.model_copy(update={"anchor_weighting": "expected"})  # t is the same for all
        return with_anchor(l_n, said, batch, t, expected, labels=labels)

    def _keys(self, batch: Batch) -> list[str]:
        return [f"position {position}" for position in batch.positions]


def teacher_steps(config: ResolvedConfig) -> SamplingConfig:
    """Say how the teacher walks: one deterministic member of each image."""
    wanted = {"sampler": "ddim", "eta": 0.0, "spacing": "trailing", "steps": config.train.teacher_steps}
    alone = {"members": 1, "candidates": None, "antithetic": False, "mode": "ensemble", "views": 1}
    return config.sampling.model_copy(update={**wanted, **alone, "batch_size": config.train.batch_size})
