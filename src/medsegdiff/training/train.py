"""Training from the outside: data and configuration in, a run folder out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from medsegdiff.config.run import Config, TrainConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import SPLITS, DataInfo, Track, no_progress
from medsegdiff.data.loader import PreparedCases, loading_worded
from medsegdiff.data.modality import shown_modalities
from medsegdiff.data.orientation import in_words, looked_at, orientation_of
from medsegdiff.data.split import Before
from medsegdiff.errors import ConfigError, memory_worded, some
from medsegdiff.hardware import place
from medsegdiff.inference.calibration import FILE as CALIBRATION
from medsegdiff.io.atomic import remove_parts
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import load_config, load_model, load_snapshots, with_snapshots_kept
from medsegdiff.models.pretrained import Taken, take
from medsegdiff.training.adversary import adversary_in_words, check_adversary
from medsegdiff.training.calibration import calibrate
from medsegdiff.training.distillation import check_teacher
from medsegdiff.training.optimizer import MOMENTS
from medsegdiff.training.origin import UNTOLD, check_start
from medsegdiff.training.plan import plan, with_precision
from medsegdiff.training.processes import check_alike, fresh_state, make_accelerator
from medsegdiff.training.reading import read_cases, read_unlabelled, unlabelled_stream
from medsegdiff.training.run import Run, seen_among
from medsegdiff.training.scoring import check_scored
from medsegdiff.training.state import check_divisible
from medsegdiff.training.step_budget import StepBudget
from medsegdiff.training.trainer import Outcome, Trainer

log = logging.getLogger(__name__)


def train(
    data: str | Path,
    out: str | Path,
    config: Config,
    *,
    resume: bool = False,
    start: Path | None = None,
    device: str | None = None,
    console: Console | None = None,
    track: Track = no_progress,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Train a model.

    All images and weights are read before anything is written, so that a bad file shows at once and leaves nothing
    behind. A folder that can't be written to, or that checkpoints do not fit into, shows before images are read.

    Args:
        data: A folder, or the name of a built-in data set.
        out: Folder of the run.
        config: Preset and overrides.
        resume: Go on with the run in ``out``, with its split. One that was imported makes its first step.
        start: Another run, with whose averaged weights this one begins.
        device: ``cpu`` keeps training off the accelerator; ``None``, or what it would choose, lets accelerate choose.
        console: Where to print; ``None`` is silent.
        track: Shows progress while data are read.
        clock: Gives seconds; ``train.max_minutes`` is measured with it.

    Returns:
        How it ended.

    Raises:
        ConfigError: If the configuration does not fit the data, the device or the folder, or ``start`` is exported.
        CheckpointError: If the folder can't be written to, or has too little room for checkpoints, or a packed model to
            start with was changed.
        DataError: If the card of a packed model to start with can't be read.
    """
    state = fresh_state(device)
    if device not in (None, "cpu", found := state.device.type):
        allowed = "cpu" if found == "cpu" else f"cpu, and {found}, which there is"
        raise ConfigError(f"device is '{device}'; allowed is {allowed}. Choose GPUs with CUDA_VISIBLE_DEVICES.")
    main = state.is_main_process
    run, console = Run(Path(out)), console if console and main else Console(quiet=True)
    track = track if main else no_progress
    parent = None if start is None else Run(start)
    before = Before(parent.parts(), str(parent.folder)) if parent else None
    check_alike(run, processes=state.num_processes, resume=resume)
    check_folder(run, resume=resume, main=main)
    if start is not None:
        check_start(start)
    if resume and run.imported:
        told = f"{run.folder} was imported: training begins at step 0, with its weights and a fresh optimizer."
        console.print(told, highlight=False, markup=False, soft_wrap=True)
        resume, start = False, run.folder
    begun = load_config(run.folder) if resume else None
    planned = plan(data, config, device=device, begun=begun, before=before, track=track)
    resolved, info = planned.config, planned.source.info
    begun_with = None if start is None else Run(start)
    for line in (*info.passed_over, *flattered(info, begun_with)) if main else ():
        log.warning("%s", line)
    if resume:
        run.check_same(resolved)
        info = run.keep_split(info)
    network = check_network(resolved, processes=state.num_processes)
    check_room(run, network, resolved.train, main=main)
    pretrained = [] if resume or start else pretrained_of(resolved, network)
    unlabelled = read_unlabelled(resolved, info, stride=network.stride, track=track)
    cases = read_cases(planned.source, info, resolved, stride=network.stride, state=state, track=track)
    resolved = oriented(resolved, cases, info, begun=begun)
    from_what = (*kept_in_words(info, parent), *adversary_in_words(network, unlabelled))
    console.print("\n".join((*info.understood, summary(info, resolved), *from_what)), highlight=False, markup=False)
    accelerator = make_accelerator(resolved, run, device)
    stream, budget = unlabelled_stream(unlabelled, resolved), StepBudget(resolved.train, clock=clock)
    trainer = Trainer(resolved, info, cases, run, accelerator, console, budget, stream)
    if resume:
        trainer.resume()
    elif start:
        trainer.begin_with(start)
    for taken in pretrained:
        trainer.begin_pretrained(taken.weights)
        console.print(taken.told(len(trainer.step.network.state_dict())), highlight=False, markup=False)
    if accelerator.is_main_process:
        remove_parts(run.folder, run.pictures(0).parent)
        taken_over = None if resume else [taken.facts for taken in pretrained]
        kept = with_precision(resolved, config.train.precision)  # another machine may go on, and compute in another
        run.describe(
            kept,
            info,
            str(data),
            step=trainer.progress.step,
            precision=resolved.train.precision,
            parent=parent,
            pretrained=taken_over,
        )
    accelerator.wait_for_everyone()
    try:
        return fit(trainer, cases, info, track=track)
    finally:
        accelerator.end_training()


