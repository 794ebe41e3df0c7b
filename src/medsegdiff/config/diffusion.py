"""The forward process, the loss of equation 3, and how masks are drawn and fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from pydantic import Field, model_validator

from medsegdiff.config.base import Component
from medsegdiff.config.cleaning import Cleaning

Coding = Literal["signed", "unit"]
"""Masks as −1 and +1, or as 0 and 1."""


class DiffusionConfig(Component):
    """The forward process and what the network predicts."""

    target: Literal["eps", "x0", "v"] = "x0"
    """What the network predicts; noise (eps) in the paper."""
    schedule: Literal["linear", "cosine"] = "cosine"
    """Noise schedule."""
    num_train_timesteps: int = Field(default=1000, ge=2)
    """T."""
    signal_scale: float = Field(default=0.1, gt=0, le=2)
    """b: masks are coded −b and +b; below 1, less of the mask can be read from x_t alone."""
    coding: Coding = "signed"
    """What 0 and 1 of a mask are to the process: −1 and +1, or (``unit``, in the authors' code) 0 and 1."""
    zero_terminal_snr: bool = False
    """Whether x_T holds no trace of the mask."""
    clip: bool = True
    """Whether predictions of x_0 are clipped to [−1, 1] while sampling (targets eps and v)."""
    residual: bool = False
    """Whether the network says what is to be added to the log-odds that anchor and x_t give pixel by pixel (target
    x0), or all of it."""

    @model_validator(mode="after")
    def _solvable(self) -> DiffusionConfig:
        if self.zero_terminal_snr and self.target == "eps":
            raise ValueError("zero_terminal_snr needs target v or x0: from noise alone, eps tells nothing of x_0")
        if self.residual and self.target != "x0":
            raise ValueError(f"residual needs target x0, log-odds of the mask; the target is {self.target}")
        return self


class LossConfig(Component):
    """Equation 3: L = L_n + [t ≡ 0 mod α] (L_dice + β L_ce)."""

    alpha: int = Field(default=5, ge=1)
    """α = 5 in the paper: how rarely the anchor is supervised."""
    beta: float = Field(default=10.0, ge=0)
    """β = 10 in the paper: weight of the cross-entropy of the anchor."""
    supervision: str | None = None
    """Entry of the registry of supervisions, a network's loss as its own paper has it, in place of L_dice + β L_ce;
    ``null`` keeps these."""
    anchor_weighting: Literal["indicator", "expected"] = "expected"
    """``indicator`` as in equation 3; ``expected`` weighs every sample 1/α: the same on average, with less variance."""
    batch_dice: bool = False
    """Whether the anchor's soft Dice is that of all pixels of a batch (of a process) together, as in nnU-Net's 2-D
    plans, and not the mean over its images."""
    x_0_dice: float = Field(default=1.0, ge=0)
    """Weight of soft Dice beside cross-entropy in L_n when the target is x0."""
    x_0_dice_falls: bool = False
    """Whether that weight falls to 0 where x_t says nothing yet: soft Dice is no proper score, and there it draws the
    probability of what is undecided to 0 or 1."""
    recycled: float = Field(default=0.0, ge=0, le=1)
    """Share of the batches whose x_t is made from the network's own x_0 of pure noise, instead of the mask."""


class SamplingConfig(Component):
    """How masks are drawn and fused."""

    mode: Literal["ensemble", "mean"] = "ensemble"
    """``mean`` asks the network once, from pure noise, for the mean of all masks; it draws none of them."""
    sampler: str = "dpmpp-2m"
    """Entry of the registry of samplers."""
    steps: int = Field(default=20, ge=1)
    """Steps of the sampler; 100 in the paper."""
    spacing: Literal["trailing", "linspace", "logsnr", "regions"] = "logsnr"
    """How the steps are spaced."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """DDIM's share of ancestral noise."""
    members: int = Field(default=10, ge=1)
    """Members of the ensemble; 10 in the paper."""
    candidates: int | None = Field(default=None, ge=1)
    """Masks that are drawn, of which those that stand best for all are kept as members; all of them serve the
    probability, the uncertainty and the decision. ``null``: as many as there are members."""
    fusion: str = "staple"
    """Entry of the registry of fusions; STAPLE in the paper."""
    views: Literal[1, 2, 4] = 1
    """Mirrors through which the image is looked at, members sharing them out: as it is; left and right turned around;
    top and bottom; both. Each is a look of the Condition Model. Mirrors that training has not used are left out."""
    raters: int | None = Field(default=None, ge=1)
    """How many raters' majority (a tie is foreground) the mask of ``fusion: dice`` shall match; ``null``: as many as
    the training data had."""
    antithetic: bool = False
    """Whether members come in pairs with opposite noise: a steadier mean, but pairs that disagree too much."""
    shared_noise: bool = True
    """Whether a member starts from the same noise in all slices of a volume, so that neighbours agree."""
    batch_size: int = Field(default=16, ge=1)
    """Masks denoised at once; changes memory and speed, never the result."""

    @property
    def drawn(self) -> int:
        """Masks that are drawn of each image."""
        return self.members if self.candidates is None else self.candidates

    @model_validator(mode="after")
    def _choosable(self) -> SamplingConfig:
        if self.candidates is not None and self.candidates < self.members:
            raise ValueError(
                f"candidates is {self.candidates}, members {self.members}: members are chosen among candidates. "
                "Set candidates to as many at least, or to null"
            )
        if self.candidates is not None and self.mode == "mean":
            raise ValueError("mode mean draws no members to choose: set candidates to null")
        return self


class SamplingOptions(TypedDict, total=False):
    """What may be asked for some images; what is left out, or ``None``, is the model's default."""

    members: int | Literal["auto"] | None
    """Size of the ensemble; ``auto`` adds members to each image until its fused mask is stable."""
    candidates: int | None
    """Masks that are drawn, among which the members are chosen; as many as members: nothing is chosen."""
    steps: int | None
    """Steps of the sampler."""
    sampler: str | None
    """Entry of `SAMPLERS`."""
    spacing: str | None
    """Entry of `SPACINGS`."""
    fusion: str | None
    """Entry of `FUSERS`."""
    views: int | None
    """Mirrors through which images are seen: 1, 2 or 4; those that training has not used are left out."""
    shared_noise: bool | None
    """Whether a member starts from the same noise in all slices of a volume."""
    mode: Literal["ensemble", "mean"] | None
    """``mean`` gives the probability alone, in one step."""
    batch_size: int | None
    """Masks denoised at once, of one image or of several of one size; changes memory and speed, never the result."""
    cleaning: Cleaning | Mapping[str, Cleaning] | None
    """What is cleaned of masks, of all structures or by structure; left out: what ``medsegdiff calibrate`` has learned,
    if anything; ``{}``: nothing."""
    seed: int
    """Noise follows from the seed, the image's pixels and the member's number alone; 0 where it is left out."""
