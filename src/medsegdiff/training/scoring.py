"""Training a one-step sampler on its own score: the law of its samples against that of the raters."""

from __future__ import annotations

import torch
from torch import nn

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.losses import energy_score
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import MODELS
from medsegdiff.training.objective import Losses, with_anchor
from medsegdiff.training.one_step import asked_once, check_one_step, pure_noise
from medsegdiff.types import Batch


def check_scored(config: ResolvedConfig) -> None:
    """Find out, before any image is read, whether a network can learn by its score, where it is asked to."""
    if not config.train.score_members:
        return
    check_one_step(config, what="Training on the score", flag="--score")
    if not MODELS[config.model.name].facts.condition_cached:
        raise ConfigError(
            f"train.score_members is {config.train.score_members}; the network '{config.model.name}' looks at the "
            "image anew for each sample, so several at a look are not possible. Train another network."
        )


class Scoring:
    r"""The objective of a one-step sampler: the energy score of its samples, beside the anchor's loss.

    The image is looked at once; from m noises the network makes m samples :math:`S_k = G_\theta(\epsilon_k, I)`, whose
    `energy_score` against the masks of all raters at hand is an unbiased estimate of what only the raters' own law
    makes smallest. Nothing pulls a single sample to a mask: that would pull all of them to the mean.

    Source: Gneiting & Raftery (2007), section 4.3; as a loss of generators Bouchacourt et al. (2016), DISCO Nets.
    """

    def __init__(self, config: ResolvedConfig) -> None:
        check_scored(config)
        self.process = Process.of(config)
        self.t = table_of(config.sampling, self.process.schedule)[0].t
        self.members, self.seed = config.train.score_members, config.train.seed
        self.loss = config.loss.model_copy(update={"anchor_weighting": "expected"})  # t is the same for all

    def __call__(self, model: nn.Module, batch: Batch) -> Losses:
        """Draw samples, and score them."""
        labels = self.process.labels
        noise = pure_noise(batch, members=self.members, seed=self.seed)
        said, logits = asked_once(model, batch.image, noise, self.process, t=self.t)
        samples = labels.activate(logits).unflatten(0, (-1, self.members))[:, :, labels.foreground]
        raters = torch.stack(batch.masks, dim=1)[:, :, labels.foreground]
        score = energy_score(samples, raters, labelled=batch.labelled)
        t = torch.full((len(noise),), round(self.t), device=noise.device)
        return with_anchor(score, said, batch, t, self.loss, labels=labels)
