"""What networks without noise have in common: they segment at once, behind the doors of a diffusion model."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, cast

from jaxtyping import Float
from torch import Tensor

from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Condition


class Heads(NamedTuple):
    """What a network says of an image."""

    logits: Float[Tensor, "b k h w"]
    """Its segmentation."""
    deep: tuple[Float[Tensor, "b k _ _"], ...] = ()
    """The same on coarser grids, finest first, in training alone: supervised as the finest is, each half as much."""
    extra: tuple[Tensor, ...] = ()
    """What else its own loss compares, in training alone; the order is the network's."""
    pooled: Float[Tensor, "b f"] | None = None
    """See `Condition`."""


class DeterministicModel(DiffusionModel):
    """A network that segments at once.

    Whatever the noise and the time, its prediction of x_0 are its logits; so all members are one, and one step gives
    it. No gradient flows through that prediction: the second term of equation 3 alone trains it, or the loss of its
    own that ``loss.supervision`` names.
    """

    broadcasts = True

    @abstractmethod
    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            Logits, and in training what else is supervised.
        """

    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Segment."""
        self.check_size(image)
        heads = self.segment(image)
        return Condition(heads.logits, deep=heads.deep, extra=heads.extra, pooled=heads.pooled)

    def denoise(self, x_t: Tensor, time: Tensor, condition: Condition) -> Float[Tensor, "b k h w"]:
        """Give the segmentation, whatever the masks and the times."""
        return cast(Tensor, condition.logits).detach()
