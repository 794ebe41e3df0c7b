"""The processes that train together: which this one is, what all of them see, and in which precision they compute."""

from __future__ import annotations

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import get_available_trackers
from accelerate.utils import AutocastKwargs, DataLoaderConfiguration, DistributedDataParallelKwargs, gather_object

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import CheckpointError, ConfigError, some
from medsegdiff.hardware import DTYPES, on_cpu
from medsegdiff.training.run import Run


def fresh_state(device: str | None) -> PartialState:
    """Find out which process this is, before anything else: what follows writes, prints and picks devices."""
    if not torch.distributed.is_initialized():  # an earlier training in this process may have used another device
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()  # else a loader that was left early still counts as at its end
    return PartialState(cpu=on_cpu(device))


def check_alike(run: Run, *, processes: int, resume: bool) -> None:
    """Make sure that all processes go on from the same checkpoint, or begin: each of them reads it."""
    if processes == 1:
        return
    stat = run.state.stat() if resume and run.state.is_file() else None
    seen = gather_object([(resume, stat and (stat.st_size, stat.st_mtime_ns))])
    if len(set(seen)) > 1:
        told = ", ".join(f"process {number} {'goes on' if one[0] else 'begins'}" for number, one in enumerate(seen))
        raise CheckpointError(
            f"{run.folder}: not all processes see the same checkpoint ({told}). Let --out be a folder that all "
            "machines share, and start them again."
        )


def make_accelerator(config: ResolvedConfig, run: Run | None, device: str | None) -> Accelerator:
    """Set up precision, accumulation and trackers, which write into the run."""
    available = {str(tracker.value) for tracker in get_available_trackers()}
    if missing := sorted(set(config.train.trackers) - available):
        raise ConfigError(
            f"train.trackers: {some(missing)} can't be imported. Install it (pip install {' '.join(missing)}), "
            "or leave it out."
        )
    accelerator = Accelerator(
        mixed_precision=config.train.precision if config.train.precision in DTYPES else "no",
        gradient_accumulation_steps=config.train.accumulate,
        cpu=on_cpu(device),
        dataloader_config=DataLoaderConfiguration(non_blocking=True),
        # autocast would keep every weight it has cast, of the whole network, until the forward pass is done
        kwargs_handlers=[
            AutocastKwargs(cache_enabled=not config.train.sharding),
            DistributedDataParallelKwargs(find_unused_parameters=config.train.anchor_alone > 0),
        ],
        log_with=list(config.train.trackers) or None,
        project_dir=None if run is None else str(run.folder),
    )
    if config.train.trackers:
        accelerator.init_trackers("medsegdiff", config={"config": config.model_dump_json()})
    return accelerator
