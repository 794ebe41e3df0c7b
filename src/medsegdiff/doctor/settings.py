"""What a run was told and where it is examined: split, classes, normalisation; steps, spacing, noise; versions, device.

Nothing is computed: that a sampler solves what it should is a question of the code, and `tests/oracles` has its answer.
"""

from __future__ import annotations

import csv
import hashlib
import os
import platform
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import SPLITS
from medsegdiff.data.modality import shown_modalities
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import COVERING, FEWEST_REGIONS, table_of
from medsegdiff.doctor.report import Finding
from medsegdiff.errors import DataError
from medsegdiff.hardware import pick_precision
from medsegdiff.training.run import Run

PACKAGES = ("medsegdiff", "torch", "monai", "numpy")
DECIDED = (-2.5, 0.5)
"""λ between which a pixel becomes foreground or background."""
FEWEST = 2
"""Steps that must lie there, so that members come out as often as they should."""

_data, _sampler, _machine = (partial(Finding, group) for group in ("data", "sampler", "machine"))


def examine_data(run: Run, config: ResolvedConfig, record: dict[str, Any]) -> list[Finding]:
    """Examine what ``segment`` and ``evaluate`` rely on."""
    labels, spec = config.spec.labels, config.spec
    classes = (
        f"{labels.task}: {', '.join(labels.classes)}; {spec.channels} image channels, {config.data.image_size} px."
    )
    told = shown_modalities(spec.modalities, spec.window)
    how = "mean 0 and standard deviation 1 by channel of each image or volume"
    normalised = f"{told}." if set(spec.modalities) == {"ct"} else f"{told}: {how}, except CT."
    return [
        _split(run, record.get("split_sha256")),
        _data("classes", "good", classes),
        _data("normalisation", "good", normalised),
        _origin(record.get("data")),
    ]


def _split(run: Run, expected: object) -> Finding:
    if not run.split.is_file():
        advice = "'segment --split test' needs it; restore split.csv, or train anew."
        return _data("split", "to look at", f"There is no {run.split.name}.", advice)
    try:
        text = run.split.read_text(encoding="utf-8")
    except ValueError as error:
        raise DataError(f"{run.split}: is no text ({error}). The file is damaged.") from error
    counts = Counter(row.get("split", "") for row in csv.DictReader(text.splitlines()))
    numbers = {part: counts[part] for part in SPLITS}
    found = ", ".join(f"{count} {part}" for part, count in numbers.items()) + "."
    if expected and hashlib.sha256(text.encode()).hexdigest() != expected:
        advice = "Test cases may have been trained on; restore the file."
        return _data("split", "wrong", f"{found} The file was changed after training.", advice, numbers)
    if missing := [part for part in SPLITS if not counts[part]]:
        advice = "Scores of such a part can't be trusted or can't be had."
        return _data("split", "to look at", f"{found} No case is in {', '.join(missing)}.", advice, numbers)
    return _data("split", "good", found, numbers=numbers)


def _origin(where: object) -> Finding:
    if not where:
        return _data("origin", "to look at", "Where the data were is not recorded.", "Give --data.")
    there = where == "phantom" or Path(str(where)).exists()
    return _data("origin", "good", f"Trained on {where}" + ("." if there else ", which can't be reached from here."))


def examine_sampler(config: ResolvedConfig) -> list[Finding]:
    """Examine whether the steps of a run lie where masks are decided, and with what noise they begin."""
    if config.sampling.mode == "mean":
        return [_sampler("steps", "skipped", "One step gives the mean of all masks; none of them is drawn.")]
    return [_steps(config), _noise(config)]


