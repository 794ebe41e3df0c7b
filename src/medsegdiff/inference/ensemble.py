"""Drawing an ensemble of masks for a batch of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.noise import FirstNoise
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.hardware import pick_precision
from medsegdiff.inference.walk import Expectations, Moments, Walker, in_chunks, mirrors_of, telling_times
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition


@dataclass(frozen=True)
class Ensemble:
    """Members of the ensembles of a batch of images, on the model grid."""

    probability: Float[Tensor, "m b k h w"]
    """Each member's x_0, read as probabilities; nearly 0 or 1."""
    anchor: Float[Tensor, "b k h w"] | None
    """The Condition Model's own probabilities, the mean over all looks; ``None`` from a network that has no anchor."""
    expected: Float[Tensor, "s b k h w"]
    r"""Mean over members of what the network expects of the mask, at some of the sampler's times.

    Each is an estimate of :math:`E[x_0 | I]`, by the tower property; the earlier the time, the less it depends on which
    members were drawn (Rao–Blackwell). The last is nearly the share of votes.
    """
    times: tuple[float, ...]
    """Of ``expected``, falling; of a network that predicts noise, none at which x_t is mostly noise."""
    numbers: tuple[int, ...] = ()
    """Of the members, which their noise follows from; those that another run draws are left out."""
    pooled: Float[Tensor, "b f"] | None = None
    """What the network saw of the images, the mean over all looks; ``None`` where it does not show it."""

    @classmethod
    def joined(cls, rounds: Sequence[Ensemble]) -> Ensemble:
        """Put rounds of members of the same images together."""
        sizes = [len(drawn.probability) for drawn in rounds]
        mean = sum(size * drawn.expected for size, drawn in zip(sizes, rounds, strict=True)) / sum(sizes)
        first = rounds[0]
        numbers = tuple(number for drawn in rounds for number in drawn.numbers)
        members = torch.cat([drawn.probability for drawn in rounds])
        return cls(members, first.anchor, cast(Tensor, mean), first.times, numbers, first.pooled)


