"""Settings of networks with a residual UNet that denoises: the authors' own, and those that V2 is compared with."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from medsegdiff.config.base import NETWORKS, NetworkConfig


class DenoiserConfig(NetworkConfig):
    """A residual UNet with attention that denoises.

    The defaults are those of the README of MedSegDiff and of EnsDiff, for 256×256.
    """

    channels: int = Field(default=128, ge=1)
    """Channels of the denoiser at full resolution."""
    multiples: tuple[int, ...] = Field(default=(1, 1, 2, 2, 4, 4), min_length=2)
    """Channels by level, in multiples of ``channels``; each level halves the resolution."""
    num_blocks: int = Field(default=2, ge=1)
    """Residual blocks per level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (4,)
    """Levels whose blocks are followed by attention: at 256×256 the one of 16×16. The middle always has it."""
    num_heads: int = Field(default=1, ge=1)
    """Heads of attention."""
    scale_shift: bool = False
    """Whether the time scales and shifts the features, or only shifts them."""
    learn_sigma: bool = True
    """Whether the variance of the ancestral sampler is learned: K more channels of the denoiser."""

    @model_validator(mode="after")
    def _levels_known(self) -> DenoiserConfig:
        known = range(len(self.multiples))
        if any(level not in known for level in self.attention_levels):
            raise ValueError(f"attention_levels must lie in 0 … {known[-1]}")
        attended = {self.channels * self.multiples[level] for level in (*self.attention_levels, -1)}
        if any(width % self.num_heads for width in attended):
            raise ValueError(f"num_heads must divide the channels at the attention: {sorted(attended)}")
        return self


class GuidedConfig(DenoiserConfig):
    """A residual UNet that denoises, and a plain UNet that looks at the image."""

    condition_widths: tuple[int, ...] = Field(default=(32, 64, 128, 256, 480), min_length=2)
    """Channels of the network that looks at the image, by level."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the channels that the encoder of that network drops while training."""


@NETWORKS.register("medsegdiff-v1")
class V1Config(GuidedConfig):
    """MedSegDiff: the condition is encoded anew at each step, gated by the denoiser's features."""

    name: str = "medsegdiff-v1"
    """Entry of the registry of models."""
    filter_size: int = Field(default=256, ge=2)
    """Side of the images for which the filters of the FF-Parser are kept; for others they are interpolated."""

    @model_validator(mode="after")
    def _encoders_meet(self) -> V1Config:
        if len(self.condition_widths) != len(self.multiples) - 1:
            raise ValueError(
                f"condition_widths has {len(self.condition_widths)} levels and multiples {len(self.multiples)}; "
                "the encoders meet if multiples has one level more"
            )
        if self.filter_size % 2 ** len(self.condition_widths):
            raise ValueError(f"filter_size must be a multiple of {2 ** len(self.condition_widths)}")
        return self


@NETWORKS.register("release")
class ReleaseConfig(GuidedConfig):
    """What the authors ship as version "new": two decoder features of the image are added to the first features."""

    name: str = "release"
    """Entry of the registry of models."""
    condition_widths: tuple[int, ...] = Field(default=(32, 64, 128, 256, 480), min_length=3)
    """Channels of the network that looks at the image, by level."""

    @model_validator(mode="after")
    def _anchors_fit(self) -> ReleaseConfig:
        wanted = 2 * self.condition_widths[0] + self.condition_widths[1]
        if self.channels != wanted or self.multiples[0] != 1:
            raise ValueError(
                f"channels is {self.channels}, multiples begin with {self.multiples[0]}; the anchors have "
                f"2 × {self.condition_widths[0]} + {self.condition_widths[1]} = {wanted} channels: set channels to it, "
                "and let multiples begin with 1"
            )
        return self


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
class MSDTransUNetConfig(V1Config):
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
    def _heads_divide(self) -> MSDTransUNetConfig:
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
    deep_supervision: bool = False
    """Whether it is also supervised on the coarser grids of its decoder, in training alone."""
