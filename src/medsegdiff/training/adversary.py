"""Learning from images without masks: discriminators, and a network that learns to deceive them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from medsegdiff.config.run import TrainConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.loader import PreparedCases
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import DiffusionModel, Said
from medsegdiff.seeding import derive_seed
from medsegdiff.training.objective import Losses, look, supervised
from medsegdiff.training.optimizer import optimizer_for, step_if
from medsegdiff.types import Batch

WEIGHT = 0.01
"""Of deceiving the discriminators, beside the loss of the masks."""
RECIPE = TrainConfig(optimizer="sgd", learning_rate=2.5e-5, momentum=0.99, nesterov=False, weight_decay=5e-4)
"""Of the discriminators."""


class Adversary:
    r"""Discriminators with their optimizer, and the objective of a network that learns to deceive them.

    The discriminators D learn to tell by what the network says of it whether an image came with a mask (the source,
    1) or without one (the target, 0). The network learns masks on the source, and on the target to be taken for the
    source: :math:`L = L_{mask} + 0.01 \sum_D \mathrm{BCE}(D(\text{target}), 1)`. Each step first moves the network,
    then the discriminators, by what the network said before.

    Source: Wang et al. (2019), doi:10.1007/978-3-030-32239-7_12; numbers from the authors' code.
    """

    def __init__(self, config: ResolvedConfig, network: DiffusionModel, device: torch.device) -> None:
        self.config = config
        torch.manual_seed(derive_seed(config.train.seed, "discriminators"))
        made = network.discriminators()
        assert made is not None, "check_adversary comes before"
        self.discriminators = made.to(device)
        self.optimizer = optimizer_for(self.discriminators, RECIPE)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Compute all losses, for one backward pass: each reaches the weights that it is of, and no others."""
        assert batch.unlabelled is not None
        loss = self.config.loss
        source, target = look(model, batch.image), look(model, batch.unlabelled)
        of_masks = supervised(source, batch, loss, labels=self.config.spec.labels).mean() / loss.alpha
        deceiving = judged(self._judge(target, frozen=True), came_with_mask=True)
        telling = judged(self._judge(_detached(source)), came_with_mask=True)
        telling = telling + judged(self._judge(_detached(target)), came_with_mask=False)
        more = {"loss_deceiving": deceiving.detach(), "loss_discriminators": telling.detach()}
        return Losses(of_masks + WEIGHT * deceiving + telling, noise=None, anchor=of_masks.detach(), more=more)

    def step(self, finite: Tensor) -> None:
        """Step the discriminators' optimizer where the network's gradient and theirs are finite."""
        gradients = [p.grad for p in self.discriminators.parameters() if p.grad is not None]
        step_if(finite & torch.nn.utils.get_total_norm(gradients).isfinite(), self.optimizer)
        self.optimizer.zero_grad()

    def _judge(self, said: Said, *, frozen: bool = False) -> tuple[Tensor, ...]:
        """Ask the discriminators; no gradient reaches their weights where they are ``frozen``."""
        weights = {name: p.detach() if frozen else p for name, p in self.discriminators.named_parameters()}
        given = (said, self.config.spec.labels)
        return cast(tuple[Tensor, ...], functional_call(self.discriminators, weights, given))


def adversary_of(config: ResolvedConfig, network: DiffusionModel, device: torch.device) -> Adversary | None:
    """Make the adversary of a training that is given images without masks."""
    return None if config.train.unlabelled is None else Adversary(config, network, device)


def judged(verdicts: tuple[Tensor, ...], *, came_with_mask: bool) -> Tensor:
    """Compute the cross-entropy of verdicts against what is, or what shall be believed: the sum over discriminators."""
    losses = [F.binary_cross_entropy_with_logits(of, torch.full_like(of, float(came_with_mask))) for of in verdicts]
    return torch.stack(losses).sum()


def _detached(said: Said) -> Said:
    """Cut what was said off from the network that said it."""
    logits = None if said.logits is None else said.logits.detach()
    return Said(said.prediction, logits, extra=tuple(of.detach() for of in said.extra))


def check_adversary(config: ResolvedConfig, network: DiffusionModel, *, processes: int) -> None:
    """Find out, before any image is read, whether a network can learn from images without masks as asked."""
    train = config.train
    if train.unlabelled is None:
        return
    if network.discriminators() is None:
        raise ConfigError(
            f"train.unlabelled is {train.unlabelled}; the network '{config.model.name}' learns from images with masks "
            "alone. Set train.unlabelled=null, or train a network that has discriminators: beal."
        )
    hindrances = {
        f"there are {processes} processes": processes > 1,
        "train.sharding is set": train.sharding,
        f"train.precision is {train.precision}": train.precision == "fp16",
    }
    if found := [words for words, there in hindrances.items() if there]:
        raise ConfigError(
            "train.unlabelled trains discriminators too, which is done in one process, unsplit, in fp32 or bf16; "
            f"{', '.join(found)}. Train so, or set train.unlabelled=null."
        )


def adversary_in_words(network: DiffusionModel, unlabelled: PreparedCases | None) -> tuple[str, ...]:
    """Say what a network with discriminators learns from; nothing of others."""
    if network.discriminators() is None:
        return ()
    if unlabelled is None:
        return ("No train.unlabelled: masks and boundaries are learned, without discriminators and a target domain.",)
    count = len(unlabelled.source.info.items("train"))
    return (f"{count} images without masks (train.unlabelled), on which discriminators are to be deceived.",)
