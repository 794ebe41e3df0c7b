"""UltraUNet: the classic U-Net, as the comparison's system for ultrasound is read here."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.networks.ultraunet import UltraUNetConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.nn.classic_unet import ClassicDecoder, ClassicEncoder, DoubleConvolution


class ClassicUNet(nn.Module):
    """One encoder, one decoder.

    Source: Ronneberger et al. (2015), U-Net, section 2. Deviation: batch norm, and padding that keeps the size.
    """

    def __init__(self, image_channels: int, mask_channels: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.decoder = ClassicEncoder(image_channels, widths), ClassicDecoder(widths, mask_channels)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Segment.

        Args:
            image: Height and width are multiples of 2^(levels − 1).

        Returns:
            Logits.
        """
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


@MODELS.register(
    "ultraunet",
    kind="deterministic",
    paper="Chu et al., Ultrasonic thyroid nodule detection method based on U-Net network, CMPB: read as the U-Net",
    year=2021,
    licence="none",
)
class UltraUNet(DeterministicModel):
    """UltraUNet, by our reading: neither code nor full text is to be had, and its name is MedSegDiff-V2's.

    Deviation: the abstract tells of a U-Net that is guided by a user's marks. This one finds nodules by itself, as all
    systems of the tables do: no marks are read.

    Source: Chu et al. (2021), doi:10.1016/j.cmpb.2020.105906 (unverified), abstract.
    """

    units = (DoubleConvolution,)

    def __init__(self, config: UltraUNetConfig, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(stride=2 ** (len(config.widths) - 1))
        self.condition_model = ClassicUNet(image_channels, mask_channels, widths=config.widths)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment."""
        return Heads(self.condition_model(image))
