"""A network as programs of torch.export, with one axis of any length: images, or members."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.process import Process
from medsegdiff.errors import ConfigError
from medsegdiff.export.graphs import IMAGES, MEMBERS, Layout, Look, Step
from medsegdiff.export.sample import Sample, mean_of
from medsegdiff.inference.runs import Trained
from medsegdiff.nn.hartley import by_products
from medsegdiff.runtime.facts import LOOK, MEAN, STEP, Facts

IMAGE = "image"
"""What the first graph is given, and others too, if a network looks at it in each step."""


@dataclass(frozen=True)
class Program:
    """A program and the names of what goes in and comes out."""

    name: str
    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axis: str
    """Which axis may have any length."""


def programs_of(run: Trained, facts: Facts, sample: Sample) -> Iterator[Program]:
    """Trace a look, a step, and the mean of all masks where there is one; ``sample`` is what they are tried with."""
    model, process = run.model, Process.of(run.config)
    image, row = sample.image.expand(2, -1, -1, -1).clone(), facts.table[0]
    with torch.no_grad():
        given = image[:1].clone()
        condition = model.condition(given)  # which also fills tables that are kept by size
        layout = Layout.of(condition)
        told = zip(layout.names, condition.tensors, strict=True)
        names = tuple(IMAGE if tensor is given else name for name, tensor in told)
        at = tuple(torch.tensor([value]) for value in (row.t, row.alpha, row.sigma))
        known = (sample.x_t, *at, *condition.tensors)
        anchor = () if condition.logits is None else ("anchor",)
        _refuse_learned_variance(
            run.config, model.denoise(sample.x_t[:1], model.at(at[0], facts.image.grid), condition)
        )
        with by_products(model):
            step = Step(model, process, layout, facts.image.grid)
            step(*known)
            looked = _traced(Look(model, process), (image,), IMAGES)
            yield Program(LOOK, looked, (IMAGE,), (*anchor, *(name for name in names if name != IMAGE)), IMAGES)
            stepped = _traced(step, known, MEMBERS)
            yield Program(STEP, stepped, ("x_t", "t", "alpha", "sigma", *names), ("x_0", "said"), MEMBERS)
            if facts.once:
                traced = _traced(mean_of(run, facts, sample), (image,), IMAGES)
                yield Program(MEAN, traced, (IMAGE,), ("probability",), IMAGES)


def _traced(module: nn.Module, given: Sequence[Tensor], axis: str) -> ExportedProgram:
    """Trace a module; the first axis of what it is first given may have any length."""
    shapes = tuple({0: Dim(axis, min=1, max=1 << 16)} if number == 0 else None for number in range(len(given)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module.eval(), tuple(given), dynamic_shapes=_nested(module, shapes))


def _nested(module: nn.Module, shapes: tuple[dict[int, Dim] | None, ...]) -> tuple[object, ...]:
    """Lay shapes out as the arguments of a module are: what follows the fourth of a step is one tuple."""
    return (*shapes[:4], shapes[4:]) if isinstance(module, Step) else shapes


def _refuse_learned_variance(config: ResolvedConfig, said: Tensor) -> None:
    if said.shape[1] != config.mask_channels:
        raise ConfigError(
            f"The network {config.model.name} learns the variance of its sampler, which exported runs do without. "
            "Train with model.learn_sigma=false, or segment with the run itself."
        )
