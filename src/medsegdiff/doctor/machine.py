"""Where an examination runs: versions beside those of training, device, precision, threads."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.config.train import Precision
from medsegdiff.doctor.finding import Finding
from medsegdiff.hardware import pick_precision

PACKAGES = ("medsegdiff", "torch", "monai", "numpy")


def examine_machine(
    record: dict[str, Any], config: ResolvedConfig, device: torch.device, precision: Precision
) -> list[Finding]:
    """Examine versions and device."""
    return [_versions(record), _device(config, device, precision)]


def _versions(record: dict[str, Any]) -> Finding:
    here = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    then = {"python": record.get("python")} | dict(record.get("versions") or {})
    shown = ", ".join(f"{name} {number}" for name, number in here.items())
    changed = [
        f"{name} {then[name]}" for name in here if then.get(name) and _minor(str(then[name])) != _minor(here[name])
    ]
    numbers = {"here": here, "training": then}
    if not record.get("versions"):
        found = f"{shown}; those of training are not recorded."
        return Finding("machine", "versions", "to look at", found, numbers=numbers)
    if changed:
        advice = "Results may differ slightly; install the versions of training to repeat them."
        found = f"{shown}; training had {', '.join(changed)}."
        return Finding("machine", "versions", "to look at", found, advice, numbers)
    return Finding("machine", "versions", "good", f"{shown}; training had the same.", numbers=numbers)


def _minor(number: str) -> tuple[str, ...]:
    return tuple(number.split("+")[0].split(".")[:2])


def _device(config: ResolvedConfig, device: torch.device, precision: Precision) -> Finding:
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    used, fast = pick_precision(precision, device), pick_precision("auto", device) == "bf16"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    bf16 = "bf16 is fast here" if fast else "bf16 is not faster here"
    found = f"{name}, {used} ({bf16}; trained with {config.train.precision}), {threads} threads on {cores} cores."
    numbers = {"device": name, "precision": used, "bf16": fast, "threads": threads, "cores": cores}
    if device.type == "cpu" and 2 * threads < cores:
        advice = "Most cores are idle: set OMP_NUM_THREADS."
        return Finding("machine", "device", "to look at", found, advice, numbers)
    return Finding("machine", "device", "good", found, numbers=numbers)
