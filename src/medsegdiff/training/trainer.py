"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from medsegdiff.checkpoint import BEST, LAST, build_model, save_weights
from medsegdiff.config import Config
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.loader import PreparedCases, TrainingStream, as_batch, training_loader
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.errors import TrainingError
from medsegdiff.training.monitor import Monitor
from medsegdiff.training.objective import training_losses
from medsegdiff.training.optimisation import learning_rate, moving_average
from medsegdiff.training.run import Run
from medsegdiff.training.state import Progress, load_state, save_state
from medsegdiff.training.stop import StopRequest, stop_signals
from medsegdiff.training.validation import Validator, averaged

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
    """``finished``, ``stopped early`` or ``interrupted``."""


class Trainer:
    """Trains one model on one data set, from the first step or from a checkpoint."""

    def __init__(
        self, config: Config, info: DataInfo, cases: PreparedCases, run: Run, accelerator: Accelerator, console: Console
    ) -> None:
        train, diffusion = config.train, config.diffusion
        torch.manual_seed(train.seed)
        self.config, self.run, self.accelerator, self.console = config, run, accelerator, console
        model = build_model(config)
        self.ema = AveragedModel(model, multi_avg_fn=moving_average(train.ema_decay)).to(accelerator.device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.stream = TrainingStream(cases, info.names("train"), seed=train.seed, augment=config.data.augment)
        self.validator = Validator(config, cases, info.names("val"), accelerator)
        self.schedule = make_schedule(
            diffusion.schedule,
            num_train_timesteps=diffusion.num_train_timesteps,
            signal_scale=diffusion.signal_scale,
            zero_terminal_snr=diffusion.zero_terminal_snr,
        )
        self.progress = Progress()

    def resume(self) -> None:
        """Go back to the newest checkpoint of the run."""
        self.progress = load_state(self.accelerator, self.run.state, self.ema)

    def fit(self) -> Outcome:
        """Train until the last step, until validation gets no better, or until asked to stop.

        Returns:
            How it ended.

        Raises:
            TrainingError: If the loss stays non-finite.
        """
        train, progress = self.config.train, self.progress
        if self.accelerator.is_main_process:
            self.run.start_log(up_to=progress.step)
        monitor = Monitor(self.run, self.accelerator, start=progress.step, stop=train.max_steps, console=self.console)
        with monitor, stop_signals() as asked:
            for numbers in self._steps():
                monitor.count(train.batch_size * train.accumulate * self.accelerator.num_processes)
                self._after_step(monitor, numbers)
                reason = self._reason_to_stop(asked)
                if reason or progress.step % train.save_every == 0:
                    self._save()
                if reason:
                    return self._outcome(reason)
        return self._outcome("finished")

    def _steps(self) -> Iterator[dict[str, Tensor]]:
        """Make optimizer steps, one after the other, and tell of each."""
        train, world = self.config.train, self.accelerator.num_processes
        per_step = train.accumulate * world
        loader = self.accelerator.prepare(
            training_loader(
                self.stream,
                train,
                first_batch=self.progress.step * per_step,
                last_batch=train.max_steps * per_step,
            )
        )
        self.model.train()
        self._set_learning_rate()
        for loaded in loader:
            with self.accelerator.accumulate(self.model):
                losses = training_losses(self.model, as_batch(loaded), self.schedule, self.config)
                self.accelerator.backward(losses.total)
                if not self.accelerator.sync_gradients:
                    continue
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), train.max_grad_norm)
                self._update(torch.as_tensor(norm))
            yield {
                "loss": losses.total.detach(),
                "loss_noise": losses.noise,
                "loss_anchor": losses.anchor,
                "grad_norm": torch.as_tensor(norm),
            }

    def _update(self, norm: Tensor) -> None:
        """Step the optimizer and the average; skip the step if the gradient is not finite."""
        progress, train = self.progress, self.config.train
        progress.step += 1
        if math.isfinite(float(norm)):
            self.optimizer.step()
            self.ema.update_parameters(self.accelerator.unwrap_model(self.model))
            progress.skipped_in_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_row += 1
        self.optimizer.zero_grad()
        self._set_learning_rate()
        if progress.skipped_in_row >= train.max_nonfinite:
            raise TrainingError(
                f"Loss or gradient was not finite in {progress.skipped_in_row} steps in a row, up to step "
                f"{progress.step}; the weights have not changed since. Lower train.learning_rate or set "
                f"train.precision=fp32, check the data with 'medsegdiff data check', and start again; "
                f"the last checkpoint is in {self.run.state}."
            )

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress.step, self.config.train)

    def _after_step(self, monitor: Monitor, numbers: dict[str, Tensor]) -> None:
        """Log and validate when it is time."""
        step, train = self.progress.step, self.config.train
        if step % LOG_EVERY == 0 or step == train.max_steps:
            rate = self.optimizer.param_groups[0]["lr"]
            monitor.step(
                step, {k: float(v) for k, v in numbers.items()} | {"lr": rate, "skipped": self.progress.skipped}
            )
        if step % train.val_every == 0 or step == train.max_steps:
            self._validate(monitor)

    def _validate(self, monitor: Monitor) -> None:
        step, progress = self.progress.step, self.progress
        numbers = self.validator(averaged(self.ema.module), self.run.pictures(step))
        best = numbers["dice"] > progress.best_dice
        progress.worse_validations = 0 if best else progress.worse_validations + 1
        if best:
            progress.best_dice, progress.best_step = numbers["dice"], step
            self._save_weights(BEST, dice=numbers["dice"])
        monitor.validated(step, numbers, best=best)
        self.model.train()

    def _reason_to_stop(self, asked: StopRequest) -> str:
        """Say why to stop now, in all processes alike; empty to go on."""
        if self.accelerator.num_processes > 1:
            if asked.made:
                self.accelerator.set_trigger()
            asked.made = self.accelerator.check_trigger()
        patience = self.config.train.patience
        if asked.made:
            return "interrupted"
        if self.progress.step >= self.config.train.max_steps:
            return "finished"
        return "stopped early" if patience and self.progress.worse_validations >= patience else ""

    def _save(self) -> None:
        save_state(self.accelerator, self.run.state, self.ema, self.progress)
        self._save_weights(LAST)
        if not (self.run.folder / BEST).exists():
            self._save_weights(BEST)

    def _save_weights(self, file: str, **facts: float) -> None:
        if self.accelerator.is_main_process:
            save_weights(self.run.folder / file, self.ema.module.state_dict(), {"step": self.progress.step, **facts})

    def _outcome(self, reason: str) -> Outcome:
        p = self.progress
        return Outcome(self.run.folder, p.step, p.best_dice, p.best_step, p.skipped, reason)
