"""Blocks that every network here is built from: residual blocks, time embedding, changes of resolution."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def full_precision(like: Tensor) -> torch.autocast:
    """Leave autocast for what bf16 would spoil: the FFT, the affinity it transforms, the filter, the last layer.

    Tensors that enter are to be made float32; ``like`` is on the device in question.
    """
    device = like.device.type
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)


def group_norm(channels: int, groups: int = 8) -> nn.GroupNorm:
    """Make the normalisation used throughout: by groups, so that a batch equals its elements.

    There are fewer groups where their number would not divide the channels.
    """
    return nn.GroupNorm(math.gcd(groups, channels), channels)


class TimeEmbedding(nn.Module):
    """Turns the time step into a vector: sinusoids, then a 2-layer perceptron.

    Source: Ho et al. (2020), appendix B, as MedSegDiff-V2 follows it (Diffusion Process).
    """

    def __init__(self, dim: int, *, num_frequencies: int | None = None) -> None:
        super().__init__()
        self.num_frequencies = dim // 4 if num_frequencies is None else num_frequencies
        self.mlp = nn.Sequential(nn.Linear(2 * self.num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        """Embed times.

        Args:
            t: Times in [0, T − 1], whole in training, any in sampling.

        Returns:
            One vector per time.
        """
        steps = torch.arange(self.num_frequencies, device=t.device, dtype=torch.float32)
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * steps / self.num_frequencies)
        embedding: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))
        return embedding


class Recomputed(nn.Module, ABC):
    """A block that the backward pass can compute once more, instead of keeping what is inside (`recompute`).

    Source: Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost.
    """

    recomputed = False

    @abstractmethod
    def compute(self, *given: Any, **more: Any) -> Tensor:
        """Do what the block does."""

    def forward(self, *given: Tensor | None) -> Tensor:
        """Take and give what `compute` does."""
        if self.recomputed and torch.is_grad_enabled():
            kept: Tensor = checkpoint(self.compute, *given, use_reentrant=False, preserve_rng_state=False)
            return kept
        return self.compute(*given)


def recompute(model: nn.Module) -> None:
    """Let the backward pass compute blocks once more, so that far less is kept for it: the gradients are the same.

    Args:
        model: The network; its blocks are changed, of blocks within blocks the outer ones.
    """
    for part in model.children():
        if isinstance(part, Recomputed):
            part.recomputed = True
        else:
            recompute(part)


class ResidualBlock(Recomputed):
    """Two normalised 3×3 convolutions and a way around them; the time, if any, enters between them.

    It scales and shifts the normalised features, or (without ``scale_shift``) is added before the normalisation.

    Source: Ho et al. (2020), with the scale-shift of Dhariwal & Nichol (2021), equation 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        time_dim: int | None = None,
        norm: Callable[[int], nn.Module] = group_norm,
        scale_shift: bool = True,
    ) -> None:
        super().__init__()
        self.norm_in = norm(in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm_out = norm(out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.scale_shift = scale_shift
        self.time = None if time_dim is None else nn.Linear(time_dim, (1 + scale_shift) * out_channels)
        self.around = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def compute(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "#b dim"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        """Apply the block; the time is for one that was built with ``time_dim``."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        if self.time is None or time is None:
            h = self.norm_out(h)
        elif self.scale_shift:
            scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)  # (b, c, 1, 1) each
            h = self.norm_out(h) * (1 + scale) + shift  # AdaGN, equation 1
        else:
            h = self.norm_out(h + self.time(F.silu(time))[:, :, None, None])
        out: Tensor = self.around(x) + self.conv_out(F.silu(h))
        return out


class Upsample(nn.Module):
    """Doubles the size: nearest neighbour, then a 3×3 convolution that also changes the width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Give features of twice the height and width."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Make a convolution, padded so that stride 1 keeps the size, with batch norm and ReLU.

    Source: He et al. (2016), Deep Residual Learning for Image Recognition, section 3.4.

    Args:
        in_channels: Of the features.
        out_channels: Of what it gives.
        kernel: Side, odd.
        stride: By which the grid gets coarser.
        dilation: Distance between the taps, in pixels.
        bias: Whether the convolution has one, which the norm takes away again; some authors' networks do.

    Returns:
        The three, named 0, 1 and 2.
    """
    reach = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=reach, dilation=dilation, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
