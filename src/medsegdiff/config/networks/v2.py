"""Settings of MedSegDiff-V2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medsegdiff.config.base import DEFAULT_NETWORK, NETWORKS, NetworkConfig


@NETWORKS.register(DEFAULT_NETWORK)
class V2Config(NetworkConfig):
    """MedSegDiff-V2; the defaults are the paper's, in widths that keep the budget of its table 5."""

    name: str = DEFAULT_NETWORK
    """Entry of the registry of models."""
    condition_widths: tuple[int, ...] = Field(default=(48, 80, 128, 192, 256), min_length=2)
    """Channels of the Condition Model by level, finest first; each level halves the resolution."""
    diffusion_widths: tuple[int, ...] = Field(default=(48, 80, 128, 192, 256), min_length=2)
    """Channels of the Diffusion Model by level."""
    num_blocks: int = Field(default=2, ge=1)
    """Residual blocks per level, in encoders and decoders alike."""
    patch: int = Field(default=1, ge=1)
    """Side in pixels of the cells that are folded into channels before the first level; 1 keeps full resolution."""
    condition_patch: int | None = Field(default=None, ge=1)
    """``patch`` of the Condition Model alone; ``null`` takes ``patch``."""
    diffusion_patch: int | None = Field(default=None, ge=1)
    """``patch`` of the Diffusion Model alone: 1, 2, 4 … times that of the Condition Model, with as many levels less."""
    detail_channels: int = Field(default=0, ge=0)
    """Channels at full resolution in which the Condition Model's last features refine the Diffusion Model's output."""
    time_dim: int = Field(default=256, ge=8, multiple_of=4)
    """Channels of the time embedding."""
    anchor_condition: Literal["u-sa", "spatial", "none"] = "u-sa"
    """How the anchor enters; ``spatial`` (attention that is sure of it) and ``none`` are rows of table 4."""
    anchor_add: bool = False
    """Whether those features are also added, through a 1×1 convolution that starts at zero: U-SA passes one number per
    place."""
    anchor_levels: tuple[int, ...] = (0, 1)
    """Levels of the Diffusion Model that decoder features of the Condition Model enter (U-SA; figure 1 shows two)."""
    anchor_sigma: float = Field(default=4.0, gt=0)
    """Standard deviation in pixels, at full resolution, with which the learned Gaussians of U-SA start."""
    semantic_condition: Literal["ss-former", "unfiltered", "cross-attention", "none"] = "ss-former"
    """How the embedding of the image enters; ``unfiltered`` (an SS-Former without NBP-Filters) and ``none`` are rows of
    table 4, ``cross-attention`` (softmax, in space) is a control."""
    ss_former_dim: int = Field(default=512, ge=4, multiple_of=4)
    """Token width d."""
    ss_former_blocks: int = Field(default=4, ge=1)
    """N = 4 in the paper."""
    mlp_ratio: int = Field(default=4, ge=1)
    """Hidden width of the perceptrons of the SS-Former over d."""
    filter_channels: int = Field(default=64, ge=1)
    """Width of the NBP-Filters."""
    filter_blocks: int = Field(default=6, ge=1)
    """R = 6 in the paper."""
    deep_supervision: bool = False
    """Whether the anchor is also supervised on the coarser grids of its decoder, in training alone."""
    see_image: bool = False
    """Whether the Diffusion Model sees the image beside x_t; in the paper it sees x_t alone."""

    @model_validator(mode="after")
    def _levels_fit(self) -> V2Config:
        own, its = self.patches
        if its % own or (ratio := its // own) & (ratio - 1):
            raise ValueError(f"diffusion_patch is {its}; it must be 1, 2, 4 … times {own}, that of the Condition Model")
        if not (above := self.levels_above) and len(self.condition_widths) != len(self.diffusion_widths):
            raise ValueError("condition_widths and diffusion_widths must have as many levels as each other")
        if len(self.condition_widths) - above != len(self.diffusion_widths):
            raise ValueError(
                f"with condition_patch {own} and diffusion_patch {its}, diffusion_widths must have {above} fewer "
                "levels than condition_widths: both end on the same grid"
            )
        known = range(len(self.diffusion_widths) - 1)
        if any(level not in known for level in self.anchor_levels) or len(set(self.anchor_levels)) < len(
            self.anchor_levels
        ):
            raise ValueError(f"anchor_levels must lie in 0 … {known[-1]}, each once")
        return self

    @model_validator(mode="after")
    def _sum_has_an_anchor(self) -> V2Config:
        if self.anchor_add and self.anchor_condition == "none":
            raise ValueError("anchor_add adds the anchor's features; with anchor_condition none there are none")
        return self

    @model_validator(mode="after")
    def _image_is_seen(self) -> V2Config:
        anchored = self.anchor_condition != "none" and self.anchor_levels
        if not (anchored or self.semantic_condition != "none" or self.see_image or self.detail_channels):
            raise ValueError(
                "without anchor_condition and semantic_condition the Diffusion Model knows nothing of the image; "
                "set see_image to true"
            )
        return self

    @property
    def patches(self) -> tuple[int, int]:
        """Sides of the cells of the Condition Model and of the Diffusion Model, in pixels."""
        condition = self.condition_patch or self.patch
        return condition, self.diffusion_patch or (self.patch if self.condition_patch is None else condition)

    @property
    def levels_above(self) -> int:
        """Levels of the Condition Model that are finer than the finest of the Diffusion Model."""
        condition, diffusion = self.patches
        return (diffusion // condition).bit_length() - 1
