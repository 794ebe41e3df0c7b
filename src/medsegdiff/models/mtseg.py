"""MTSeg (TRFE-Net): a decoder draws the thyroid, and gates the one that draws its nodules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.mtseg import MTSegConfig
from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.classic_unet import ClassicDecoder, ClassicEncoder, DoubleConvolution
from medsegdiff.nn.losses import overlap


class TRFENet(nn.Module):
    """One encoder, two decoders; the thyroid's probability gates the features of the nodules' decoder.

    Deviation: four transposed convolutions and one 1×1 convolution that the released network holds and never calls
    (3.3 M parameters) are not built.

    Source: Gong et al. (2021), doi:10.1109/ISBI48211.2021.9434087, and the released code.
    """

    def __init__(self, image_channels: int, nodule_channels: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = ClassicEncoder(image_channels, widths)
        self.gland = ClassicDecoder(widths, 1)
        self.nodule = ClassicDecoder(widths, nodule_channels)

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b 1 h w"]]:
        """Segment.

        Args:
            image: Height and width are multiples of 2^(levels − 1).

        Returns:
            Logits of the nodules, and of the gland; a gradient flows from the former into the latter.
        """
        features = self.encoder(image)
        gland = self.gland(features)
        return self.nodule(features, gate=gland.sigmoid()), gland


_DECODERS = {"": "nodule", "t": "gland"}
ORIGINAL_KEYS = (
    *((rf"^conv{level + 1}\.conv\.", f"encoder.{level}.") for level in range(5)),
    *((rf"^up{step + 6}{t}\.", f"{name}.up.{step}.") for step in range(4) for t, name in _DECODERS.items()),
    *((rf"^conv{step + 6}{t}\.conv\.", f"{name}.levels.{step}.") for step in range(4) for t, name in _DECODERS.items()),
    *((rf"^conv10{t}\.", f"{name}.head.") for t, name in _DECODERS.items()),
)
"""Names of the released weights (patterns) → names within `TRFENet`."""
ORIGINAL_UNUSED = (r"^up\d_align\.", r"^reduction6\.")
"""What a released checkpoint holds beside them."""


@MODELS.register(
    "mtseg",
    kind="deterministic",
    paper="Gong et al., Multi-Task Learning for Thyroid Nodule Segmentation with Thyroid Region Prior, ISBI",
    year=2021,
    licence="MIT",
)
class MTSeg(DeterministicModel):
    """TRFE-Net, whose gland decoder is supervised where a mask channel is the gland.

    Source: Gong et al. (2021), doi:10.1109/ISBI48211.2021.9434087.
    """

    units = (DoubleConvolution,)

    def __init__(self, config: MTSegConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(config.widths) - 1))
        self.place = config.gland
        if self.place is not None and (mask_channels == 1 or self.place >= mask_channels):
            raise ConfigError(
                f"model.gland is {self.place}; the masks have {mask_channels} channel(s). Name the place, from 0, of "
                "the gland among two or more regions (data.classes), or set model.gland to null."
            )
        nodules = mask_channels - (self.place is not None)
        self.condition_model = TRFENet(image_channels, nodules, widths=config.widths)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment; the gland's logits stand where its mask channel does."""
        nodules, gland = self.condition_model(image)
        if self.place is None:
            return Heads(nodules)
        return Heads(torch.cat([nodules[:, : self.place], gland, nodules[:, self.place :]], dim=1))


@SUPERVISIONS.register("mtseg", what="1 − 2 (Σpg + 1) / (Σp + Σg + 1), by image, summed over structures")
def gong_dice(
    said: Said,
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    r"""Compute MTSeg's loss, :math:`1 - 2 \frac{\sum pg + 1}{\sum p + \sum g + 1}`.

    The 1 above stands within the bracket, so a structure that is neither there nor predicted gives −1. Deviation:
    theirs is the sum over the images of a batch, where the trainer takes the mean.

    Source: the code released with Gong et al. (2021).

    Args:
        said: Logits.
        mask: 0 and 1; nodules, and the gland where a channel is.
        labels: The label space.
        labelled: 0 where nobody labelled: what is predicted there does not count.

    Returns:
        By image; structures count 1 : 1.
    """
    assert said.logits is not None
    probability = labels.activate(said.logits.float())[:, labels.foreground]
    both, sizes = overlap(probability, mask[:, labels.foreground], labelled=labelled)  # (b, structures) each
    return (1 - 2 * (both + 1) / (sizes + 1)).sum(dim=1)
