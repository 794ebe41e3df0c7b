"""FF-Parser of MedSegDiff: a learned filter of features in Fourier space."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from medsegdiff.nn.blocks import full_precision


class FFParser(nn.Module):
    """Weighs each frequency of each channel, so that noise can be told from structure.

    The filter is kept for one size. For another it is interpolated over frequency in cycles per pixel, which keeps
    what it does to structures of a given size in pixels; at its own size it is taken as it is. It starts next to the
    identity.

    Source: Wu et al. (2024), MedSegDiff, MIDL, section FF-Parser.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.zeros(channels, size[0], size[1] // 2 + 1, 2))
        nn.init.normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[..., 0] += 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Filter, in float32 under any autocast."""
        h, w = x.shape[-2:]
        with full_precision(x):
            spectrum = torch.fft.rfft2(x.float(), norm="ortho")
            weight = torch.view_as_complex(self.weight.float().contiguous())
            parsed: Tensor = torch.fft.irfft2(spectrum * fit_filter(weight, self.size, (h, w)), s=(h, w), norm="ortho")
        return parsed


def fit_filter(
    weight: Complex[Tensor, "c f g"], kept: tuple[int, int], wanted: tuple[int, int]
) -> Complex[Tensor, "c f2 g2"]:
    """Interpolate a filter, given for features of one size, for features of another.

    Linear in both frequencies; over the rows, whose frequencies are periodic, also across ±½ cycles per pixel.

    Args:
        weight: By channel, row frequency (in the order of the FFT) and column frequency (not negative).
        kept: Height and width that the filter is for.
        wanted: Height and width of the features.

    Returns:
        The filter for these; the same one where the sizes agree.
    """
    if kept == wanted:
        return weight
    rows = torch.fft.fftfreq(wanted[0], device=weight.device) % 1 * kept[0]
    columns = torch.fft.rfftfreq(wanted[1], device=weight.device) * kept[1]
    periodic = torch.cat([weight, weight[:, :1]], dim=1)
    return _lerp(_lerp(periodic, rows, dim=1), columns, dim=2)


def _lerp(values: Tensor, at: Float[Tensor, " n"], *, dim: int) -> Tensor:
    """Interpolate linearly between entries."""
    low = at.floor().long().clamp(max=values.shape[dim] - 2)
    part = (at - low).reshape([-1 if axis == dim else 1 for axis in range(values.ndim)])
    return values.index_select(dim, low) * (1 - part) + values.index_select(dim, low + 1) * part
