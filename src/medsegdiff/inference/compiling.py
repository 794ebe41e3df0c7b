"""Compiling the step of a sampler with PyTorch's compiler, and going on without it where that fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medsegdiff.models.base import DiffusionModel
from medsegdiff.nn.nbp_filter import distinct_radii
from medsegdiff.nn.ss_former import positions

log = logging.getLogger(__name__)

FFT_STAYS = "Torchinductor does not support code generation for complex operators"
"""What the compiler says of the SS-Former, whose Fourier transforms it leaves to the library."""


class CompiledStep:
    """One step of the Diffusion Model, compiled when it is first made, and anew for shapes that it has not seen."""

    def __init__(self, step: Callable[..., Tensor], *, on_gpu: bool) -> None:
        self.step = step
        self.compiled: Callable[..., Tensor] | None
        self.compiled = torch.compile(step, mode="reduce-overhead" if on_gpu else None)
        self.on_gpu = on_gpu

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        """Make the step."""
        if self.compiled is None:
            return self.step(*arguments, **options)
        try:
            if not self.on_gpu:
                return self.compiled(*arguments, **options)
            torch.compiler.cudagraph_mark_step_begin()
            return self.compiled(*arguments, **options).clone()  # a CUDA graph writes to the same place at each step
        except RuntimeError as error:  # all errors of the compiler; one of the step itself comes again below
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            log.warning("The steps are not compiled (%s). It goes on without; leave --compile away.", reason.strip())
            self.compiled = None
            return self.step(*arguments, **options)


def compile_steps(model: DiffusionModel, device: torch.device) -> None:
    """Let a network compile its step; on a GPU it is also recorded as a CUDA graph.

    The first step takes a minute or so. On a CPU it gains a tenth at most (benchmarks/speed.md).
    """
    for table in (distinct_radii, positions):
        torch.compiler.assume_constant_result(table)  # kept from call to call, not to be computed in each step
    warnings.filterwarnings("ignore", message=FFT_STAYS)
    model.denoise = CompiledStep(model.denoise, on_gpu=device.type == "cuda")  # type: ignore[method-assign]


def is_compiled(model: DiffusionModel) -> bool:
    """Tell whether a network's step is compiled."""
    step = model.denoise
    return isinstance(step, CompiledStep) and step.compiled is not None