def check_folder(run: Run, *, resume: bool, main: bool) -> None:
    """Make sure that there is a run to go on with, or none, and that its folder can be written to."""
    run.check_resumable() if resume else run.check_new()
    if main:
        run.check_writable()


def kept_in_words(info: DataInfo, parent: Run | None) -> Iterator[str]:
    """Say how many cases are in the part that they have in the run that training starts with."""
    if parent is not None:
        before = parent.parts()
        kept = sum(before.get(name) == part for name, part in info.split.items())
        if kept:
            yield f"{kept} cases are in the part that they have in {parent.folder}."


def flattered(info: DataInfo, parent: Run | None) -> Iterator[str]:
    """Say which cases the data hold out that the run that training starts with has been trained on, by their names.

    Of one that does not tell what it has been trained on, it may be any of them.
    """
    if parent is None:
        return
    seen = seen_among({name: info.groups.get(name, "") for name in info.split}, parent.trained)
    held_out = [name for name in seen if info.split[name] != "train"]
    if held_out:
        yield (
            f"The data hold out {len(held_out)} cases that have names of cases or patients that {parent.folder} "
            f"was trained on: {some(held_out)}. If they are those, scores, the choice of the best weights and what "
            "is calibrated are flattered. Put them into 'train', or start with a run that has not seen them."
        )
    if not parent.tells_trained:
        yield (
            f"{parent.folder} {UNTOLD}. If cases that are held out here are among that, scores, the choice of the best "
            "weights and what is calibrated are flattered. Hold out cases that it can't have seen."
        )


def check_network(config: ResolvedConfig, *, processes: int) -> DiffusionModel:
    """Build the network without taking memory, and see that it can be trained so."""
    with torch.device("meta"):
        model = build_model(config)
        check_adversary(config, model, processes=processes)
    check_teacher(config)
    check_scored(config)
    if config.train.sharding:
        check_divisible(model, processes)
    return model


def check_room(run: Run, network: DiffusionModel, train: TrainConfig, *, main: bool) -> None:
    """Make sure that there is room for two states, as one replaces the other, and for weights to segment with."""
    if main:
        weights = sum(value.nbytes for value in network.state_dict().values())
        state = 2 + (train.snapshots > 0) + MOMENTS[train.optimizer]
        run.check_room(weights * (2 * state + 2 + train.snapshots))


