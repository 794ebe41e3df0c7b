"""The weights of a run: readable, finite, averaged, trained at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medsegdiff.checkpoint import BEST, LAST, Weights, load_weights
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.doctor.finding import Finding, Verdict
from medsegdiff.errors import CheckpointError
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.training.run import Run

BARELY = 0.01
"""Relative change of the weights below which a model has hardly been trained."""
FAR = 0.3
"""Relative distance of averaged and raw weights above which the average lags behind."""


def header_of(file: Path) -> dict[str, Any]:
    """Read the facts that are stored with weights."""
    try:
        with safe_open(file, framework="pt") as stored:
            facts = stored.metadata() or {}
        return {key: json.loads(value) for key, value in facts.items() if key != "format"}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}). The file is damaged or not whole.") from error


def examine_weights(run: Run, config: ResolvedConfig, weights: Weights) -> tuple[list[Finding], DiffusionModel | None]:
    """Examine the files with weights, and those that ``segment`` uses more closely."""
    file, other = (run.folder / name for name in ((BEST, LAST) if weights == "best" else (LAST, BEST)))
    found = [_other(other), _state(run)]
    fresh = initial(config)
    begun = {name: value.clone() for name, value in fresh.state_dict().items()}
    try:
        load_weights(file, fresh)
        facts = header_of(file)
    except CheckpointError as error:
        advice = "Use --weights last, or restore the file." if weights == "best" else "Restore the file, or resume."
        return [Finding("weights", "file", "wrong", str(error), advice), *found], None
    state = fresh.state_dict()
    used = Finding(
        "weights", "file", "good", f"{file.name} ({told(facts)}) is whole; 'segment' uses it.", numbers=facts
    )
    return [used, *found, _finite(state), _moved(begun, state, facts), _average(run, config)], fresh.eval()


def initial(config: ResolvedConfig) -> DiffusionModel:
    """Build the network as training began with it: the seed of training gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return build_model(config)


def told(facts: Mapping[str, Any]) -> str:
    """Say what is stored with weights."""
    step = f"step {facts['step']}" if "step" in facts else "step unknown"
    return f"{step}, validation Dice {facts['dice']:.3f}" if isinstance(facts.get("dice"), float) else step


def _other(file: Path) -> Finding:
    if not file.is_file():
        return Finding("weights", file.name, "to look at", f"There is no {file.name}.", "Nothing, if you removed it.")
    try:
        return Finding("weights", file.name, "good", f"Whole ({told(header_of(file))}).")
    except CheckpointError as error:
        return Finding("weights", file.name, "wrong", str(error), "Resume the run, which writes it anew.")


def _state(run: Run) -> Finding:
    if run.imported:
        advice = "'medsegdiff train DATA --out RUN --resume' begins at step 0, with these weights."
        return Finding("weights", run.state.name, "to look at", "Imported, and not trained on yet.", advice)
    if not run.state.is_file():
        return Finding("weights", run.state.name, "to look at", "There is no checkpoint.", "The run can't be resumed.")
    try:
        progress = header_of(run.state).get("progress", {})
    except CheckpointError as error:
        advice = "The run can't be resumed; segmenting does not need this file."
        return Finding("weights", run.state.name, "wrong", str(error), advice)
    return Finding("weights", run.state.name, "good", "Whole; the run can be resumed.", numbers=progress)


def _finite(state: Mapping[str, Tensor]) -> Finding:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        found = f"{len(bad)} of {len(state)} tensors hold values that are not finite, e.g. {bad[0]}."
        return Finding("weights", "values", "wrong", found, "Train anew with a lower train.learning_rate, or in fp32.")
    return Finding("weights", "values", "good", f"All {len(state)} tensors are finite.")


def _moved(begun: Mapping[str, Tensor], state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Finding:
    """Compare with the weights that training began with.

    Weights drawn by another version of PyTorch may differ from the start; those that begin at zero do not, and any
    step moves them.
    """
    zeros = [name for name, value in begun.items() if value.ndim > 1 and not value.any()]
    still = [name for name in zeros if not state[name].any()]
    moved = distance(begun, state)
    numbers = {"moved": moved, "begin_at_zero": len(zeros), "still_zero": len(still), "step": facts.get("step")}
    change = f"The weights have moved by {moved:.2%} of their length"
    advice = "Train the run, and look at its validation Dice; 'medsegdiff train --resume' goes on."
    if moved < 1e-6 or (zeros and len(still) == len(zeros)) or facts.get("step") == 0:
        found = f"The model is untrained: {len(still)} of {len(zeros)} layers that begin at zero are still zero."
        return Finding("weights", "trained", "wrong", found, advice, numbers)
    if moved < BARELY:
        return Finding("weights", "trained", "to look at", f"{change}: the model is hardly trained.", advice, numbers)
    return Finding("weights", "trained", "good", f"{change} since training began.", numbers=numbers)


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Measure how far weights are from others, in units of the length of the others."""
    pairs = [(a[name].double(), b[name].double()) for name in a if a[name].is_floating_point()]
    length = sum(float(old.square().sum()) for old, _ in pairs)
    return math.sqrt(sum(float((new - old).square().sum()) for old, new in pairs) / max(length, 1e-30))


def _average(run: Run, config: ResolvedConfig) -> Finding:
    """Compare the averaged weights, which sample, with the raw ones, both as the checkpoint has them."""
    try:
        raw, average, count = _both(run.state)
    except CheckpointError:
        return Finding(
            "weights", "average", "skipped", "Without a checkpoint there are no raw weights to compare with."
        )
    apart = distance(raw, average)
    numbers = {"distance": apart, "averaged": count, "decay": config.train.ema_decay}
    what = f"'segment' uses averaged weights (EMA {config.train.ema_decay:g}, {count} updates)"
    verdict, found, advice = _judged(apart, count, config)
    return Finding("weights", "average", verdict, f"{what}; {found}", advice, numbers)


def _judged(apart: float, count: int, config: ResolvedConfig) -> tuple[Verdict, str, str]:
    if apart == 0 and config.train.ema_decay and count != 1:
        return "to look at", "they equal the raw ones exactly: nothing was averaged.", "Check train.ema_decay."
    if apart > FAR:
        return "to look at", f"they lag {apart:.1%} behind the raw ones.", "Train longer, or lower train.ema_decay."
    return "good", f"the raw ones differ by {apart:.2%}.", ""


def _both(file: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Read raw and averaged weights of a checkpoint."""
    try:
        with safe_open(file, framework="pt") as stored:
            names = list(stored.keys())
            raw, average = (
                {name.removeprefix(part): stored.get_tensor(name) for name in names if name.startswith(part)}
                for part in ("model.", "average.")
            )
            return raw, average, int((stored.metadata() or {}).get("averaged", 0))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: can't be read ({error}).") from error
