"""Floating-point operations: convolutions and matrix products counted, Fourier transforms and the rest estimated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
NORM = 8
"""Operations per value of a normalisation: mean, variance, difference, product, scale and shift."""
NORMS = (aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm, aten._native_batch_norm_legit)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations; a multiplication with an addition counts as two."""

    counted: float
    """Of convolutions and matrix products."""
    fft: float
    """Of Fourier transforms, estimated: 5 N log₂ N for N complex values, half of it for real ones."""
    elementwise: float
    """Of all that is done value by value, estimated: one per value of a result, 8 for normalisations."""

    @classmethod
    def of(cls, reading: Float[np.ndarray, " 3"]) -> Operations:
        """Name the parts of a reading of an `OperationCounter`."""
        return cls(*(float(part) for part in reading))


class OperationCounter:
    """Counts what is computed while it is active; on the meta device that takes no time."""

    def __init__(self) -> None:
        self._counter, self._estimate, self._stack = FlopCounterMode(display=False), _Estimate(), ExitStack()

    def __enter__(self) -> OperationCounter:
        """Start counting."""
        self._stack.enter_context(self._estimate)  # beneath the counter, which takes composite operations apart
        self._stack.enter_context(self._counter)
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop counting."""
        self._stack.__exit__(*error)

    def read(self) -> Float[np.ndarray, " 3"]:
        """Read the counter."""
        return np.array([self._counter.get_total_flops(), self._estimate.fft, self._estimate.elementwise], float)


def operations(compute: Callable[[], Any]) -> Operations:
    """Count the operations of a computation."""
    with OperationCounter() as counter, torch.inference_mode():
        compute()
    return Operations.of(counter.read())


class _Estimate(TorchDispatchMode):
    """Estimates what the counter of PyTorch leaves out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fft = self.elementwise = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and take down what it took."""
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in (aten._fft_r2c, aten._fft_c2c):
            self.fft += fft_operations(args[0], args[1])
        elif packet is aten._fft_c2r:
            self.fft += fft_operations(result, args[1])
        elif packet in NORMS:
            self.elementwise += NORM * args[0].numel()
        elif torch.Tag.pointwise in func.tags and isinstance(result, Tensor):
            self.elementwise += result.numel()
        return result


def fft_operations(values: Tensor, axes: Sequence[int]) -> float:
    r"""Estimate the operations of a Fourier transform.

    :math:`5 N \log_2 N` for complex values, half of it where they are real on one side.

    Source: M. Frigo & S. G. Johnson (2005), doi:10.1109/JPROC.2004.840301, by whom speeds are given so.
    """
    length = math.prod(values.shape[axis] for axis in axes)
    return (5.0 if values.is_complex() else 2.5) * values.numel() * math.log2(length)
