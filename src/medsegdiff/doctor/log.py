"""How training went: steps, loss, validation, the fused mask against the anchor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.doctor.report import Finding
from medsegdiff.errors import CheckpointError
from medsegdiff.models.base import MODELS
from medsegdiff.models.checkpoint import BEST, LAST, facts_of
from medsegdiff.training.run import Run

LOGGED = 5
"""Lines of the log at either end whose median loss is compared."""
FALLEN = 0.9
"""Part of the first loss above which the last one has not fallen."""
NOTHING, LITTLE = 0.05, 0.5
"""Validation Dice below which a model has learned nothing, and little."""
LOSES = 0.01
"""Dice by which the fused mask may be worse than the anchor."""

_training = partial(Finding, "training")


def examine_log(run: Run, config: ResolvedConfig) -> list[Finding]:
    """Examine how training went."""
    lines = run.lines()
    losses = [line for line in lines if "loss" in line]
    validations = [line for line in lines if line.get("dice") is not None]
    progress = _progress(run)
    step = progress.get("step", max((line["step"] for line in lines), default=None))
    facts = MODELS[config.model.name].facts
    compared = facts.has_anchor and facts.kind != "deterministic"
    return [
        _end(step, progress, config),
        _loss(losses),
        _skipped(losses, progress),
        *_validated(validations, compared=compared),
    ]


def _progress(run: Run) -> dict[str, Any]:
    """Find out how far training came: from the checkpoint, else from the last weights."""
    for file in (run.state, run.folder / LAST, run.folder / BEST):
        try:
            facts = facts_of(file)
        except CheckpointError:
            continue
        if found := dict(facts.get("progress", facts)):
            return found
    return {}


def _end(step: int | None, progress: dict[str, Any], config: ResolvedConfig) -> Finding:
    train, worse = config.train, int(progress.get("worse_validations", 0))
    if step is None:
        found = "Nothing tells how long it was trained: no log, no step beside the weights."
        return _training("end", "to look at", found, "Restore log.jsonl, if there was one.")
    most = int(progress.get("settled", 0)) or train.max_steps
    done, numbers = f"{step} of {most} steps", {"step": step, "max_steps": most}
    if step >= most:
        return _training("end", "good", f"Finished: {done}.", numbers=numbers)
    if step == 0:
        return _training("end", "wrong", f"Never trained: {done}.", "Train it.", numbers)
    if train.patience and worse >= train.patience:
        found = f"Stopped early at {done}: {worse} validations without a better Dice."
        return _training("end", "good", found, numbers=numbers)
    advice = "Go on with 'medsegdiff train DATA --out RUN --resume'."
    return _training("end", "to look at", f"Interrupted, or still training: {done}.", advice, numbers)


def _loss(lines: Sequence[dict[str, Any]]) -> Finding:
    values = [line["loss"] for line in lines]
    if not values:
        return _training("loss", "skipped", "The log holds no loss.")
    if any(value is None for value in values[-LOGGED:]):
        advice = "Lower train.learning_rate, set train.precision=fp32, check the data with 'medsegdiff data check'."
        return _training("loss", "wrong", "The loss is not finite.", advice)
    known = [value for value in values if value is not None]
    size = min(LOGGED, len(known) // 2)
    if not size:
        return _training("loss", "skipped", f"The log holds one loss, {known[0]:.3f}.")
    first, last = float(np.median(known[:size])), float(np.median(known[-size:]))
    numbers = {"first": first, "last": last}
    if last > FALLEN * first:
        found, advice = (
            f"The loss did not fall: {first:.3f} → {last:.3f}.",
            "Train longer, or look at the data and train.learning_rate.",
        )
        return _training("loss", "to look at", found, advice, numbers)
    return _training("loss", "good", f"Finite; it fell from {first:.3f} to {last:.3f}.", numbers=numbers)


def _skipped(lines: Sequence[dict[str, Any]], progress: dict[str, Any]) -> Finding:
    if not lines and not progress:
        return _training("skipped steps", "skipped", "The log holds no steps.")
    last = lines[-1] if lines else {}
    skipped, steps = (int(progress.get(key, last.get(key, least))) for key, least in (("skipped", 0), ("step", 1)))
    found, numbers = (
        f"{skipped} of {max(1, steps)} steps were skipped for a loss or gradient that was not finite.",
        {"skipped": skipped},
    )
    if skipped > 0.01 * max(1, steps):
        advice = "Lower train.learning_rate, or set train.precision=fp32."
        return _training("skipped steps", "to look at", found, advice, numbers)
    return _training("skipped steps", "good", found, numbers=numbers)


def _validated(lines: Sequence[dict[str, Any]], *, compared: bool) -> list[Finding]:
    """Judge the best validation; there the fused mask is compared with the anchor, if there are both."""
    if not lines:
        advice = "Train until the first validation (train.val_every)."
        return [_training("validation", "to look at", "There was no validation yet.", advice)]
    best = max(lines, key=lambda line: line["dice"])
    found = f"Best Dice {best['dice']:.3f} at step {best['step']}, the last {lines[-1]['dice']:.3f}."
    numbers = {"dice": best["dice"], "step": best["step"], "last": lines[-1]["dice"]}
    advice = "Look at the pictures in validation/, at 'medsegdiff data check', and train longer."
    if best["dice"] < NOTHING:
        return [_training("validation", "wrong", f"{found} It has learned nothing.", advice, numbers)]
    against = _against_anchor(best) if compared else []
    if best["dice"] < LITTLE:
        return [_training("validation", "to look at", found, advice, numbers), *against]
    return [_training("validation", "good", found, numbers=numbers), *against]


def _against_anchor(best: dict[str, Any]) -> list[Finding]:
    if best.get("dice_anchor") is None:
        return []
    gain = best["dice"] - best["dice_anchor"]
    how = "beats" if gain > 0 else "loses to"
    found = f"The fused mask {how} the anchor ({best['dice_anchor']:.3f}) by {abs(gain):.3f}."
    numbers = {"gain": gain, "anchor": best["dice_anchor"]}
    if gain < -LOSES:
        advice = "The Diffusion Model lags behind: train longer. Until then anchor/ holds the better masks."
        return [_training("fused against anchor", "to look at", found, advice, numbers)]
    return [_training("fused against anchor", "good", found, numbers=numbers)]
