"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from medsegdiff.checkpoint import BEST, LAST, load_weights, save_weights
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, training_loader
from medsegdiff.errors import TrainingError
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.nn.blocks import recompute
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.monitor import Monitor
from medsegdiff.training.optimisation import RunningMeans, learning_rate, moving_average, parameter_groups
from medsegdiff.training.pace import Pace
from medsegdiff.training.run import Run
from medsegdiff.training.sharding import gather, reshard, shard, shard_loading, whole
from medsegdiff.training.state import Progress, load_state, part_of, save_state, tensors_of
from medsegdiff.training.stop import StopRequest, stop_signals
from medsegdiff.training.validation import Validator

LOG_EVERY = 10


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    folder: Path
    step: int
    best_dice: float
    best_step: int
    skipped: int
    reason: str
    """``finished``, ``finished already``, ``stopped early`` or ``interrupted``."""


class Trainer:
    """Trains one model on one data set, from the first step or from a checkpoint."""

    def __init__(
        self,
        config: ResolvedConfig,
        info: DataInfo,
        cases: PreparedCases,
        run: Run,
        accelerator: Accelerator,
        console: Console,
    ) -> None:
        train = config.train
        torch.manual_seed(train.seed)
        self.config, self.run, self.accelerator, self.console = config, run, accelerator, console
        model = build_model(config)
        if train.gradient_checkpointing:
            recompute(model)
        self.ema = AveragedModel(model, multi_avg_fn=moving_average(train.ema_decay, self._averaged))
        if train.sharding:
            shard(model, accelerator)
            shard(self.average.requires_grad_(False), accelerator)
        else:
            self.average.to(accelerator.device)
        groups = parameter_groups(model, train.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)
        shard_loading(optimizer)
        split = train.sharding  # then it is on its device already, and takes no DDP around it
        self.model = accelerator.prepare_model(model, device_placement=not split, evaluation_mode=split)
        self.optimizer = accelerator.prepare(optimizer)
        names, held_out = info.items("train"), info.items("val")
        structured = [name for name in names if name in info.foreground]
        self.stream = TrainingStream(cases, names, seed=train.seed, augment=config.data.augment, foreground=structured)
        validated = [name for name in held_out if name in info.foreground] or held_out
        self.validator = Validator(config, cases, validated, accelerator)
        self.objective = objective_of(config, accelerator.device)
        self.progress, self.means = Progress(), RunningMeans()

    @property
    def average(self) -> DiffusionModel:
        """The network with averaged weights, which is what samples."""
        return cast(DiffusionModel, self.ema.module)

    def _averaged(self) -> int:
        """Count how often weights were averaged before; known without asking the device."""
        return self.progress.step - self.progress.skipped - 1

    def resume(self) -> None:
        """Go back to the checkpoint of the run."""
        model = self.accelerator.unwrap_model(self.model)
        optimizer = self.optimizer.optimizer
        self.progress, count = load_state(self.run.state, model=model, average=self.average, optimizer=optimizer)
        self.ema.n_averaged.fill_(count)
        if self.progress.settled_for != self.config.train.max_minutes:
            self.progress.settled = 0
        if self.progress.settled:
            self._go_by(self.progress.settled)

    def begin_with(self, folder: Path) -> None:
        """Take the weights of another run; the optimizer starts anew."""
        load_weights(folder / BEST, self.accelerator.unwrap_model(self.model))
        load_weights(folder / BEST, self.average)

    def fit(self) -> Outcome:
        """Train until the last step, until validation gets no better, or until asked to stop."""
        train, progress = self.config.train, self.progress
        if progress.step >= train.max_steps and not self._validation_due():
            return self._outcome("finished already")
        if self.accelerator.is_main_process:
            self.run.start_log(up_to=progress.step)
        stop = None if self._pace() else train.max_steps
        monitor = Monitor(self.run, self.accelerator, start=progress.step, stop=stop, console=self.console)
        with monitor, stop_signals() as asked:
            if progress.step and self._validation_due():  # it was interrupted before it could
                self._validate(monitor)
            if reason := self._reason_to_stop():
                return self._outcome(reason)
            for _ in self._steps(monitor):
                self._log(monitor)
                reason = self._asked_to_stop(asked)
                if reason or self._validation_due() or progress.step % train.save_every == 0:
                    self._save()  # before a validation too, which may take longer than a launcher waits
                if not reason and self._validation_due():
                    self._validate(monitor)
                if reason := reason or self._reason_to_stop():
                    return self._outcome(reason)
        return self._outcome("finished")

    def _steps(self, monitor: Monitor) -> Iterator[None]:
        """Make optimizer steps, one after the other."""
        train, world = self.config.train, self.accelerator.num_processes
        loader = training_loader(
            self.stream,
            train,
            start=self.progress.position,
            num_batches=(train.max_steps - self.progress.step) * train.accumulate * world,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.model.train()
        self._set_learning_rate()
        pace, since = self._pace(), time.monotonic()
        for loaded in self.accelerator.prepare(loader):
            with self.accelerator.accumulate(self.model):
                losses = self.objective(self.model, as_batch(loaded))
                self.accelerator.backward(losses.total)
                self.means.add(**losses.parts())
                self.progress.position += train.batch_size * world
                monitor.count(train.batch_size * world)
                if self.accelerator.sync_gradients:
                    self._update()
                    self._settle(pace, time.monotonic() - since, monitor)
                    yield
                    since = time.monotonic()  # what is done between steps is not training time

    def _pace(self) -> Pace | None:
        """Measure steps if there is a time for them, and no number yet."""
        minutes, done = self.config.train.max_minutes, self.progress.step
        return None if minutes is None or self.progress.settled else Pace(60 * minutes, done=done)

    def _settle(self, pace: Pace | None, seconds: float, monitor: Monitor) -> None:
        """Settle the number of steps as soon as their pace is known; all processes on the same."""
        if pace is None or self.progress.settled:
            return
        mean = self.accelerator.reduce(torch.tensor(seconds, device=self.accelerator.device), "mean")
        if (fitting := pace.add(float(mean))) is not None:
            total = min(fitting, self.config.train.max_steps)
            self.progress.settled, self.progress.settled_for = total, self.config.train.max_minutes
            self._go_by(total)
            monitor.settled(self.progress.step, total, pace.step_seconds)

    def _go_by(self, total: int) -> None:
        """Train for so many steps: the learning rate ends with them."""
        train = self.config.train.model_copy(update={"max_steps": total})
        self.config = self.config.model_copy(update={"train": train})
        self._set_learning_rate()

    def _update(self) -> None:
        """Step the optimizer and the average; skip the step if the gradient is not finite."""
        progress, train = self.progress, self.config.train
        limit = math.inf if train.max_grad_norm is None else train.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), limit)
        progress.step += 1
        if math.isfinite(float(whole(norm))):
            self.optimizer.step()
            self.ema.update_parameters(self.accelerator.unwrap_model(self.model))
            progress.skipped_in_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_row += 1
        self.optimizer.zero_grad()
        self._set_learning_rate()
        if progress.skipped_in_row >= train.max_nonfinite:
            raise TrainingError(self._not_finite())

    def _not_finite(self) -> str:
        last = f" The last checkpoint is {self.run.state}." if self.run.state.exists() else ""
        return (
            f"Loss or gradient was not finite in {self.progress.skipped_in_row} steps in a row, up to step "
            f"{self.progress.step}; the weights have not changed since. Lower train.learning_rate or set "
            f"train.precision=fp32, check the data with 'medsegdiff data check', and start again.{last}"
        )

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress.step, self.config.train)

    def _log(self, monitor: Monitor) -> None:
        step, train = self.progress.step, self.config.train
        if step % LOG_EVERY == 0 or step == train.max_steps:
            means = self.means.take(lambda values: self.accelerator.reduce(values, "mean"))
            monitor.step(step, means | {"lr": learning_rate(step, train), "skipped": self.progress.skipped})

    def _validation_due(self) -> bool:
        """Tell whether to validate now: every so many steps, and at the end."""
        step, train = self.progress.step, self.config.train
        return self.progress.validated != step and (step % train.val_every == 0 or step == train.max_steps)

    def _validate(self, monitor: Monitor) -> None:
        """Draw samples, score them, keep the weights if they are the best so far, and save."""
        step, progress = self.progress.step, self.progress
        progress.validated = step
        numbers = self.validator(self.average, self.run.pictures(step))
        reshard(self.average)
        best = numbers["dice"] > progress.best_dice
        progress.worse_validations = 0 if best else progress.worse_validations + 1
        if best:
            progress.best_dice, progress.best_step = numbers["dice"], step
            weights = gather(self.average.state_dict(), keep=self.accelerator.is_main_process)
            if weights:
                self._save_weights(BEST, weights, dice=numbers["dice"])
        monitor.validated(step, numbers, best=best)
        self._save()
        self.model.train()

    def _asked_to_stop(self, asked: StopRequest) -> str:
        """Find out, in all processes alike, whether somebody asked to stop."""
        if self.accelerator.num_processes > 1:
            if asked.made:
                self.accelerator.set_trigger()
            asked.made = self.accelerator.check_trigger()
        return "interrupted" if asked.made else ""

    def _reason_to_stop(self) -> str:
        """Say why to stop after this step; empty to go on."""
        train, progress = self.config.train, self.progress
        if progress.step >= train.max_steps:
            return "finished"
        return "stopped early" if train.patience and progress.worse_validations >= train.patience else ""

    def _save(self) -> None:
        """Save a checkpoint; the main process writes, the others give what they have a share of."""
        main, model = self.accelerator.is_main_process, self.accelerator.unwrap_model(self.model)
        tensors = tensors_of(model=model, average=self.average, optimizer=self.optimizer.optimizer)
        saved = gather(tensors, keep=main)
        if main:
            save_state(self.run.state, saved, num_averaged=int(self.ema.n_averaged), progress=self.progress)
            average = part_of(saved, "average.")
            self._save_weights(LAST, average)
            if self.progress.best_step == 0:  # nothing is known of any weights: the newest will do
                self._save_weights(BEST, average)

    def _save_weights(self, file: str, weights: dict[str, Tensor], **facts: float) -> None:
        save_weights(self.run.folder / file, weights, {"step": self.progress.step, **facts})

    def _outcome(self, reason: str) -> Outcome:
        p = self.progress
        return Outcome(self.run.folder, p.step, p.best_dice, p.best_step, p.skipped, reason)