def _steps(config: ResolvedConfig) -> Finding:
    sampling, schedule = config.sampling, schedule_of(config.diffusion)
    lams = [schedule.lam_at(row.t) for row in table_of(sampling, schedule)]
    within = sum(DECIDED[0] <= lam <= DECIDED[1] for lam in lams)
    what = f"{sampling.steps} steps of {sampling.sampler}, {sampling.spacing} spacing"
    numbers = {"steps": sampling.steps, "deciding": within}
    advice = f"Take more steps (segment --steps){'' if sampling.spacing == 'logsnr' else ', or logsnr spacing'}."
    if taught := config.train.one_step:
        if sampling.steps == 1:
            return _sampler("steps", "good", f"{what}: the model was {taught}.", numbers=numbers)
        found = f"{what}: the model was {taught}, more were not learned."
        return _sampler("steps", "to look at", found, "Take one step (segment --steps 1).", numbers)
    if sampling.steps == 1:
        found = f"{what}: one step gives the mean of all masks, and members that agree where raters do not."
        return _sampler("steps", "wrong", found, advice, numbers)
    if sampling.spacing not in COVERING:
        found = f"{what}: they decide regions; what is smaller is rounded to its likelier state."
        if sampling.steps < FEWEST_REGIONS:
            return _sampler("steps", "to look at", f"{found} They are few.", advice, numbers)
        return _sampler("steps", "good", found, numbers=numbers)
    found = f"{what}: {within} of them where pixels become foreground or background."
    if not within:
        return _sampler("steps", "wrong", found, advice, numbers)
    if within < FEWEST or lams[-1] < 0:
        return _sampler("steps", "to look at", f"{found} What is rare is drawn too rarely.", advice, numbers)
    return _sampler("steps", "good", found, numbers=numbers)


def _noise(config: ResolvedConfig) -> Finding:
    sampling = config.sampling
    numbers = {"antithetic": sampling.antithetic, "shared": sampling.shared_noise}
    if sampling.antithetic:
        found = "Members come in pairs of opposite noise: a steadier mean, but pairs that disagree too much."
        advice = "Set sampling.antithetic=false where the spread of members matters."
        return _sampler("noise", "to look at", found, advice, numbers)
    within = "the same in all slices of a volume" if sampling.shared_noise else "another in each slice of a volume"
    return _sampler("noise", "good", f"Each member begins with noise of its own, {within}.", numbers=numbers)


def examine_machine(
    record: dict[str, Any], config: ResolvedConfig, device: torch.device, precision: Precision
) -> list[Finding]:
    """Examine versions beside those of training, and the device."""
    commands = record.get("commands") or [{}]
    trained = commands[-1].get("precision") or config.train.precision
    return [_versions(record), _device(trained, device, precision)]


def _versions(record: dict[str, Any]) -> Finding:
    here = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    then = {"python": record.get("python")} | dict(record.get("versions") or {})
    shown = ", ".join(f"{name} {number}" for name, number in here.items())
    numbers = {"here": here, "training": then}
    if not record.get("versions"):
        return _machine("versions", "to look at", f"{shown}; those of training are not recorded.", numbers=numbers)
    differ = [name for name in here if then.get(name) and _minor(str(then[name])) != _minor(here[name])]
    if differ:
        advice = "Results may differ slightly; install the versions of training to repeat them."
        found = f"{shown}; training had {', '.join(f'{name} {then[name]}' for name in differ)}."
        return _machine("versions", "to look at", found, advice, numbers)
    return _machine("versions", "good", f"{shown}; training had the same.", numbers=numbers)


def _minor(number: str) -> tuple[str, ...]:
    return tuple(number.split("+")[0].split(".")[:2])


def _device(trained: str, device: torch.device, precision: Precision) -> Finding:
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    used, fast = pick_precision(precision, device), pick_precision("auto", device) == "bf16"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    bf16 = "bf16 is fast here" if fast else "bf16 is not faster here"
    found = f"{name}, {used} ({bf16}; trained with {trained}), {threads} threads on {cores} cores."
    numbers = {"device": name, "precision": used, "bf16": fast, "threads": threads, "cores": cores}
    if device.type == "cpu" and 2 * threads < cores:
        return _machine("device", "to look at", found, "Most cores are idle: set OMP_NUM_THREADS.", numbers)
    return _machine("device", "good", found, numbers=numbers)
