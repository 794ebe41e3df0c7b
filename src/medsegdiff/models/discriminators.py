"""BEAL's discriminators: networks that try to tell whether an image came with a mask, by what another says of it."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.labels import Labels
from medsegdiff.models.base import Said


class PatchDiscriminator(nn.Sequential):
    """Judges each patch of a map by itself: five strided convolutions without norms and biases.

    Source: Isola et al. (2017), section 3.2.2, as the authors' code of BEAL has it.

    Args:
        in_channels: Of the map.
        width: Channels of the first convolution; the following three have twice those of the one before.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((in_channels, *(width * 2**level for level in range(4)), 1)):
            convolution = nn.Conv2d(before, after, 4, stride=2, padding=2, bias=False)
            nn.init.normal_(convolution.weight, std=0.02)
            layers += [convolution, nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])


class BoundaryAndEntropy(nn.Module):
    """Two discriminators: one looks at the boundary, the other at where the mask is uncertain.

    Source: Wang et al. (2019), doi:10.1007/978-3-030-32239-7_12, as the authors' code has it.

    Args:
        mask_channels: K.
        width: Channels of their first convolutions.
    """

    def __init__(self, mask_channels: int, *, width: int = 64) -> None:
        super().__init__()
        self.boundary = PatchDiscriminator(1, width)
        self.entropy = PatchDiscriminator(mask_channels, width)

    def forward(self, said: Said, labels: Labels) -> tuple[Float[Tensor, "b 1 _ _"], Float[Tensor, "b 1 _ _"]]:
        """Judge.

        Args:
            said: Logits of the mask, and of its boundary as the only extra.
            labels: The label space.

        Returns:
            Logits by patch, by boundary and by entropy: above 0 where the image seems to have come with a mask.
        """
        assert said.logits is not None
        (boundary,) = said.extra
        uncertain = entropy_map(labels.activate(said.logits.float()))
        return self.boundary(boundary.float().sigmoid()), self.entropy(uncertain)


def entropy_map(probability: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    r"""Compute :math:`-p \log p` by pixel and channel; of an overlapping region, one half of its entropy.

    Source: Wang et al. (2019), as the authors' code has it.

    Args:
        probability: In [0, 1].

    Returns:
        In nats; 0 where p is 0, −1e-7 where it is 1.
    """
    return -probability * (probability + 1e-7).log()
