"""What the user asks of a sampler, completed with what the model was made for."""

from __future__ import annotations

from typing import Any

from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.mean import in_one_step
from medsegdiff.inference.stopping import AUTO, MOST


def complete_sampling(defaults: SamplingConfig, asked: dict[str, Any], *, target: str = "x0") -> SamplingConfig:
    """Complete what the user asks for with the model's defaults."""
    given = {key: value for key, value in asked.items() if value is not None}
    if given.get("members") == AUTO:
        given["members"] = MOST
    for key in ("members", "steps"):
        if isinstance(number := given.get(key, 1), str) or number < 1:
            also = ", or 'auto'" if key == "members" else ""
            raise ConfigError(f"{key} is {number!r}; it must be at least 1{also}.")
    sampling = defaults.model_copy(update=given)
    FUSERS[sampling.fusion]  # an unknown name shows before the work, not after it
    return in_one_step(sampling, given, target=target) if sampling.mode == "mean" else sampling
