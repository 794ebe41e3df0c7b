"""How masks are drawn and fused."""

from __future__ import annotations

from typing import Literal, TypedDict

from pydantic import Field

from medsegdiff.config.base import Component


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
    fusion: str = "staple"
    """Entry of the registry of fusions; STAPLE in the paper."""
    antithetic: bool = False
    """Whether members come in pairs with opposite noise: a steadier mean, but pairs that disagree too much."""
    shared_noise: bool = True
    """Whether a member starts from the same noise in all slices of a volume, so that neighbours agree."""
    batch_size: int = Field(default=16, ge=1)
    """Masks denoised at once; changes memory and speed, never the result."""


class SamplingOptions(TypedDict, total=False):
    """What may be asked for some images; what is left out, or ``None``, is the model's default."""

    members: int | Literal["auto"] | None
    """Size of the ensemble; ``auto`` adds members to each image until its fused mask is stable."""
    steps: int | None
    """Steps of the sampler."""
    sampler: str | None
    """Entry of `SAMPLERS`."""
    spacing: str | None
    """Entry of `SPACINGS`."""
    fusion: str | None
    """Entry of `FUSERS`."""
    shared_noise: bool | None
    """Whether a member starts from the same noise in all slices of a volume."""
    mode: Literal["ensemble", "mean"] | None
    """``mean`` gives the probability alone, in one step."""
    seed: int
    """Noise follows from the seed, the image's pixels and the member's number alone; 0 where it is left out."""
