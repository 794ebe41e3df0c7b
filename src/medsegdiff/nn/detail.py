"""The last layers of a Diffusion Model that works on cells of pixels: edges as sharp as the Condition Model's."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.blocks import full_precision, group_norm


class DetailHead(nn.Module):
    """Unfolds cells to pixels, meets the finest features of the Condition Model there, and gives the maps.

    A Diffusion Model that sees the image through U-SA at 1/4 resolution can't know where inside a cell an edge runs;
    what it says of the 4×4 pixels of a cell is blocky. The Condition Model knows: its last decoder features are
    brought to a few channels at full resolution, once per image, and added to those of each member before a last
    3×3 convolution, whose weights are the same for all pixels of a cell. Both terms come before a SiLU, so a
    member may take the edge, move away from it, or close it: a sum with the anchor's logits would give all members
    the same edge, and would have a meaning for the target x0 only.

    Deviation: in the paper the Anchor Condition enters the encoder alone. At full resolution (``detail_channels:
    0``) nothing of this is there.

    Args:
        channels: Of the Diffusion Model's finest features.
        condition_channels: Of the Condition Model's finest features.
        out_channels: K.
        patches: Sides of the cells of the Condition Model and of the Diffusion Model.
        width: Channels at full resolution.
    """

    def __init__(
        self, channels: int, condition_channels: int, out_channels: int, *, patches: tuple[int, int], width: int
    ) -> None:
        super().__init__()
        coarse, fine = patches[1], patches[0]
        self.norm_c, self.norm_d = group_norm(condition_channels), group_norm(channels)
        self.from_condition = nn.Conv2d(condition_channels, width * fine**2, 1)
        self.from_cells = nn.Conv2d(channels, width * coarse**2, 3, padding=1)
        self.unfold_c, self.unfold_d = nn.PixelShuffle(fine), nn.PixelShuffle(coarse)
        self.to_maps = nn.Conv2d(width, out_channels, 3, padding=1)

    def encode_image(self, f_c: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d gh gw"]:
        """Bring the Condition Model's finest decoder features to full resolution. Once per image is enough."""
        detail: Tensor = self.unfold_c(self.from_condition(F.silu(self.norm_c(f_c))))
        return detail

    def forward(self, f_d: Float[Tensor, "b c h w"], detail: Float[Tensor, "b d gh gw"]) -> Float[Tensor, "b k gh gw"]:
        """Give one map per output channel, the last layer in full precision.

        Args:
            f_d: Finest features of the Diffusion Model.
            detail: From `encode_image`.

        Returns:
            Maps at full resolution.
        """
        cells = self.from_cells(F.silu(self.norm_d(f_d)))
        h = F.silu(self.unfold_d(cells) + detail)
        with full_precision(h):
            maps: Tensor = self.to_maps(h.float())
        return maps
