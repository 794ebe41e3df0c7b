"""One image on its way from file to file, stage by stage: what each takes of time and of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medsegdiff.benchmark.flops import OperationCounter, Operations
from medsegdiff.benchmark.timing import Meter, stopwatch
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.inputs import read_case
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import SAMPLED, build_model

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
    with watch.watch(segmenter.model, WATCHED), watch.stage("segment"):
        result = next(segmenter.stream([case], members=members, steps=made))
    votes = torch.from_numpy(result.members)[:, None, None].float()
    with watch.stage("fuse"):
        FUSERS[segmenter.config.sampling.fusion].factory(votes, exclusive=False)
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
    sampling = config.sampling.model_copy(update={"members": members, "steps": made})
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
