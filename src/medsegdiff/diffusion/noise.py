"""Noise for ensembles: what member k of image i draws follows from (seed, i, k) alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.seeding import derive_seed


class MemberNoise:
    """Draws standard normal noise for a batch of members, each from a generator of its own.

    Drawn on the CPU in single precision and then moved, so that it does not depend on the device, the batch,
    the order or the number of processes.
    """

    def __init__(
        self, seed: int, members: Sequence[tuple[str, int]], shape: tuple[int, int, int], *, device: torch.device
    ) -> None:
        """Seed the generators.

        Args:
            seed: The user's seed.
            members: (key of the image, number of the member) for each member of the batch.
            shape: Channels, height and width of a mask.
            device: Where the noise shall be.
        """
        self.shape, self.device = shape, device
        self.generators = [
            torch.Generator().manual_seed(derive_seed(seed, "member", key, number)) for key, number in members
        ]

    def __call__(self) -> Float[Tensor, "n k h w"]:
        """Draw the next noise of every member.

        Returns:
            Standard normal noise.
        """
        drawn = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)