def pretrained_of(config: ResolvedConfig, network: DiffusionModel) -> list[Taken]:
    """Read the weights of others that training shall begin with, if any is asked for, and see that they fit."""
    return take(getattr(config.model, "weight_files", ()), network, network.layouts)


def fit(trainer: Trainer, cases: PreparedCases, info: DataInfo, *, track: Track) -> Outcome:
    """Train to the end, and calibrate what came out."""
    accelerator = trainer.accelerator
    with lack_worded(trainer.config):
        outcome = trainer.fit()
    if accelerator.is_main_process and to_calibrate(outcome):
        calibrate_run(trainer.run, trainer.config, cases, info, device=accelerator.device, track=track)
    accelerator.wait_for_everyone()  # a process that leaves while others still draw pictures may be killed for it
    return outcome


@contextmanager
def lack_worded(config: ResolvedConfig) -> Iterator[None]:
    """Say what to lower where memory does not suffice, and what to look at where loading ends."""
    batch, side = config.train.batch_size, config.data.image_size
    with (
        loading_worded(config.train.num_workers),
        memory_worded(
            f"Training on {batch} images of {side} px at once",
            way_out=f"Lower train.batch_size ({batch}; train.accumulate makes up for it) or data.image_size ({side}), "
            "or set train.gradient_checkpointing=true. 'medsegdiff data plan' tells what fits.",
        ),
    ):
        yield


def oriented(
    config: ResolvedConfig, cases: PreparedCases, info: DataInfo, *, begun: ResolvedConfig | None
) -> ResolvedConfig:
    """Settle which mirrors and turns are used; a run that is resumed goes on with those that it ``begun`` with."""
    if begun is not None:
        found = begun.spec.orientation
    else:
        names = info.items("train")
        seen = [name for name in names if name in info.foreground] or names  # of volumes, most slices hold nothing
        chosen = (cases[name] for name in looked_at(seen))
        found = orientation_of(chosen, config.data, structures=config.spec.labels.foreground)
    return config.model_copy(update={"spec": config.spec.model_copy(update={"orientation": found})})


def to_calibrate(outcome: Outcome) -> bool:
    """Tell whether training is over, and its weights are not calibrated: it may have been ended in between."""
    if outcome.reason == "finished already":
        return not (outcome.folder / CALIBRATION).is_file()
    return outcome.reason != "interrupted"


def calibrate_run(
    run: Run, config: ResolvedConfig, cases: PreparedCases, info: DataInfo, *, device: torch.device, track: Track
) -> None:
    """Fit probabilities and intervals of sizes to validation cases, with the weights that will segment."""
    if config.train.sharding:  # the others hold their shares, and wait; here the whole network would have to fit
        log.warning("Probabilities and sizes are not calibrated: the network is split over processes.")
        return
    model, _ = load_model(run.folder)
    place(model, device)
    snapshots = load_snapshots(run.folder, config)
    for network in snapshots:
        place(network, device)
    config = with_snapshots_kept(run.folder, config)
    found = calibrate(model, config, cases, info, snapshots=snapshots, device=device, track=track)
    found.save(run.folder)


def summary(info: DataInfo, config: ResolvedConfig) -> str:
    """Say in a line what was understood of the data."""
    counts = ", ".join(f"{list(info.split.values()).count(part)} {part}" for part in SPLITS)
    channels = "grey" if info.channels == 1 else "colour" if info.channels == 3 else f"{info.channels} channels"
    if info.slices:
        channels += f"; {shown_modalities(config.spec.modalities, config.spec.window)}"
    raters = f"; raters: {', '.join(info.raters)}" if len(info.raters) > 1 else ""
    ways = f"; {in_words(config.spec.orientation)}" if config.data.augment else ""
    return (
        f"{counts} cases; {channels}; {info.labels.task}: {', '.join(info.labels.classes)}{raters}{ways}; "
        f"{config.data.image_size} px, {config.train.precision}"
    )