@dataclass(frozen=True)
class Turn:
    """Which members of an ensemble a run draws that shares it with others: every so manyth, from its number on."""

    number: int = 0
    of: int = 1
    """Runs."""

    def own(self, numbers: Iterable[int], sampling: SamplingConfig) -> list[int]:
        """Choose its members; two that have opposite noise are drawn by one run."""
        return [number for number in numbers if number // pair(sampling) % self.of == self.number]

    def place(self, number: int, sampling: SamplingConfig) -> int:
        """Count what the run draws before one of its members; two that have opposite noise are one."""
        return number // (pair(sampling) * self.of)


@dataclass(frozen=True)
class Seen:
    """What a batch of images looks like to a network."""

    conditions: list[Condition]
    """Of each look."""
    anchor: Float[Tensor, "b k h w"] | None
    """What the anchors say together."""
    pooled: Float[Tensor, "b f"] | None
    """The mean of what the looks show."""


class EnsembleSampler:
    """Draws members with fixed settings: looks at each image once through each network and mirror, at each time once.

    The run's n-th member has weights n mod K and mirror n mod V (``sampling.views``), where n counts pairs if these
    have opposite noise. Members that share weights and view have one estimate of :math:`E[x_0 | I]` in common; those
    that do not average its error out. Of several runs, each is a sampler of its own; they take turns, and each draws
    member m with the noise that it has alone, so that no two have the same.
    """

    def __init__(
        self,
        model: DiffusionModel,
        config: ResolvedConfig,
        sampling: SamplingConfig,
        *,
        snapshots: Sequence[DiffusionModel] = (),
        precision: Precision = "auto",
        mixture: Mixture | None = None,
        turn: Turn = Turn(),
    ) -> None:
        """Take settings into use; ``snapshots`` are other weights of the same network, ``turn`` is that of its run.

        Of what members expect only that time is kept that the ``mixture`` asks for; without one, some of all.
        """
        self.sampling, self.precision, self.mask_channels = sampling, precision, config.mask_channels
        self.process, self.turn = Process.of(config), turn
        self.table = table_of(sampling, self.process.schedule)
        told = telling_times(self.table, self.process)
        self.times = told if mixture is None else [told[mixture.nearest(told)]]
        moments = [Moments(network, self.process, sampling) for network in (model, *snapshots)]
        mirrors = mirrors_of(sampling, config)
        first = FirstNoise()
        looks = min(math.lcm(len(moments), len(mirrors)), sampling.drawn)
        self.walkers = [
            Walker(of.model, of, sampling, mirrors[number % len(mirrors)], precision, first)
            for number, of in ((number, moments[number % len(moments)]) for number in range(looks))
        ]

    def draw(self, image: Float[Tensor, "b c h w"], keys: Sequence[str], *, seed: int) -> Ensemble:
        """Draw the ensembles of a batch of images: all candidates, where members are chosen among them later."""
        return next(self.rounds(image, keys, seed=seed, size=self.sampling.drawn))

    def rounds(
        self, image: Float[Tensor, "b c h w"], keys: Sequence[str], *, seed: int, size: int
    ) -> Iterator[Ensemble]:
        """Draw the ensembles some members at a time, as they are asked for; the images are looked at once."""
        h, w = image.shape[-2:]
        seen = self.look(image)
        for start in range(0, self.sampling.drawn, size):
            numbers = self.turn.own(range(start, min(start + size, self.sampling.drawn)), self.sampling)
            expected = Expectations(self.times, image.new_zeros(len(image), self.mask_channels, h, w))
            drawn = {
                number: masks
                for look in range(len(self.walkers))
                for number, masks in self._drawn(look, seen.conditions[look], numbers, keys, expected, seed=seed)
            }
            probability = torch.stack([drawn[number] for number in numbers])
            self._check_range(probability)
            mean = expected.mean(len(numbers))
            yield Ensemble(probability, seen.anchor, mean, expected.times, tuple(numbers), seen.pooled)

    def _check_range(self, probability: Tensor) -> None:
        """Refuse members in which numbers grew beyond what 16 bits hold: masks would be empty without a word."""
        fp16 = pick_precision(self.precision, probability.device) == "fp16"
        if fp16 and not bool(probability.isfinite().all()):
            raise ConfigError("Members are not finite in fp16, whose numbers end at 65504. Take --precision fp32.")

    def look(self, image: Float[Tensor, "b c h w"]) -> Seen:
        """Look at images without drawing members."""
        looks = [walker.look(image) for walker in self.walkers]
        conditions = [condition for condition, _ in looks]
        return Seen(conditions, _mean([of for _, of in looks]), _mean([of.pooled for of in conditions]))

    def _drawn(
        self,
        look: int,
        condition: Condition,
        numbers: Sequence[int],
        keys: Sequence[str],
        expected: Expectations,
        *,
        seed: int,
    ) -> Iterator[tuple[int, Float[Tensor, "b k h w"]]]:
        """Draw the members of all images that have one look."""
        own = [of for of in numbers if self.turn.place(of, self.sampling) % len(self.walkers) == look]
        (h, w), b = next(iter(expected.sums.values())).shape[-2:], len(keys)
        shape = (self.mask_channels, h, w)
        chunks = [
            self.walkers[look].draw(condition, members, keys, expected, seed=seed, shape=shape)
            for members in in_chunks(b, own, size=self.sampling.batch_size)
        ]
        if chunks:
            yield from zip(own, torch.cat(chunks).unflatten(0, (b, len(own))).unbind(1), strict=True)


def _mean(shown: Sequence[Tensor | None]) -> Tensor | None:
    """Average what looks show, if they show it."""
    given = [of for of in shown if of is not None]
    return torch.stack(given).mean(dim=0) if given else None


def pair(sampling: SamplingConfig) -> int:
    """Count the members that see the same, one after the other: two where they have opposite noise."""
    return 1 + sampling.antithetic


def num_looks(sampling: SamplingConfig, config: ResolvedConfig) -> int:
    """Count the pairs of weights and mirror that members may have."""
    return math.lcm(1 + config.train.snapshots, len(mirrors_of(sampling, config)))
