"""What of a network becomes a graph: a look at the image, a step of the sampler, and the mean of all masks at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.target import Levels
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition

MEMBERS, IMAGES = "members", "images"
"""Axes of any length."""


@dataclass(frozen=True)
class Layout:
    """The tree of a condition without its tensors: how to take it apart, and put it together."""

    kind: type[Condition]
    fields: dict[str, int | None]
    """Tensors of a field that is a tuple; −1: a tensor; ``None``: nothing."""

    @classmethod
    def of(cls, condition: Condition) -> Layout:
        """Look at one."""
        parts = vars(condition).items()
        counts = {name: len(part) if isinstance(part, tuple) else None if part is None else -1 for name, part in parts}
        return cls(type(condition), counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Name the tensors, in the order of `Condition.tensors`."""
        named = []
        for field, count in self.fields.items():
            named += [field] if count == -1 else [f"{field}_{number}" for number in range(count or 0)]
        return tuple(named)

    def joined(self, tensors: Iterable[Tensor]) -> Condition:
        """Put tensors together."""
        given = iter(tensors)
        return self.kind(**{field: _taken(given, count) for field, count in self.fields.items()})


def _taken(given: Iterator[Tensor], count: int | None) -> Any:
    if count is None:
        return None
    return next(given) if count == -1 else tuple(next(given) for _ in range(count))


class Look(nn.Module):
    """Image → what the anchor says, if there is one, and all that denoising needs to know of the image."""

    def __init__(self, model: DiffusionModel, process: Process) -> None:
        super().__init__()
        self.model, self.labels = model, process.labels

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """Look.

        Args:
            image: On the model grid, normalised.

        Returns:
            Probabilities of the anchor (b k h w), then the tensors of the condition, but for the image itself.
        """
        condition = self.model.condition(image)
        anchor = () if condition.logits is None else (self.labels.activate(condition.logits.float()),)
        return (*anchor, *(tensor for tensor in condition.tensors if tensor is not image))


class Step(nn.Module):
    """Noisy masks of one image, a time, and what is known of the image → x_0, and what the network said."""

    def __init__(self, model: DiffusionModel, process: Process, layout: Layout, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.process, self.layout, self.size = model, process, layout, size

    def forward(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
        """Denoise.

        Args:
            x_t: Noisy masks (m k h w).
            t: Their time (1).
            alpha: Signal of x_t (1); the square root of ᾱ.
            sigma: Noise of x_t (1).
            *condition: Of one image, as `Look` gives it, without the anchor.

        Returns:
            x_0 and the network's own answer (m k h w).
        """
        known = self.layout.joined(condition)
        if not self.model.broadcasts:
            known = known.expand(0, x_t.shape[0])
        said = self.model.denoise(x_t, self.model.at(t, self.size), known).float()
        at = Levels(alpha.reshape(1, 1, 1, 1), sigma.reshape(1, 1, 1, 1))
        x_0 = self.process.denoised(self.process.completed(said, known.logits, x_t, at), x_t, at).x_0
        return x_0.expand_as(x_t), said.expand_as(x_t)


class Mean(nn.Module):
    """Image → calibrated probability, in one step from pure noise: what an endless ensemble agrees on."""

    def __init__(
        self,
        model: DiffusionModel,
        process: Process,
        mixture: Mixture,
        *,
        at: tuple[float, float, float],
        noise: Float[Tensor, "1 k h w"],
    ) -> None:
        """Build it: ``at`` is the last time of the schedule, with its α and σ."""
        super().__init__()
        self.model, self.process, self.mixture, self.at = model, process, mixture, at
        self.noise = nn.Buffer(noise)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment.

        Args:
            image: On the model grid, normalised.

        Returns:
            Probability of each channel.
        """
        condition, labels = self.model.condition(image), self.process.labels
        time, alpha, sigma = (image.new_full((1, 1, 1, 1), value) for value in self.at)
        x_t = self.noise.expand(image.shape[0], -1, -1, -1)  # a length would be a number, and fix the axis
        said = self.model.denoise(x_t, self.model.at(time.flatten(), (image.shape[2], image.shape[3])), condition)
        at = Levels(alpha, sigma)
        x_0 = self.process.denoised(self.process.completed(said.float(), condition.logits, x_t, at), x_t, at).x_0
        expected = self.process.probability(x_0).transpose(0, 1)  # channels first
        anchor = None if condition.logits is None else labels.activate(condition.logits.float()).transpose(0, 1)
        return self.mixture(anchor, expected, exclusive=labels.exclusive).transpose(0, 1)
