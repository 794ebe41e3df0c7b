"""Drawing an ensemble of masks for a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config import Config, SamplingConfig
from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.diffusion.process import activate, decode, predicted_x_0
from medsegdiff.diffusion.samplers import sample
from medsegdiff.diffusion.schedule import Level, make_schedule
from medsegdiff.diffusion.spacing import make_table
from medsegdiff.hardware import Precision, autocast
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition


@dataclass(frozen=True)
class Ensemble:
    """Members of the ensembles of a batch of images, on the model grid."""

    probability: Float[Tensor, "m b k h w"]
    """Each member's x_0, read as probabilities; nearly 0 or 1."""
    anchor: Float[Tensor, "b k h w"]
    """The Condition Model's own probabilities."""


class EnsembleSampler:
    """Draws members with fixed settings: looks at each image once, tabulates the NBP-Filters once."""

    def __init__(
        self, model: DiffusionModel, config: Config, sampling: SamplingConfig, *, precision: Precision = "auto"
    ) -> None:
        self.model, self.sampling, self.precision = model, sampling, precision
        self.diffusion, self.exclusive = config.diffusion, config.data.task == "exclusive"
        self.schedule = make_schedule(
            config.diffusion.schedule,
            num_train_timesteps=config.diffusion.num_train_timesteps,
            signal_scale=config.diffusion.signal_scale,
            zero_terminal_snr=config.diffusion.zero_terminal_snr,
        )
        self.table = make_table(
            sampling.sampler, self.schedule, num_steps=sampling.num_steps, spacing=sampling.spacing, eta=sampling.eta
        )
        self._filters: dict[tuple[int, int], dict[float, list[Tensor]]] = {}

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
        filters = self._tabulated(size, device)

        def denoise(x_t: Tensor, t: float) -> Tensor:
            level = Level.of(self.schedule.lam_at(t))
            time = torch.tensor([t], device=device)
            prediction = self.model.denoise(x_t, time, own, filters=filters[t]).float()
            return predicted_x_0(
                prediction,
                x_t,
                level.alpha,
                level.sigma,
                target=self.diffusion.target,
                exclusive=self.exclusive,
                clip=self.diffusion.clip,
            )

        return sample(denoise, noise(), self.table, noise=noise)

    def _tabulated(self, size: tuple[int, int], device: torch.device) -> dict[float, list[Tensor]]:
        if size not in self._filters:
            times = {row.t: torch.tensor([row.t], device=device) for row in self.table}
            self._filters[size] = {t: self.model.filters(time, size) for t, time in times.items()}
        return self._filters[size]
