"""The training loop: step, log, save, validate, stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.loader import PreparedCases, TrainingStream, UnlabelledStream, as_batch, training_loader
from medsegdiff.errors import TrainingError
from medsegdiff.inference.calibration import FILE as CALIBRATION
from medsegdiff.models.checkpoint import BEST, LAST, load_weights, save_weights, snapshot_file
from medsegdiff.training.run import Run
from medsegdiff.training.state import gather, load_state, part_of, reshard, save_progress, save_state, tensors_of
from medsegdiff.training.step import RunningMeans, TrainingStep, snapshot_steps
from medsegdiff.training.step_budget import StepBudget, StopRequest, asked_anywhere, stop_signals
from medsegdiff.training.validation import Monitor, Validator

log = logging.getLogger(__name__)

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
        budget: StepBudget,
        unlabelled: UnlabelledStream | None = None,
    ) -> None:
        self.config, self.run, self.accelerator, self.console, self.budget = config, run, accelerator, console, budget
        self.step = TrainingStep(config, accelerator, budget)
        self.progress, self.means = budget.progress, RunningMeans()
        names, held_out = info.items("train"), info.items("val")
        structured = [name for name in names if name in info.foreground]
        self.stream = TrainingStream(
            cases,
            names,
            seed=config.train.seed,
            augment=config.data.augment,
            foreground=structured,
            raters=len(info.raters) if config.train.score_members else min(config.train.draws, len(info.raters)),
            orientation=config.spec.orientation,
            unlabelled=unlabelled,
        )
        validated = [name for name in held_out if name in info.foreground] or held_out
        self.validator = Validator(config, cases, validated, accelerator)

    def resume(self) -> None:
        """Go back to the checkpoint of the run."""
        step = self.step
        self.progress.restore(load_state(self.run.state, networks=step.networks, optimizers=step.optimizers))
        if step.scaler is not None and self.progress.loss_scale:
            step.scaler.load_state_dict(self.progress.loss_scale)

    def begin_with(self, folder: Path) -> None:
        """Take the weights of another run; the optimizer is new."""
        for model in (self.step.network, *self.step.averages):
            load_weights(folder / BEST, model)

    def begin_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights of a part of the network, such as an encoder, that others have trained."""
        for model in (self.step.network, *self.step.averages):
            model.load_state_dict(weights, strict=False)

    def fit(self) -> Outcome:
        """Train until the last step, until validation gets no better, or until asked to stop."""
        progress = self.progress
        if progress.step >= self.budget.total and not self._validation_due():
            return self._outcome("finished already")
        if self.accelerator.is_main_process:
            self.run.start_log(up_to=progress.step, validated=progress.validated)
        stop = None if self.budget.open else self.budget.total
        monitor = Monitor(self.run, self.accelerator, start=progress.step, stop=stop, console=self.console)
        with monitor, stop_signals() as asked:
            if progress.step and self._validation_due():  # it was interrupted before it could
                self._save()  # perhaps amid saving, when only the state was there
                self._validate(monitor)
            if reason := self._reason_to_stop():
                return self._outcome(reason)
            if not self.budget.open:
                self._begin(monitor)
            for _ in self._steps(monitor):
                self._log(monitor)
                self._keep_snapshot()
                reason = self._asked_to_stop(asked)
                if reason or self._validation_due() or progress.step % self.config.train.save_every == 0:
                    self._save()  # before a validation too, which may take longer than a launcher waits
                if not reason and self._validation_due():
                    self._validate(monitor)
                if reason := reason or self._reason_to_stop():
                    return self._outcome(reason)
        return self._outcome("finished")

    def _steps(self, monitor: Monitor) -> Iterator[None]:
        """Make steps, one after the other, each of as many batches as it takes."""
        train, world = self.config.train, self.accelerator.num_processes
        loader = training_loader(
            self.stream,
            train,
            start=self.progress.position,
            num_batches=(self.budget.total - self.progress.step) * train.accumulate * world,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.budget.start()
        for loaded in self.accelerator.prepare(loader):
            self.means.add(**self.step(as_batch(loaded)).parts())
            monitor.count(train.batch_size * world)
            if self.accelerator.sync_gradients:
                if self.budget.asks(self.accelerator.device):
                    self.step.count_skipped()
                    self._check_finite()
                self._settle(monitor)
                yield
                self.budget.start()

    def _settle(self, monitor: Monitor) -> None:
        """Settle the number of steps as soon as their pace is known; all processes on the same."""
        if not self.budget.open:
            return
        seconds = torch.tensor(self.budget.elapsed(), device=self.accelerator.device)
        if self.budget.spend(float(self.accelerator.reduce(seconds, "mean"))):
            monitor.settled(self.progress.step, self.budget.total, self.budget.step_seconds)
            self._begin(monitor)

    def _begin(self, monitor: Monitor) -> None:
        """Say what follows from the number of steps, which is known by now."""
        monitor.begun(self.progress.step, alone_until=self.budget.alone_until)
        asked, total = self.config.train.snapshots, self.budget.total
        if (kept := len(snapshot_steps(asked, total))) < asked and self.accelerator.is_main_process:
            log.warning(
                "train.snapshots is %d; in %d steps the learning rate is held for %d, which makes so many. "
                "Train longer, or take fewer.",
                asked,
                total,
                kept,
            )

    def _check_finite(self) -> None:
        """Give up where nothing has been finite for a while."""
        if self.progress.skipped_in_row < self.config.train.max_nonfinite:
            return
        last = f" The last checkpoint is {self.run.state}." if self.run.state.exists() else ""
        raise TrainingError(
            f"Loss or gradient was not finite in {self.progress.skipped_in_row} steps in a row, up to step "
            f"{self.progress.step}; the weights have not changed since. Lower train.learning_rate or set "
            f"train.precision=fp32, check the data with 'medsegdiff data check', and start again.{last}"
        )

    def _log(self, monitor: Monitor) -> None:
        step = self.progress.step
        if step % LOG_EVERY == 0 or step == self.budget.total:
            means = self.means.take(lambda values: self.accelerator.reduce(values, "mean"))
            monitor.step(step, means | {"lr": self.step.learning_rate, "skipped": self.progress.skipped})

    def _validation_due(self) -> bool:
        """Tell whether to validate now: every so many steps, and at the end; not before the Diffusion Model learns."""
        step, every = self.progress.step, self.config.train.val_every
        due = step == self.budget.total or (step % every == 0 and step > self.budget.alone_until)
        return due and self.progress.validated != step

    def _validate(self, monitor: Monitor) -> None:
        """Draw samples, score them, keep the weights if none before were better, and save."""
        step, progress, average = self.progress.step, self.progress, self.step.average
        progress.validated = step
        numbers = self.validator(average, self.run.pictures(step))
        reshard(average)
        by_case, dice = self.validator.by_case, numbers["dice"]
        best = as_good(by_case, progress.top_by_case, gain=dice - progress.top_dice)
        progress.worse_validations += 1
        if dice > progress.top_dice:
            progress.top_dice, progress.top_by_case, progress.worse_validations = dice, by_case, 0
        if best:
            progress.best_dice, progress.best_step = numbers["dice"], step
            weights = gather(average.state_dict(), keep=self.accelerator.is_main_process)
            if weights:
                self._save_weights(BEST, weights, dice=numbers["dice"])
                (self.run.folder / CALIBRATION).unlink(missing_ok=True)  # it was that of other weights
        monitor.validated(step, numbers, best=best)
        if self.accelerator.is_main_process:
            save_progress(self.run.state, progress)  # weights and moments are those saved before

    def _asked_to_stop(self, asked: StopRequest) -> str:
        """Find out, in all processes alike, whether somebody asked to stop."""
        if self.accelerator.num_processes > 1 and not self.budget.asks(self.accelerator.device):
            return ""
        return "interrupted" if asked_anywhere(asked, self.accelerator) else ""

    def _reason_to_stop(self) -> str:
        """Say why to stop after this step; empty to go on."""
        patience, progress = self.config.train.patience, self.progress
        if progress.step >= self.budget.total:
            return "finished"
        return "stopped early" if patience and progress.worse_validations >= patience else ""

    def _save(self) -> None:
        """Save a checkpoint; the main process writes, the others give what they have a share of."""
        main, step = self.accelerator.is_main_process, self.step
        step.count_skipped()
        self.progress.loss_scale = {} if step.scaler is None else step.scaler.state_dict()
        saved = gather(tensors_of(networks=step.networks, optimizers=step.optimizers), keep=main)
        if main:
            save_state(self.run.state, saved, progress=self.progress)
            average = part_of(saved, "average.")
            self._save_weights(LAST, average)
            if self.progress.best_step == 0:  # nothing is known of any weights: the newest will do
                self._save_weights(BEST, average)

    def _keep_snapshot(self) -> None:
        """Keep the short average of the weights, at some steps while the learning rate is held."""
        if not self.config.train.snapshots:
            return
        number = snapshot_steps(self.config.train.snapshots, self.budget.total).get(self.progress.step)
        if number is None:
            return
        short = self.step.averages[-1]
        reshard(short)
        weights = gather(short.state_dict(), keep=self.accelerator.is_main_process)
        if weights:
            self._save_weights(snapshot_file(number), weights)

    def _save_weights(self, file: str, weights: dict[str, Tensor], **facts: float) -> None:
        save_weights(self.run.folder / file, weights, {"step": self.progress.step, **facts})

    def _outcome(self, reason: str) -> Outcome:
        p = self.progress
        return Outcome(self.run.folder, p.step, p.best_dice, p.best_step, p.skipped, reason)


def as_good(now: Sequence[float], top: Sequence[float], *, gain: float) -> bool:
    """Tell whether weights are as good as the best before them, by their Dice on the same cases.

    They are unless they lose more than one standard error of the differences: of weights that validation can't tell
    apart the newer have seen more, and at a lower learning rate; the highest of several means is high by chance.
    """
    if gain >= 0 or len(now) != len(top) or len(now) < 2:
        return bool(gain >= 0)
    return bool(-gain <= np.std(np.subtract(now, top), ddof=1) / math.sqrt(len(now)))
