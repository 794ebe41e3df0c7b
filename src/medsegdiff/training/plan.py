"""What training would do, before it does it: the configuration completed by the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from medsegdiff.config.run import Config, DataConfig
from medsegdiff.data.dataset import DataInfo, DataSource, Track, in_silence
from medsegdiff.data.fingerprint import settle
from medsegdiff.data.modality import check_neighbours
from medsegdiff.data.opening import open_source
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.hardware import on_cpu, pick_precision


@dataclass(frozen=True)
class Plan:
    """What training would do: the data, and the configuration completed by them."""

    source: DataSource
    config: Config


def plan(
    data: str | Path,
    config: Config,
    *,
    device: str | None = None,
    begun: Config | None = None,
    track: Track = in_silence,
) -> Plan:
    """Look at the data and complete the configuration: channels, task, classes, modalities, window, precision."""
    source = open_source(data, config.data, track=track)
    info = source.info
    for key, given, found in (("task", config.data.task, info.task), ("channels", config.data.channels, info.channels)):
        if given is not None and given != found:
            raise ConfigError(
                f"data.{key} is {given!r}, but the data in {data} are {found!r}. Leave it out, or change the data."
            )
    check_neighbours(info, config.data)
    check_sampling(config)
    state = PartialState(cpu=on_cpu(device))
    normalised = _as_before(config, begun) if begun else settle(source, config.data, track=track)
    data_config = normalised.model_copy(
        update={"channels": info.channels, "task": info.task, "classes": info.classes, **_files(info)}
    )
    train_config = config.train.model_copy(update={"precision": pick_precision(config.train.precision, state.device)})
    return Plan(source, config.model_copy(update={"data": data_config, "train": train_config}))


def _as_before(config: Config, begun: Config) -> DataConfig:
    """Normalise as a run began; where the user asks for something else, the run refuses it later."""
    kept = {key: getattr(begun.data, key) for key in ("modalities", "window") if getattr(config.data, key) is None}
    return config.data.model_copy(update=kept)


def _files(info: DataInfo) -> dict[str, Any]:
    """Fix how files are found and volumes are cut, so that it is done alike when others are segmented."""
    found = {"layout": info.layout, "channel_files": info.channel_files, "label_values": info.label_values}
    return {key: value for key, value in found.items() if value} | ({"plane": info.plane} if info.plane else {})


def check_sampling(config: Config) -> None:
    """Find out now, not at the first validation, whether samples can be drawn and fused as asked."""
    schedule = schedule_of(config.diffusion)
    for steps in (config.sampling.num_steps, config.train.val_steps):
        table_of(config.sampling.model_copy(update={"num_steps": steps}), schedule)
    FUSERS[config.sampling.fusion]
