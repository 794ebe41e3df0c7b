"""Training from the outside: data and configuration in, a run folder out."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DataLoaderConfiguration
from rich.console import Console

from medsegdiff.checkpoint import load_config
from medsegdiff.config import Config, DataConfig
from medsegdiff.data.dataset import SPLITS, DataInfo, DataSource, Track, in_silence
from medsegdiff.data.fingerprint import settle
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.modality import check_neighbours, shown_modalities
from medsegdiff.data.opening import open_source
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import table_of
from medsegdiff.errors import ConfigError, some
from medsegdiff.fusion import FUSERS
from medsegdiff.hardware import pick_precision
from medsegdiff.models.base import build_model
from medsegdiff.training.run import Run
from medsegdiff.training.trainer import Outcome, Trainer

log = logging.getLogger(__name__)


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
    """Look at the data and complete the configuration: channels, task, classes, modalities, window, precision.

    Args:
        data: A folder, or the name of a built-in data set.
        config: Preset and overrides.
        device: ``cpu``, or ``None`` for the best there is.
        begun: Of the run that is gone on with: images stay normalised as they were, whatever the data say now.
        track: Shows progress.

    Returns:
        The plan.

    Raises:
        ConfigError: If the configuration contradicts the data or itself.
    """
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
    """Find out now, not at the first validation, whether samples can be drawn and fused as asked.

    Args:
        config: Preset and overrides.
    """
    schedule = schedule_of(config.diffusion)
    for steps in (config.sampling.num_steps, config.train.val_steps):
        table_of(config.sampling.model_copy(update={"num_steps": steps}), schedule)
    FUSERS[config.sampling.fusion]


def train(
    data: str | Path,
    out: str | Path,
    config: Config,
    *,
    resume: bool = False,
    device: str | None = None,
    console: Console | None = None,
    track: Track = in_silence,
) -> Outcome:
    """Train a model.

    All images are read before anything is written, so that a bad file shows at once and leaves nothing behind.

    Args:
        data: A folder, or the name of a built-in data set.
        out: Folder of the run.
        config: Preset and overrides.
        resume: Go on with the run in ``out``, with its split.
        device: ``cpu`` keeps training off the accelerator; ``None`` lets accelerate choose.
        console: Where to print; ``None`` is silent.
        track: Shows progress while data are read.

    Returns:
        How it ended.

    Raises:
        ConfigError: If the configuration does not fit the data, the device or the folder.
    """
    if device not in (None, "cpu"):
        raise ConfigError(f"device is '{device}'; allowed is cpu. Choose GPUs with CUDA_VISIBLE_DEVICES or accelerate.")
    main = fresh_state(device).is_main_process
    run, console = Run(Path(out)), console if console and main else Console(quiet=True)
    track = track if main else in_silence
    run.check_resumable() if resume else run.check_new()
    begun = load_config(run.folder) if resume else None
    planned = plan(data, config, device=device, begun=begun, track=track)
    config, info = planned.config, planned.source.info
    if resume:
        run.check_same(config)
        info = run.keep_split(info)
    with torch.device("meta"):
        stride = build_model(config).stride
    cases = PreparedCases(planned.source, config.data, channels=config.image_channels, stride=stride)
    read_all(cases, info, config, track=track)
    console.print(summary(info, config), highlight=False)
    accelerator = make_accelerator(config, run, device)
    if accelerator.is_main_process:
        run.describe(config, info, str(data))
    accelerator.wait_for_everyone()
    trainer = Trainer(config, info, cases, run, accelerator, console)
    if resume:
        trainer.resume()
    try:
        outcome = trainer.fit()
        accelerator.wait_for_everyone()  # a process that leaves while others still draw pictures may be killed for it
        return outcome
    finally:
        accelerator.end_training()


def read_all(cases: PreparedCases, info: DataInfo, config: Config, *, track: Track) -> None:
    """Read every case that training will see.

    Args:
        cases: Where they are kept.
        info: Of the data.
        config: Resolved.
        track: Shows progress.

    Raises:
        ConfigError: If images of several sizes can't be stacked into batches.
    """
    names = info.items("train") + info.items("val")
    shapes = {tuple(cases[name].image.shape[1:]) for name in track(names, "Reading images")}
    if len(shapes) > 1 and config.train.batch_size > 1:
        raise ConfigError(
            f"data.resize={config.data.resize} leaves images of {len(shapes)} sizes, which can't be stacked. "
            "Set train.batch_size=1 (and train.accumulate), or data.resize=fit."
        )
    if cases.num_kept < len(names):
        log.warning(
            "%d of %d cases fit into data.cache_gb=%g; the others are read anew each time, which is slow. Raise it.",
            cases.num_kept,
            len(names),
            config.data.cache_gb,
        )


def summary(info: DataInfo, config: Config) -> str:
    """Say in a line what was understood of the data.

    Args:
        info: Of the data.
        config: Resolved.

    Returns:
        The line.
    """
    counts = ", ".join(f"{list(info.split.values()).count(part)} {part}" for part in SPLITS)
    channels = "grey" if info.channels == 1 else "colour" if info.channels == 3 else f"{info.channels} channels"
    if info.slices and config.data.modalities:
        channels += f"; {shown_modalities(config.data.modalities, config.data.window)}"
    raters = f"; raters: {', '.join(info.raters)}" if len(info.raters) > 1 else ""
    return (
        f"{counts} cases; {channels}; {info.task}: {', '.join(info.classes)}{raters}; "
        f"{config.data.image_size} px, {config.train.precision}"
    )


def fresh_state(device: str | None) -> PartialState:
    """Find out which process this is, before anything else: what follows writes, prints and picks devices.

    Args:
        device: ``cpu``, or ``None``.

    Returns:
        Devices and processes, as `accelerate launch` or `torchrun` say.
    """
    if not torch.distributed.is_initialized():  # an earlier training in this process may have used another device
        AcceleratorState._reset_state(reset_partial_state=True)
    return PartialState(cpu=on_cpu(device))


def on_cpu(device: str | None) -> bool:
    """Decide whether to keep off accelerators; several processes without GPUs would else not find each other.

    Args:
        device: ``cpu``, or ``None``.

    Returns:
        Whether to compute on the CPU.
    """
    kind = torch.accelerator.current_accelerator(check_available=True)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return device == "cpu" or (not alone and (kind is None or kind.type == "mps"))


def make_accelerator(config: Config, run: Run, device: str | None) -> Accelerator:
    """Set up precision, accumulation and trackers.

    Args:
        config: Resolved.
        run: Where trackers write.
        device: ``cpu``, or ``None``.

    Returns:
        The accelerator.

    Raises:
        ConfigError: If a tracker is not installed.
    """
    available = {str(tracker.value) for tracker in get_available_trackers()}
    if missing := sorted(set(config.train.trackers) - available):
        raise ConfigError(
            f"train.trackers: {some(missing)} can't be imported. Install it (pip install {' '.join(missing)}), "
            "or leave it out."
        )
    accelerator = Accelerator(
        mixed_precision="bf16" if config.train.precision == "bf16" else "no",
        gradient_accumulation_steps=config.train.accumulate,
        cpu=on_cpu(device),
        dataloader_config=DataLoaderConfiguration(non_blocking=True),
        log_with=list(config.train.trackers) or None,
        project_dir=str(run.folder),
    )
    if config.train.trackers:
        accelerator.init_trackers("medsegdiff", config={"config": config.model_dump_json()})
    return accelerator
