"""The forward process, and the loss of equation 3."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medsegdiff.config.base import Component

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

    @model_validator(mode="after")
    def _solvable(self) -> DiffusionConfig:
        if self.zero_terminal_snr and self.target == "eps":
            raise ValueError("zero_terminal_snr needs target v or x0: from noise alone, eps tells nothing of x_0")
        return self


class LossConfig(Component):
    """Equation 3: L = L_n + [t ≡ 0 mod α] (L_dice + β L_ce)."""

    alpha: int = Field(default=5, ge=1)
    """α = 5 in the paper: how rarely the anchor is supervised."""
    beta: float = Field(default=10.0, ge=0)
    """β = 10 in the paper: weight of the cross-entropy of the anchor."""
    anchor_weighting: Literal["indicator", "expected"] = "expected"
    """``indicator`` as in equation 3; ``expected`` weighs every sample 1/α: the same on average, with less variance."""
    x_0_dice: float = Field(default=1.0, ge=0)
    """Weight of soft Dice beside cross-entropy in L_n when the target is x0."""
