"""What training would do, before it does it: the configuration completed by what the data tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from medsegdiff.config.run import Config
from medsegdiff.config.spec import DataSpec, ResolvedConfig, resolved
from medsegdiff.data.dataset import DataInfo, DataSource, Track, no_progress
from medsegdiff.data.fingerprint import normalisation_of
from medsegdiff.data.modality import check_neighbours
from medsegdiff.data.open import open_source
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.hardware import on_cpu, pick_precision


@dataclass(frozen=True)
class Plan:
    """What training would do: the data, and the configuration completed by them."""

    source: DataSource
    config: ResolvedConfig


def plan(
    data: str | Path,
    config: Config,
    *,
    device: str | None = None,
    begun: ResolvedConfig | None = None,
    track: Track = no_progress,
) -> Plan:
    """Look at the data and complete the configuration; a run that is resumed goes on normalising as it ``begun``."""
    source = open_source(data, config.data, track=track)
    check_neighbours(source.info, config.data)
    check_sampling(config)
    state = PartialState(cpu=on_cpu(device))
    precision = pick_precision(config.train.precision, state.device)
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
    return Plan(source, resolve(source, config, where=data, begun=begun, track=track))


def resolve(
    source: DataSource,
    config: Config,
    *,
    where: str | Path,
    begun: ResolvedConfig | None = None,
    track: Track = no_progress,
) -> ResolvedConfig:
    """Check what is asked of the data against what they tell, and put both together."""
    info = source.info
    _check_asserted(info, config, where)
    asked = config.data
    if begun is not None:  # where the user asks for something else, the run refuses it later
        kept = {"modalities": begun.spec.modalities, "window": begun.spec.window}
        asked = asked.model_copy(update={key: value for key, value in kept.items() if getattr(asked, key) is None})
    modalities, window = normalisation_of(source, asked, track=track)
    spec = DataSpec(
        labels=info.labels,
        channels=info.channels,
        modalities=modalities,
        window=window,
        plane=info.plane,
        channel_files=info.channel_files,
        layout=info.layout,
    )
    return resolved(config, spec)


def _check_asserted(info: DataInfo, config: Config, where: str | Path) -> None:
    asked, labels = config.data, info.labels
    for key, given, found in (("task", asked.task, labels.task), ("channels", asked.channels, info.channels)):
        if given is not None and given != found:
            raise ConfigError(
                f"data.{key} is {given!r}, but the data in {where} are {found!r}. Leave it out, or change the data."
            )


def check_sampling(config: Config) -> None:
    """Find out now, not at the first validation, whether samples can be drawn and fused as asked."""
    schedule = schedule_of(config.diffusion)
    for steps in (config.sampling.steps, config.train.val_steps):
        table_of(config.sampling.model_copy(update={"steps": steps}), schedule)
    FUSERS[config.sampling.fusion]
