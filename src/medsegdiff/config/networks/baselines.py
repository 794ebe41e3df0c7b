"""Settings of the networks that MedSegDiff-V2 is compared with, and that nobody of its authors released."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.networks.base import NETWORKS, NetworkConfig
from medsegdiff.config.networks.guided import DenoiserConfig, V1Config


@NETWORKS.register("ensdiff")
class EnsDiffConfig(DenoiserConfig):
    """EnsDiff: the image enters beside the noisy mask; the defaults are its README's."""

    name: str = "ensdiff"
    """Entry of the registry of models."""


@NETWORKS.register("segdiff")
class SegDiffConfig(DenoiserConfig):
    """SegDiff: features of the image and of the noisy mask are summed; the defaults are its README's for MoNuSeg."""

    name: str = "segdiff"
    """Entry of the registry of models."""
    multiples: tuple[int, ...] = Field(default=(1, 1, 1, 2, 2, 4, 4), min_length=2)
    """Channels by level, in multiples of ``channels``; each level halves the resolution."""
    num_blocks: int = Field(default=3, ge=1)
    """Residual blocks per level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (4, 5)
    """Levels whose blocks are followed by attention: at 256×256 those of 16×16 and 8×8."""
    num_heads: int = Field(default=4, ge=1)
    """Heads of attention."""
    learn_sigma: bool = False
    """Whether the variance of the ancestral sampler is learned: K more channels of the denoiser."""
    encoder_blocks: int = Field(default=12, ge=1)
    """Residual-in-residual dense blocks that look at the image."""
    encoder_channels: int = Field(default=64, ge=1)
    """Their channels."""
    encoder_growth: int = Field(default=32, ge=1)
    """Channels that each convolution within them adds."""


@NETWORKS.register("medsegdiff-transunet")
class TransUNetConfig(V1Config):
    """MedSegDiff on TransUNet: a vision transformer at the bottom of the denoiser.

    The transformer is ViT-B, as in TransUNet, on 16×16 tokens of a 256×256 image. The paper says no more than that the
    UNet was replaced and (table 5) that there are 118 M parameters; the widths around the transformer follow from that.
    """

    name: str = "medsegdiff-transunet"
    """Entry of the registry of models."""
    channels: int = Field(default=64, ge=1)
    """Channels of the denoiser at full resolution."""
    multiples: tuple[int, ...] = Field(default=(1, 2, 2, 4, 4), min_length=2)
    """Channels by level, in multiples of ``channels``; each level halves the resolution."""
    attention_levels: tuple[int, ...] = ()
    """Levels whose blocks are followed by attention; beside the transformer there is none."""
    condition_widths: tuple[int, ...] = Field(default=(32, 64, 128, 256), min_length=2)
    """Channels of the network that looks at the image, by level."""
    transformer_dim: int = Field(default=768, ge=4, multiple_of=4)
    """Width of a token."""
    transformer_depth: int = Field(default=12, ge=1)
    """Layers."""
    transformer_heads: int = Field(default=12, ge=1)
    """Heads of their attention."""
    transformer_ratio: int = Field(default=4, ge=1)
    """Hidden width of their perceptrons over that of a token."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TransUNetConfig:
        if self.transformer_dim % self.transformer_heads:
            raise ValueError(
                f"transformer_dim is {self.transformer_dim}; it must be a multiple of transformer_heads, "
                f"{self.transformer_heads}"
            )
        return self


@NETWORKS.register("anchor")
class AnchorConfig(NetworkConfig):
    """The Condition Model of MedSegDiff-V2 alone: no diffusion."""

    targets: ClassVar[tuple[str, ...]] = ("x0",)
    name: str = "anchor"
    """Entry of the registry of models."""
    condition_widths: tuple[int, ...] = Field(default=(48, 80, 128, 192, 256), min_length=2)
    """Channels by level, finest first; each level halves the resolution."""
    num_blocks: int = Field(default=2, ge=1)
    """Residual blocks per level, in encoder and decoder alike."""
    patch: int = Field(default=1, ge=1)
    """Side in pixels of the cells that are folded into channels before the first level; 1 keeps full resolution."""
