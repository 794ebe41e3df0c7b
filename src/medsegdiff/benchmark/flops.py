"""Operations of a computation, and of an ensemble by stage, counted without computing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from medsegdiff.benchmark.timing import Meter, stopwatch
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.fusion.fusers import decide
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.inputs import read_case
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import SAMPLED, build_model

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


COUNTED = ("condition", "tables", "steps")
"""Stages in which the network computes."""
WATCHED = dict(zip(SAMPLED, COUNTED, strict=True))
"""Method of the network → stage."""


@dataclass(frozen=True)
class Pass:
    """Seconds of one image, by stage. Where only some steps were made, as many are added as the others would take."""

    read: float
    """From the file to pixels."""
    condition: float
    """The Condition Model with U-SA's maps: once per image."""
    tables: float
    """The NBP-Filters at the times of all steps: once per run."""
    steps: float
    """The Diffusion Model, all members, all steps."""
    each_step: tuple[float, ...]
    """Of the steps that were made, chunk of members by chunk."""
    fuse: float
    """Members to one segmentation."""
    other: float
    """Resizing, noise, the sampler's sums, maps of uncertainty."""
    write: float
    """Masks, probability, maps and overlay to files."""

    @property
    def seconds(self) -> float:
        """From pixels to the fused segmentation."""
        return self.condition + self.tables + self.steps + self.fuse + self.other


def timed_pass(segmenter: Segmenter, picture: Path, out: Path, *, members: int, made: int, steps: int) -> Pass:
    """Segment a picture as ``medsegdiff segment`` does, and note what takes how long.

    Fusing is timed apart, on the members that came out, and taken from the time of the whole.
    """
    watch = stopwatch(segmenter.device)
    with watch.stage("read"):
        case = read_case(picture)
    request = Request.of(segmenter.config, members=members).with_steps(made)
    with watch.watch(segmenter.model, WATCHED), watch.stage("segment"):
        result = next(segmenter.results([case], request))
    votes, marginal = torch.from_numpy(result.members)[:, None].float(), torch.from_numpy(result.probability)
    config = segmenter.config
    with watch.stage("fuse"):
        decide(votes, config.spec.labels, fusion=config.sampling.fusion, marginal=marginal)
    with watch.stage("write"):
        result.save(out)
    return as_pass(watch.spans, made=made, steps=steps)


def as_pass(spans: Mapping[str, Sequence[float]], *, made: int, steps: int) -> Pass:
    """Sum up what was noted."""
    condition, tables, each = (spans.get(stage, []) for stage in COUNTED)
    inside = sum(condition) + sum(tables) + sum(each) + spans["fuse"][0]
    return Pass(
        read=spans["read"][0],
        condition=sum(condition),
        tables=float(extended(tables, made=made, steps=steps)),
        steps=float(extended(each, made=made, steps=steps)),
        each_step=tuple(each),
        fuse=spans["fuse"][0],
        other=max(0.0, spans["segment"][0] - inside),
        write=spans["write"][0],
    )


def extended(spans: Sequence[float] | Sequence[np.ndarray], *, made: int, steps: int) -> float | np.ndarray:
    """Add up what steps took, and for those that were not made, the mean of the later ones."""
    values = np.asarray(spans, float)
    if not spans or len(spans) % made:
        return values.sum(axis=0)
    by_chunk = values.reshape(-1, made, *values.shape[1:])
    later = by_chunk[:, 1:] if made > 1 else by_chunk
    return by_chunk.sum(axis=(0, 1)) + (steps - made) * later.mean(axis=1).sum(axis=0)


def counted_pass(config: ResolvedConfig, *, members: int, steps: int) -> dict[str, Operations]:
    """Count the operations of one image on the meta device: no memory, and no time but PyTorch's own.

    Two steps are made, and the second counts for all further ones.
    """
    made = min(2, steps)
    with torch.device("meta"):
        model = build_model(config)
        side = config.data.grid_side(model.stride)
        image = torch.empty(1, config.image_channels, side, side)
    sampling = config.sampling.model_copy(update={"members": members, "candidates": None, "steps": made})
    with OperationCounter() as counter:
        meter = Meter(counter.read)
        with meter.watch(model, WATCHED):
            EnsembleSampler(model, config, sampling, precision="fp32").draw(image, ["random"], seed=0)
    nothing = np.zeros(3)
    spans = {stage: meter.spans.get(stage, [nothing]) for stage in COUNTED}
    totals = {
        "condition": sum(spans["condition"], nothing),
        "tables": extended(spans["tables"], made=made, steps=steps),
        "steps": extended(spans["steps"], made=made, steps=steps),
    }
    return {stage: Operations.of(np.asarray(total)) for stage, total in totals.items()}
