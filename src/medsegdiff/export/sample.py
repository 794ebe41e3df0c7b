"""A pair of tensors by which an exported run tests itself wherever it is: a picture made of waves, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.target import Levels
from medsegdiff.export.graphs import Mean
from medsegdiff.inference.runs import Trained
from medsegdiff.io.atomic import atomic_path
from medsegdiff.runtime.facts import Facts
from medsegdiff.runtime.trial import EVERY, FILE, picture, trial_noise


@dataclass(frozen=True)
class Sample:
    """What graphs are tried with."""

    image: Float[Tensor, "1 c h w"]
    x_t: Float[Tensor, "2 k h w"]

    @classmethod
    def of(cls, facts: Facts) -> Sample:
        """Make it for the grid and the channels of a run."""
        grid = facts.image.grid
        image, noise = picture(facts.image.network_channels, grid), trial_noise(len(facts.labels.classes), grid)
        return cls(torch.from_numpy(image), torch.from_numpy(noise))


def mean_of(run: Trained, facts: Facts, sample: Sample) -> Mean:
    """Make the module that gives the mean of all masks at once; its noise is that of the sample."""
    row = facts.once[0]
    return Mean(
        run.model,
        Process.of(run.config),
        run.calibration.mixture,
        at=(row.t, row.alpha, row.sigma),
        noise=sample.x_t[:1].clone(),
    )


@torch.no_grad()
def write_trial(run: Trained, facts: Facts, sample: Sample, folder: Path) -> None:
    """Write what PyTorch makes of the sample: probability of the anchor, x_0, the mean at once; every few pixels."""
    process, row = Process.of(run.config), facts.table[len(facts.table) // 2]
    condition = run.model.condition(sample.image)
    at = Levels(*(torch.full((1, 1, 1, 1), value) for value in (row.alpha, row.sigma)))
    time = run.model.at(torch.tensor([row.t]), facts.image.grid)
    found: dict[str, Any] = {}
    if condition.logits is not None:
        found["anchor"] = process.labels.activate(condition.logits.float())
    said = run.model.denoise(sample.x_t, time, condition.expand(0, len(sample.x_t))).float()
    completed = process.completed(said, condition.logits, sample.x_t, at)
    found["x_0"] = process.denoised(completed, sample.x_t, at).x_0
    if facts.once:
        found["probability"] = mean_of(run, facts, sample)(sample.image)
    with atomic_path(folder / FILE) as part, part.open("wb") as file:
        np.savez_compressed(file, **{name: of[..., ::EVERY, ::EVERY].numpy() for name, of in found.items()})
