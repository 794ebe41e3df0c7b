"""Noise for ensembles: what member k of image i draws follows from (seed, i, k) alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.diffusion.philox import NOISE, laid_out, normal
from medsegdiff.seeding import derive_seed

KEPT = 2**28
"""Bytes of noise that are kept for the next slice, at most."""
AT_ONCE = {"cpu": 2**15, "cuda": 2**22}
"""Blocks by device, so many that its cache or memory holds them; others, of which not all compute in double precision,
leave the drawing to the CPU."""


def randn(
    addresses: Sequence[tuple[int, int]], shape: Sequence[int], *, draw: int = 0, device: torch.device
) -> Float[Tensor, "n ..."]:
    """Draw standard normal noise for each address.

    Args:
        addresses: (key in [0, 2^63), number of the member) of each noise.
        shape: Of one noise.
        draw: Which noise of the member, from 0.
        device: Where the noise shall be.

    Returns:
        One noise per address, in single precision; on all devices the same but for rounding.

    Example:
        >>> randn([(7, 0), (7, 1)], (1, 8, 8), device=torch.device("cpu")).shape
        torch.Size([2, 1, 8, 8])
    """
    at = device if device.type in AT_ONCE else torch.device("cpu")
    words = torch.tensor(laid_out(addresses, draw=draw, stream=NOISE)).to(at, non_blocking=True)
    return normal(words, shape, xp=torch, at_once=AT_ONCE[at.type], device=at).to(device)


class FirstNoise:
    """Draws the first noise of members, and keeps that of the last images: the slices of a volume may share theirs.

    There it is the same for every slice: of ten members with 16 channels of 256 px, 0.38 s of a CPU each time.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], Tensor] = {}

    def __call__(
        self, addresses: Sequence[tuple[int, int]], shape: tuple[int, int, int], *, device: torch.device
    ) -> Float[Tensor, "n k h w"]:
        """Draw what is not known yet.

        Args:
            addresses: (key, number of the member) of each noise.
            shape: Channels, height and width.
            device: Where the noise shall be.

        Returns:
            The first noise of each address.
        """
        images = {key for key, _ in addresses}
        known = {
            address: noise
            for address, noise in self.kept.items()
            if address[0] in images and noise.shape == shape and noise.device == device
        }
        missing = [address for address in dict.fromkeys(addresses) if address not in known]
        drawn = known | dict(zip(missing, randn(missing, shape, device=device), strict=True) if missing else ())
        self.kept = drawn if sum(noise.nbytes for noise in drawn.values()) <= KEPT else known
        return torch.stack([drawn[address] for address in addresses])


class MemberNoise:
    """Draws standard normal noise for a batch of members, each from numbers of its own.

    The numbers are those of `philox` under the key (seed, "member", image), so the noise does not depend on the
    batch, the order, the number of members or of processes, nor, but for rounding, on the device.

    With ``antithetic`` members 2j and 2j + 1 draw opposite noise, that of member 2j being the same as without.
    Each member alone is as random as before; the two of a pair are more unlike than two others, and what is odd in
    the noise cancels in their mean. So the fused mask needs fewer members, but pairs do not tell the agreement of
    independent members.

    Source: Hammersley & Morton (1956), A new Monte Carlo technique: antithetic variates.
    """

    def __init__(
        self,
        seed: int,
        members: Sequence[tuple[str, int]],
        shape: tuple[int, int, int],
        *,
        device: torch.device,
        antithetic: bool = False,
        first: FirstNoise | None = None,
    ) -> None:
        """Find each member's numbers.

        Args:
            seed: The user's seed.
            members: (key of the image, number of the member) for each member of the batch.
            shape: Channels, height and width of a mask.
            device: Where the noise shall be.
            antithetic: Whether odd members draw the opposite of what the member before them draws.
            first: What keeps the first noise for the next slice of a volume; ``None`` keeps nothing.
        """
        self.shape, self.device, self.draws = shape, device, 0
        self.first = FirstNoise() if first is None else first
        mirrored = [antithetic and number % 2 == 1 for _, number in members]
        signs = torch.tensor([-1.0 if turned else 1.0 for turned in mirrored])
        self.signs = signs.reshape(-1, 1, 1, 1).to(device, non_blocking=True)
        self.addresses = [
            (derive_seed(seed, "member", key), number - turned)
            for (key, number), turned in zip(members, mirrored, strict=True)
        ]

    def __call__(self) -> Float[Tensor, "n k h w"]:
        """Draw the next noise of every member.

        Returns:
            Standard normal noise.
        """
        if self.draws == 0:
            noise = self.first(self.addresses, self.shape, device=self.device)
        else:
            noise = randn(self.addresses, self.shape, draw=self.draws, device=self.device)
        self.draws += 1
        return self.signs * noise
