"""The mode ``mean``: the probability alone, in one step, without an ensemble."""

from __future__ import annotations

from typing import Any

from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.errors import ConfigError


def in_one_step(sampling: SamplingConfig, asked: dict[str, Any], *, target: str) -> SamplingConfig:
    r"""Settle how the mean of all masks is found without drawing them: one member, one step, from pure noise.

    There x_T says nothing of the mask, so the prediction of x_0 that minimises cross-entropy or squared error is
    :math:`E[x_0 \mid I]`: by pixel, the probability that an endless ensemble would agree on. It costs one look at the
    image and one denoiser forward.

    It can't give joint samples: no member is a mask that a rater might have drawn, so there is no agreement, no GED,
    no deviation or disagreement (both are 0), nothing about volumes or shapes, and no STAPLE. Its entropy is that
    of the mean.
    """
    if clash := [key for key in ("members", "steps", "fusion") if key in asked]:
        raise ConfigError(
            f"mode mean with {' and '.join(clash)}: it is one step and draws no members. Leave them out, or take "
            "mode ensemble."
        )
    if target == "eps":
        raise ConfigError(
            "mode mean needs a model of target x0 or v; this one predicts noise (eps), take mode ensemble."
        )
    return sampling.model_copy(update={"members": 1, "steps": 1, "fusion": "mean", "antithetic": False})
