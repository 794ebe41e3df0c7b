"""Drawing an ensemble of masks for a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config import Config, Precision, SamplingConfig
from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.diffusion.process import activate, decode, predicted_x_0
from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.hardware import autocast
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition


@dataclass(frozen=True)
class Ensemble:
    """Members of the ensembles of a batch of images, on the model grid."""

    probability: Float[Tensor, "m b k h w"]
    """Each member's x_0, read as probabilities; nearly 0 or 1."""
    anchor: Float[Tensor, "b k h w"]
    """The Condition Model's own probabilities."""


@dataclass(frozen=True)
class Moment:
    """What a step of the sampler needs to know of its time."""

    t: Float[Tensor, " 1"]
    level: Level
    filters: list[Tensor]
    """H of each NBP-Filter."""


class EnsembleSampler:
    """Draws members with fixed settings: looks at each image once, tabulates the NBP-Filters once."""

    def __init__(
        self, model: DiffusionModel, config: Config, sampling: SamplingConfig, *, precision: Precision = "auto"
    ) -> None:
        self.model, self.sampling, self.precision = model, sampling, precision
        self.diffusion, self.exclusive = config.diffusion, config.data.task == "exclusive"
        self.schedule = schedule_of(config.diffusion)
        self.table = table_of(sampling, self.schedule)
        self._by_time: dict[tuple[int, int], dict[float, Moment]] = {}  # of the last image size

    @torch.inference_mode()
    def draw(self, image: Float[Tensor, "b c h w"], keys: Sequence[str], *, seed: int) -> Ensemble:
        """Draw the ensembles of a batch of images.

        Args:
            image: Normalised images on the model grid.
            keys: What tells an image from others; with the seed and the member's number it makes the noise.
            seed: The user's seed.

        Returns:
            The members and the anchor.
        """
        num_members, (b, _, h, w) = self.sampling.num_samples, image.shape
        members = [(number, index) for number in range(num_members) for index in range(b)]
        size = self.sampling.batch_size
        with autocast(self.precision, image.device):
            condition = self.model.condition(image)
            chunks = [
                self._denoised(condition, members[start : start + size], keys, seed=seed, size=(h, w))
                for start in range(0, len(members), size)
            ]
        probability = decode(torch.cat(chunks)).unflatten(0, (num_members, b))
        return Ensemble(probability, activate(condition.logits.float(), exclusive=self.exclusive))

    def _denoised(
        self,
        condition: Condition,
        members: Sequence[tuple[int, int]],
        keys: Sequence[str],
        *,
        seed: int,
        size: tuple[int, int],
    ) -> Float[Tensor, "n k h w"]:
        """Walk some members from noise to x_0, together."""
        device = condition.logits.device
        own = condition.select(torch.tensor([index for _, index in members], device=device))
        shape = (condition.logits.shape[1], *size)
        noise = MemberNoise(seed, [(keys[index], number) for number, index in members], shape, device=device)
        moments = self._tabulated(size, device)

        def denoise(x_t: Tensor, t: float) -> Tensor:
            now = moments[t]
            return predicted_x_0(
                self.model.denoise(x_t, now.t, own, filters=now.filters).float(),
                x_t,
                now.level.alpha,
                now.level.sigma,
                target=self.diffusion.target,
                exclusive=self.exclusive,
                clip=self.diffusion.clip,
            )

        return sample(denoise, noise(), self.table, noise=noise)

    def _tabulated(self, size: tuple[int, int], device: torch.device) -> dict[float, Moment]:
        """Compute once what depends on the time alone."""
        if size not in self._by_time:
            self._by_time = {size: {row.t: self._moment(row.t, size, device) for row in self.table}}
        return self._by_time[size]

    def _moment(self, t: float, size: tuple[int, int], device: torch.device) -> Moment:
        time = torch.tensor([t], device=device)
        return Moment(time, Level.of(self.schedule.lam_at(t)), self.model.filters(time, size))
