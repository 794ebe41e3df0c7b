"""All that a user asks of a run. `load` reads it from YAML and changes single values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SerializeAsAny, field_validator, model_validator

from medsegdiff.config.base import Component
from medsegdiff.config.data import DataConfig
from medsegdiff.config.diffusion import DiffusionConfig, LossConfig, SamplingConfig
from medsegdiff.config.networks import NetworkConfig, V2Config, settings_of
from medsegdiff.config.train import TrainConfig


class Config(Component):
    """All that a user asks of a run. With what the data tell, it becomes a `ResolvedConfig`."""

    description: str = ""
    """What this preset is for."""
    reproduces: str = ""
    """The table or figure of the paper that it stands for, if any."""
    model: SerializeAsAny[NetworkConfig] = V2Config()
    """The network; which settings there are, its name decides."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """The forward process."""
    loss: LossConfig = LossConfig()
    """The loss."""
    sampling: SamplingConfig = SamplingConfig()
    """Sampling and fusion."""
    data: DataConfig = DataConfig()
    """The data."""
    train: TrainConfig = TrainConfig()
    """Training."""

    @field_validator("model", mode="before")
    @classmethod
    def _settings_by_name(cls, values: Any) -> Any:
        """Read the settings as those of the network that they name."""
        if not isinstance(values, Mapping):
            return values
        return settings_of(values.get("name")).model_validate(values)

    @model_validator(mode="after")
    def _target_fits(self) -> Config:
        network, target = self.model, self.diffusion.target
        if target not in network.targets:
            able = " or ".join(network.targets)
            raise ValueError(f"the network '{network.name}' predicts {able}, not {target}: set diffusion.target={able}")
        return self
