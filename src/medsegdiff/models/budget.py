"""What a network costs: parameters, and multiply-accumulates of one forward pass, without computing it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.models.base import build_model


@dataclass(frozen=True)
class Budget:
    """Parameters and billions of multiply-accumulates (GMAC) at one image size.

    Convolutions and matrix products are counted; Fourier transforms and elementwise operations are not.
    """

    parameters: int
    parts: dict[str, int]
    """Parameters by part of the network."""
    condition_gmac: float
    """Once per image."""
    denoiser_gmac: float
    """Once per step and member."""


def budget(config: ResolvedConfig) -> Budget:
    """Count on the meta device: no memory, no time.

    Args:
        config: Of the network and the image size.

    Returns:
        What the network costs.
    """
    with torch.device("meta"):
        model = build_model(config)
        side = config.data.grid_side(model.stride)
        image = torch.empty(1, config.image_channels, side, side)
        mask, t = torch.empty(1, config.mask_channels, side, side), torch.empty(1)
    with FlopCounterMode(display=False) as condition_flops:
        condition = model.condition(image)
    time = model.at(t, (side, side))  # once per run, so it counts for neither
    with FlopCounterMode(display=False) as denoiser_flops:
        model.denoise(mask, time, condition)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return Budget(
        parameters=sum(p.numel() for p in model.parameters()),
        parts=parts,
        condition_gmac=condition_flops.get_total_flops() / 2e9,
        denoiser_gmac=denoiser_flops.get_total_flops() / 2e9,
    )
