"""Training from the outside: data and configuration in, a run folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console

from medsegdiff.checkpoint import build_model
from medsegdiff.config import Config
from medsegdiff.data.dataset import DataInfo, DataSource, Track, in_silence, open_source
from medsegdiff.data.loader import PreparedCases
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import pick_device, pick_precision
from medsegdiff.training.run import Run
from medsegdiff.training.trainer import Outcome, Trainer


@dataclass(frozen=True)
class Plan:
    """What training would do: the data, and the configuration completed by them."""

    source: DataSource
    config: Config
    stride: int


def plan(data: str | Path, config: Config, *, track: Track = in_silence) -> Plan:
    """Look at the data and complete the configuration: channels, task, classes, precision.

    Args:
        data: A folder, or the name of a built-in data set.
        config: Preset and overrides.
        track: Shows progress.

    Returns:
        The plan.

    Raises:
        ConfigError: If the configuration contradicts the data.
    """
    source = open_source(data, config.data, track=track)
    info = source.info
    for key, given, found in (("task", config.data.task, info.task), ("channels", config.data.channels, info.channels)):
        if given is not None and given != found:
            raise ConfigError(
                f"data.{key} is {given!r}, but the data in {data} are {found!r}. Leave it out, or change the data."
            )
    resolved = complete(config, info)
    with torch.device("meta"):
        stride = build_model(resolved).stride
    return Plan(source, resolved, stride)


def complete(config: Config, info: DataInfo) -> Config:
    """Fill in what the data and the machine decide.

    Args:
        config: Preset and overrides.
        info: Of the data.

    Returns:
        A configuration without open questions.
    """
    data = config.data.model_copy(update={"channels": info.channels, "task": info.task, "classes": info.classes})
    train = config.train.model_copy(update={"precision": pick_precision(config.train.precision, pick_device())})
    return config.model_copy(update={"data": data, "train": train})


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
        resume: Go on with the run in ``out``.
        device: ``cpu`` keeps training off the accelerator; ``None`` lets accelerate choose.
        console: Where to print; ``None`` is silent.
        track: Shows progress while data are read.

    Returns:
        How it ended.
    """
    run, console = Run(Path(out)), console or Console(quiet=True)
    if not resume:
        run.check_new()
    planned = plan(data, config, track=track)
    config, info = planned.config, planned.source.info
    if resume:
        run.check_resumable(config)
    cases = PreparedCases(planned.source, config.data, channels=config.image_channels, stride=planned.stride)
    for name in track(info.names("train") + info.names("val"), "Reading images"):
        cases[name]
    accelerator = make_accelerator(config, run, device)
    if accelerator.is_main_process:
        run.describe(config, info, str(data))
    accelerator.wait_for_everyone()
    trainer = Trainer(config, info, cases, run, accelerator, console)
    if resume:
        trainer.resume()
    try:
        return trainer.fit()
    finally:
        accelerator.end_training()


def make_accelerator(config: Config, run: Run, device: str | None) -> Accelerator:
    """Set up devices, processes, precision and trackers, as `accelerate launch` or `torchrun` say.

    Args:
        config: Resolved.
        run: Where trackers write.
        device: ``cpu``, or ``None``.

    Returns:
        The accelerator.
    """
    AcceleratorState._reset_state()  # a second training in one process may use another precision
    accelerator = Accelerator(
        mixed_precision="bf16" if config.train.precision == "bf16" else "no",
        gradient_accumulation_steps=config.train.accumulate,
        cpu=device == "cpu",
        log_with=list(config.train.trackers) or None,
        project_dir=str(run.folder),
    )
    if config.train.trackers:
        accelerator.init_trackers("medsegdiff", config={"config": config.model_dump_json()})
    return accelerator
