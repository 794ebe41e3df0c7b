"""On which machine something was measured."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

CPUS = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Tell what computes."""
    gpu = device.type == "cuda"
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if gpu else _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
    }


def _processor() -> str:
    named = [line for line in _lines(CPUS) if line.startswith("model name")]
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
