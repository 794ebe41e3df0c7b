"""Which device to compute on, in which precision, and how much memory there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any, Literal

import torch
from torch import nn

from medsegdiff.config.run import Precision
from medsegdiff.errors import ConfigError

TF32: list[tuple[Any, str, Any]] = (
    [(torch.backends.cudnn.conv, "fp32_precision", "ieee"), (torch.backends.cuda.matmul, "fp32_precision", "ieee")]
    if hasattr(torch.backends.cudnn, "conv")
    else [(torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)]
)
"""Where TF32 is switched, by what, and how it is off; before PyTorch 2.9 in another place."""


def pick_device(name: str | None = None) -> torch.device:
    """Choose a device."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name or best)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"Device '{name or best}' can't be used ({error}). Here there is: {best}.") from None
    return device


def exact_dtype(device: torch.device) -> torch.dtype:
    """Choose a type in which the order of sums and the width of vectors change nothing once float32 is made of it."""
    return torch.float32 if device.type == "mps" else torch.float64  # which has no float64


Computed = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Of matrix products and convolutions, where they are not float32."""


def pick_precision(precision: Precision, device: torch.device) -> Computed:
    """Resolve ``auto``: 16 bits where the hardware multiplies matrices faster in them.

    GPUs of compute capability 8 or more have bf16, those of 7 (V100, T4) fp16, whose range is narrow: training scales
    its loss there, and members that are not finite are refused. Of CPUs, those that multiply bf16 take it: with AMX
    tiles, where a training step was measured 1.6 to 2.9 times as fast as in fp32, or with AVX512-BF16, where it was 1.4
    to 1.9 times as fast. Elsewhere bf16 on a CPU is emulated and slower.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("The precision is fp16, which is for GPUs of NVIDIA; here, take fp32, bf16 or auto.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if device.type == "cpu" and _multiplies_bf16() else "fp32"


def _multiplies_bf16() -> bool:
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(supported() for supported in asked if supported is not None)


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision; what needs more keeps it (the FFT, sums, the last layer, the weights)."""
    dtype = DTYPES.get(pick_precision(precision, device))
    with full_float32(), nullcontext() if dtype is None else torch.autocast(device.type, dtype):
        yield


class _Switches:
    """Switches of the whole process: off while anybody needs that, and then as they were before the first did.

    Threads, and generators that are left half-way, don't leave in the order in which they came.
    """

    def __init__(self) -> None:
        self.lock, self.users, self.before = Lock(), 0, list[Any]()

    def take(self) -> None:
        """Turn them off, if nobody has yet."""
        with self.lock:
            if not self.users:
                self.before = [getattr(part, name) for part, name, _ in TF32]
                for part, name, off in TF32:
                    setattr(part, name, off)
            self.users += 1

    def leave(self) -> None:
        """Turn them back, if nobody else needs them off."""
        with self.lock:
            self.users -= 1
            if not self.users:
                for (part, name, _), value in zip(TF32, self.before, strict=True):
                    setattr(part, name, value)


_switches = _Switches()


@contextmanager
def full_float32() -> Iterator[None]:
    """Let float32 be float32, wherever it is kept: GPUs would take TF32 for convolutions, which has 10 bits."""
    _switches.take()
    try:
        yield
    finally:
        _switches.leave()


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to where it is used; on a CPU its convolutions are laid out with channels last.

    On a CPU with AMX tiles a forward pass of the preset ``v2-fast`` in bf16 took 0.6 times as long so. What it
    computes is the same but for rounding. On a GPU it has not been measured, and PyTorch's group normalisation gives
    features channel by channel there, so that each convolution would turn them around and back.
    """
    moved = model.to(device)
    return moved.to(memory_format=torch.channels_last) if device.type == "cpu" else moved  # type: ignore[call-overload]


def device_memory(device: torch.device) -> float:
    """Find out how much memory training may take: of a GPU what a display, or another process, has left of it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory())
    return machine_memory() / 2


def machine_memory() -> float:
    """Ask the machine for its memory."""
    if not hasattr(os, "sysconf"):
        return 16e9
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def on_cpu(device: str | None) -> bool:
    """Decide whether to keep off accelerators; several processes without GPUs would else not find each other."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return device == "cpu" or (not alone and (kind is None or kind.type == "mps"))
