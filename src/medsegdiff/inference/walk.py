"""Walking members of images from noise to masks: with one network, seen through one mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import evenly
from medsegdiff.diffusion.noise import FirstNoise, MemberNoise
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Denoised, Table, sample
from medsegdiff.diffusion.schedule import Level
from medsegdiff.diffusion.spacing import table_of, tells_nothing
from medsegdiff.hardware import autocast, exact_dtype
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition

Mirror = tuple[int, ...]
"""Axes of an image that are turned around: -1 left and right, -2 top and bottom."""
MIRRORS: tuple[Mirror, ...] = ((), (-1,), (-2,), (-2, -1))
"""Those that ``sampling.views`` takes, in this order, where images may lie so."""
KEPT = 8
"""Times of the sampler whose expectations are kept, at most."""


def mirrors_of(sampling: SamplingConfig, config: ResolvedConfig) -> list[Mirror]:
    """List the mirrors through which images are seen: as many as asked, but none that training has not seen."""
    left_right, top_bottom = config.spec.orientation.mirrors
    known = {-1: left_right and config.data.augment, -2: top_bottom and config.data.augment}
    return [mirror for mirror in MIRRORS if all(known[axis] for axis in mirror)][: sampling.views]


def telling_times(table: Table, process: Process) -> list[float]:
    """List the times of a sampler at which a network's answer tells of the mask; the last one in any case.

    Of an answer ε the mask follows as (x_t − σ ε) / α: from nearly pure noise any error is multiplied a hundredfold, so
    times count from where signal and noise are alike.
    """
    times = [row.t for row in table]
    if process.target.told_from_noise:
        return times
    return [t for t in times if process.schedule.lam_at(t) >= 0] or times[-1:]


class Expectations:
    """Sums up, over the members of each image, what networks expect of the mask at some times."""

    def __init__(self, times: Sequence[float], like: Float[Tensor, "b k h w"]) -> None:
        self.times = tuple(evenly(times, KEPT))
        exact = exact_dtype(like.device)  # batches and rounds change nothing
        self.sums = {t: torch.zeros_like(like, dtype=exact) for t in self.times}

    def add(self, t: float, probability: Float[Tensor, "n k h w"], images: Int[Tensor, " n"]) -> None:
        """Take in what is expected of some members, each of its image."""
        if t in self.sums:
            self.sums[t].index_add_(0, images, probability.to(self.sums[t].dtype))

    def mean(self, members: int) -> Float[Tensor, "s b k h w"]:
        """Average over the members of each image."""
        return torch.stack([self.sums[t] / members for t in self.times])


@dataclass(frozen=True)
class Moment:
    """What a step of the sampler needs to know of its time."""

    level: Level
    time: Any
    """What the network made of it."""
    shared: bool
    """Whether all members of an image share what the network says: their noise tells nothing yet."""


class Moments:
    """What depends on the time alone, computed once for each network and size of image."""

    def __init__(self, model: DiffusionModel, process: Process, sampling: SamplingConfig) -> None:
        self.model, self.process = model, process
        self.table = table_of(sampling, process.schedule)
        # of a single step x_T makes the mask; other spacings have many steps, and go on as their papers say
        self.begins_together = sampling.spacing == "regions" and len(self.table) > 1
        self._by_time: dict[tuple[int, int], dict[float, Moment]] = {}  # of the last image size

    def of(self, size: tuple[int, int], device: torch.device) -> dict[float, Moment]:
        """Give the moments of a table by time."""
        if size not in self._by_time:
            self._by_time = {size: {row.t: self._moment(row.t, size, device) for row in self.table}}
        return self._by_time[size]

    def _moment(self, t: float, size: tuple[int, int], device: torch.device) -> Moment:
        level = Level.of(self.process.schedule.lam_at(t))
        first = self.begins_together and bool(t == self.table[0].t)
        shared = first and tells_nothing(level.lam, math.prod(size))
        return Moment(level, self.model.at(_on([t], device), size), shared)


@dataclass(frozen=True)
class Walker:
    """One network that sees images through one mirror; what it gives is turned back."""

    model: DiffusionModel
    moments: Moments
    sampling: SamplingConfig
    mirror: Mirror
    precision: Precision
    first: FirstNoise
    """Where the noise that members begin with comes from."""

    @torch.inference_mode()
    def look(self, image: Float[Tensor, "b c h w"]) -> tuple[Condition, Float[Tensor, "b k h w"] | None]:
        """Look at images: what denoising needs to know of them, and what the anchor says, if there is one."""
        with autocast(self.precision, image.device):
            condition = self.model.condition(image.flip(self.mirror) if self.mirror else image)
        if condition.logits is None:
            return condition, None
        anchor = self.moments.process.labels.activate(condition.logits.float())
        return condition, anchor.flip(self.mirror) if self.mirror else anchor

    @torch.inference_mode()
    def draw(
        self,
        condition: Condition,
        members: Sequence[tuple[int, int]],
        keys: Sequence[str],
        expected: Expectations,
        *,
        seed: int,
        shape: tuple[int, int, int],
    ) -> Float[Tensor, "n k h w"]:
        """Draw some members, (number, index of the image) each, together; ``shape`` is that of a mask."""
        device, process = condition.device, self.moments.process
        of_image = [index for _, index in members]
        images, own = _on(of_image, device), _of(condition, of_image)
        named = [(keys[index], number) for number, index in members]
        noise = MemberNoise(seed, named, shape, device=device, antithetic=self.sampling.antithetic, first=self.first)
        moments = self.moments.of((shape[1], shape[2]), device)

        def denoise(x_t: Tensor, t: float) -> Denoised:
            now = moments[t]
            if now.shared:  # by all members of an image, those in other chunks too: noise of the first one
                looked = list(dict.fromkeys(of_image))
                first = MemberNoise(
                    seed, [(keys[index], 0) for index in looked], shape, device=device, first=self.first
                )
                places = _on([looked.index(index) for index in of_image], device)
                found = self._answer(first(), now, _of(condition, looked)).select(places)
            else:
                found = self._answer(x_t, now, own)
            expected.add(t, self._turned(process.probability(found.x_0)), images)
            return found

        with autocast(self.precision, device):
            drawn = sample(denoise, noise(), self.moments.table, noise=noise)
        return self._turned(process.probability(drawn))

    def _answer(self, x_t: Float[Tensor, "n k h w"], now: Moment, condition: Condition) -> Denoised:
        process = self.moments.process
        output = self.model.denoise(x_t, now.time, condition).float()
        return process.denoised(process.completed(output, condition.logits, x_t, now.level), x_t, now.level)

    def _turned(self, values: Tensor) -> Tensor:
        return values.flip(self.mirror) if self.mirror else values


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
    return condition.select(_on(images, condition.device))


def _on(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """Bring numbers to the device, without waiting for what it has yet to compute."""
    return torch.tensor(numbers).to(device, non_blocking=True)
