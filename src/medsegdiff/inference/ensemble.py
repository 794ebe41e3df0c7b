"""Drawing an ensemble of masks for a batch of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.noise import MemberNoise
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Denoised, sample
from medsegdiff.diffusion.schedule import Level
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.hardware import autocast
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition


@dataclass(frozen=True)
class Ensemble:
    """Members of the ensembles of a batch of images, on the model grid."""

    probability: Float[Tensor, "m b k h w"]
    """Each member's x_0, read as probabilities; nearly 0 or 1."""
    anchor: Float[Tensor, "b k h w"] | None
    """The Condition Model's own probabilities; ``None`` from a network that has no anchor."""


@dataclass(frozen=True)
class Moment:
    """What a step of the sampler needs to know of its time."""

    level: Level
    time: Any
    """What the network made of it."""


class EnsembleSampler:
    """Draws members with fixed settings: looks at each image once, at each time once."""

    def __init__(
        self,
        model: DiffusionModel,
        config: ResolvedConfig,
        sampling: SamplingConfig,
        *,
        precision: Precision = "auto",
    ) -> None:
        """Take settings into use."""
        self.model, self.sampling, self.precision = model, sampling, precision
        self.process, self.mask_channels = Process.of(config), config.mask_channels
        self.table = table_of(sampling, self.process.schedule)
        self._by_time: dict[tuple[int, int], dict[float, Moment]] = {}  # of the last image size

    def draw(self, image: Float[Tensor, "b c h w"], keys: Sequence[str], *, seed: int) -> Ensemble:
        """Draw the ensembles of a batch of images."""
        return next(self.rounds(image, keys, seed=seed, size=self.sampling.members))

    def rounds(
        self, image: Float[Tensor, "b c h w"], keys: Sequence[str], *, seed: int, size: int
    ) -> Iterator[Ensemble]:
        """Draw the ensembles some members at a time, as they are asked for; the images are looked at once."""
        h, w = image.shape[-2:]
        condition, anchor = self._looked_at(image)
        for start in range(0, self.sampling.members, size):
            numbers = range(start, min(start + size, self.sampling.members))
            yield Ensemble(self._drawn(condition, numbers, keys, seed=seed, size=(h, w)), anchor)

    def anchor(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"] | None:
        """Look at images without drawing members."""
        return self._looked_at(image)[1]

    @torch.inference_mode()
    def _looked_at(self, image: Tensor) -> tuple[Condition, Tensor | None]:
        with autocast(self.precision, image.device):
            condition = self.model.condition(image)
        logits = condition.logits
        return condition, None if logits is None else self.process.labels.activate(logits.float())

    @torch.inference_mode()
    def _drawn(
        self, condition: Condition, numbers: Sequence[int], keys: Sequence[str], *, seed: int, size: tuple[int, int]
    ) -> Float[Tensor, "m b k h w"]:
        b = len(keys)
        with autocast(self.precision, condition.device):
            chunks = [
                self._denoised(condition, members, keys, seed=seed, size=size)
                for members in in_chunks(b, numbers, size=self.sampling.batch_size)
            ]
        probability = self.process.probability(torch.cat(chunks))
        return probability.unflatten(0, (b, len(numbers))).transpose(0, 1)

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
        device = condition.device
        own = _of(condition, [index for _, index in members])
        shape = (self.mask_channels, *size)
        named = [(keys[index], number) for number, index in members]
        noise = MemberNoise(seed, named, shape, device=device, antithetic=self.sampling.antithetic)
        moments = self._tabulated(size, device)

        def denoise(x_t: Tensor, t: float) -> Denoised:
            now = moments[t]
            output = self.model.denoise(x_t, now.time, own).float()
            return self.process.denoised(self.process.completed(output, own.logits, x_t, now.level), x_t, now.level)

        return sample(denoise, noise(), self.table, noise=noise)

    def _tabulated(self, size: tuple[int, int], device: torch.device) -> dict[float, Moment]:
        """Compute once what depends on the time alone."""
        if size not in self._by_time:
            self._by_time = {size: {row.t: self._moment(row.t, size, device) for row in self.table}}
        return self._by_time[size]

    def _moment(self, t: float, size: tuple[int, int], device: torch.device) -> Moment:
        return Moment(Level.of(self.process.schedule.lam_at(t)), self.model.at(torch.tensor([t], device=device), size))


def in_chunks(num_images: int, numbers: Sequence[int], *, size: int) -> list[list[tuple[int, int]]]:
    """Cut all members of a batch of images into chunks, image by image.

    Where the members of one image fill more than half of a chunk, no chunk holds members of two: they can then
    share the condition of their image without copies of it.
    """
    members = [[(number, image) for number in numbers] for image in range(num_images)]
    if 2 * len(numbers) <= size:
        members = [[pair for of_image in members for pair in of_image]]
    return [of[start : start + size] for of in members for start in range(0, len(of), size)]


def _of(condition: Condition, images: Sequence[int]) -> Condition:
    """Give each member the condition of its image: a view where all have the same."""
    if len(set(images)) == 1:
        return condition.expand(images[0], len(images))
    return condition.select(torch.tensor(images, device=condition.device))
