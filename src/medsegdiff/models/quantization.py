"""Weights for giving away: large matrices as whole numbers of 8 bits, each output channel with a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LARGE = 1 << 15
"""Elements from which a matrix or the kernel of a convolution is stored so; smaller ones weigh little."""
MOST = 127
SCALE = ".scale_of_8_bits"
"""Ends the name of a scale, beside that of its weights."""


def quantized(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    r"""Round weights: :math:`q = \mathrm{round}(w / s)` with :math:`s = \max |w| / 127` over each output channel.

    Args:
        state: Weights by name.
        dtype: Of what is not large.

    Returns:
        Weights and scales (float32) by name. A weight is off by half a scale at most.
    """
    found = dict[str, Tensor]()
    for name, value in state.items():
        if not value.is_floating_point() or value.ndim < 2 or value.numel() < LARGE:
            found[name] = value.to(dtype) if value.is_floating_point() else value
            continue
        scale = (value.float().flatten(1).abs().amax(dim=1) / MOST).clamp_min(torch.finfo(torch.float32).tiny)
        along = scale.view(-1, *[1] * (value.ndim - 1))
        found[name] = (value.float() / along).round().clamp(-MOST, MOST).to(torch.int8)
        found[name + SCALE] = scale
    return found


def dequantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply what `quantized` gave by its scales; of other weights nothing is changed."""
    scales = {name.removesuffix(SCALE): value for name, value in state.items() if name.endswith(SCALE)}
    found = {name: value for name, value in state.items() if not name.endswith(SCALE)}
    for name, scale in scales.items():
        value = found[name]
        found[name] = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
    return found


def is_quantized(state: Mapping[str, Tensor]) -> bool:
    """Tell whether `quantized` gave them."""
    return any(name.endswith(SCALE) for name in state)
