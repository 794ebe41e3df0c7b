"""The weights of a run: readable, finite, averaged, trained at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.doctor.report import Finding
from medsegdiff.errors import CheckpointError
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import BEST, LAST, Weights, facts_of, load_weights
from medsegdiff.training.run import Run

BARELY = 0.01
"""Relative change of the weights below which a model has hardly been trained."""
FAR = 0.3
"""Relative distance of averaged and raw weights above which the average lags behind."""

_weights = partial(Finding, "weights")


def examine_weights(run: Run, config: ResolvedConfig, weights: Weights) -> tuple[list[Finding], DiffusionModel | None]:
    """Examine the files with weights, and those that ``segment`` uses more closely; give the network they make."""
    file, other = (run.folder / name for name in ((BEST, LAST) if weights == "best" else (LAST, BEST)))
    found = [_other(other), _state(run)]
    model = _initial(config)
    begun = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        load_weights(file, model)
        facts = facts_of(file)
    except CheckpointError as error:
        advice = "Use --weights last, or restore the file." if weights == "best" else "Restore the file, or resume."
        return [_weights("file", "wrong", str(error), advice), *found], None
    state = model.state_dict()
    used = _weights("file", "good", f"{file.name} ({_told(facts)}) is whole; 'segment' uses it.", numbers=facts)
    return [used, *found, _finite(state), _moved(begun, state, facts), _average(run, config)], model.eval()


def _initial(config: ResolvedConfig) -> DiffusionModel:
    """Build the network as training began with it: the seed of training gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return build_model(config)


def _told(facts: Mapping[str, Any]) -> str:
    step = f"step {facts['step']}" if "step" in facts else "step unknown"
    return f"{step}, validation Dice {facts['dice']:.3f}" if isinstance(facts.get("dice"), float) else step


def _other(file: Path) -> Finding:
    if not file.is_file():
        return _weights(file.name, "to look at", f"There is no {file.name}.", "Nothing, if you removed it.")
    try:
        return _weights(file.name, "good", f"Whole ({_told(facts_of(file))}).")
    except CheckpointError as error:
        return _weights(file.name, "wrong", str(error), "Resume the run, which writes it anew.")


def _state(run: Run) -> Finding:
    name = run.state.name
    if run.imported:
        advice = "'medsegdiff train DATA --out RUN --resume' begins at step 0, with these weights."
        return _weights(name, "to look at", "Imported, and not trained on yet.", advice)
    if not run.state.is_file():
        return _weights(name, "to look at", "There is no checkpoint.", "The run can't be resumed.")
    try:
        progress = facts_of(run.state).get("progress", {})
    except CheckpointError as error:
        return _weights(name, "wrong", str(error), "The run can't be resumed; segmenting does not need this file.")
    return _weights(name, "good", "Whole; the run can be resumed.", numbers=progress)


def _finite(state: Mapping[str, Tensor]) -> Finding:
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        found = f"{len(bad)} of {len(state)} tensors hold values that are not finite, e.g. {bad[0]}."
        return _weights("values", "wrong", found, "Train anew with a lower train.learning_rate, or in fp32.")
    return _weights("values", "good", f"All {len(state)} tensors are finite.")


def _moved(begun: Mapping[str, Tensor], state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Finding:
    """Compare with the weights that training began with.

    Weights drawn by another version of PyTorch may differ from the start; those that begin at zero do not, and any
    step moves them.
    """
    zeros = [name for name, value in begun.items() if value.ndim > 1 and not value.any()]
    still = [name for name in zeros if not state[name].any()]
    moved = _distance(begun, state)
    numbers = {"moved": moved, "begin_at_zero": len(zeros), "still_zero": len(still), "step": facts.get("step")}
    change = f"The weights have moved by {moved:.2%} of their length"
    advice = "Train the run, and look at its validation Dice; 'medsegdiff train --resume' goes on."
    if moved < 1e-6 or (zeros and len(still) == len(zeros)) or facts.get("step") == 0:
        found = f"The model is untrained: {len(still)} of {len(zeros)} layers that begin at zero are still zero."
        return _weights("trained", "wrong", found, advice, numbers)
    if moved < BARELY:
        return _weights("trained", "to look at", f"{change}: the model is hardly trained.", advice, numbers)
    return _weights("trained", "good", f"{change} since training began.", numbers=numbers)


def _distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Measure how far weights ``b`` are from ``a``, in units of the length of ``a``."""
    pairs = [(a[name].double(), b[name].double()) for name in a if a[name].is_floating_point()]
    length = sum(float(old.square().sum()) for old, _ in pairs)
    return math.sqrt(sum(float((new - old).square().sum()) for old, new in pairs) / max(length, 1e-30))


def _average(run: Run, config: ResolvedConfig) -> Finding:
    """Compare the averaged weights, which sample, with the raw ones, both as the checkpoint has them."""
    try:
        with safe_open(run.state, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no mapping)
            count = int((stored.metadata() or {}).get("averaged", 0))
    except (OSError, SafetensorError, ValueError):
        return _weights("average", "skipped", "Without a checkpoint there are no raw weights to compare with.")
    raw, average = (
        {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
        for part in ("model.", "average.")
    )
    apart, decay = _distance(raw, average), config.train.ema_decay
    what, numbers = (
        f"'segment' uses averaged weights (EMA {decay:g}, {count} updates)",
        {"distance": apart, "averaged": count, "decay": decay},
    )
    if apart == 0 and decay and count != 1:
        found = f"{what}; they equal the raw ones exactly: nothing was averaged."
        return _weights("average", "to look at", found, "Check train.ema_decay.", numbers)
    if apart > FAR:
        found = f"{what}; they lag {apart:.1%} behind the raw ones."
        return _weights("average", "to look at", found, "Train longer, or lower train.ema_decay.", numbers)
    return _weights("average", "good", f"{what}; the raw ones differ by {apart:.2%}.", numbers=numbers)
