"""What makes an ensemble fast: each saving, and the same ensemble without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pairs import CPU, Given, compared, replaced, timed, within
from torch import Tensor, nn

from medsegdiff.config.data import next_multiple
from medsegdiff.config.run import Config
from medsegdiff.config.train import Precision
from medsegdiff.hardware import place
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.resources import compile_steps, is_compiled
from medsegdiff.models.base import DiffusionModel, build_model, size_of
from medsegdiff.types import Condition


def savings(config: Config, given: Given) -> Iterator[tuple[str, ...]]:
    """Time each saving."""
    model = network(config)
    draw = partial(drawn, model, config, given)
    with_all = partial(draw)
    yield compared("condition once per image", "at each step", with_all, within(each_step(model), draw), given)
    yield compared("keys and values once", "at each step", with_all, within(unprepared(model), draw), given)
    if hasattr(model, "diffusion_model") and hasattr(model.diffusion_model, "gates"):
        yield compared("U-SA maps once", "at each step", with_all, within(gated_anew(model), draw), given)
    yield compared("NBP-Filters once", "at each step", with_all, within(untabulated(model), draw), given)
    yield compared("members in one batch", "one by one", with_all, partial(draw, batch_size=1), given)
    plain = network(config, layout=torch.contiguous_format)
    yield compared("channels last", "channels first", with_all, partial(drawn, plain, config, given), given)
    whole = partial(draw, precision="fp32")
    yield compared("bf16", "fp32", partial(draw, precision="bf16"), whole, given)
    yield compared("inference mode", "no_grad", with_all, within(lambda: without_inference_mode(), draw), given)
    yield compiled_pair(config, given)


def network(config: Config, layout: torch.memory_format = torch.channels_last) -> DiffusionModel:
    """Build a network whose every part has an effect, as `Segmenter` places it."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    for parameter in model.parameters():
        if not parameter.any():  # projections that start at zero
            nn.init.normal_(parameter, std=0.02)
    if layout is torch.channels_last:
        place(model, CPU)
    return model


def drawn(
    model: DiffusionModel, config: Config, given: Given, *, batch_size: int | None = None, precision: Precision = "auto"
) -> Tensor:
    """Draw the ensemble of an image, as `Segmenter` does."""
    wanted = {"members": given.members, "batch_size": batch_size or max(given.members, config.sampling.batch_size)}
    sampler = EnsembleSampler(model, config, config.sampling.model_copy(update=wanted), precision=precision)
    side = next_multiple(given.size, model.stride)
    image = torch.rand(1, config.image_channels, side, side, generator=torch.Generator().manual_seed(0))
    return sampler.draw(image, ["image"], seed=0).probability


def each_step(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Look at the image anew at each step, as is done where the condition is part of the denoiser."""
    look, denoise, seen = model.condition, model.denoise, list[Tensor]()

    def condition(image: Tensor) -> Condition:
        seen[:] = [image]
        return look(image)

    def step(x_t: Tensor, time: Any, own: Condition) -> Tensor:
        return denoise(x_t, time, look(seen[0]).expand(0, len(x_t)))

    return lambda: replaced(model, condition=condition, denoise=step)


def unprepared(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Make tokens, keys and values of c⁰ at each step, for each member."""
    inner: Any = model.diffusion_model
    semantics, denoise, seen = inner.semantics, model.denoise, list[Tensor]()

    def kept(embedding: Tensor) -> tuple[Tensor, ...]:
        seen[:] = [embedding]
        return ()

    def step(x_t: Tensor, time: Any, own: Any) -> Tensor:
        return denoise(x_t, time, replace(own, semantics=semantics(seen[0].expand(len(x_t), -1, -1, -1))))

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(inner, semantics=kept), replaced(model, denoise=step):
            yield

    return both


def gated_anew(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Compute the U-SA maps at each step, once for all members."""
    inner: Any = model.diffusion_model
    gates, denoise, seen = inner.gates, model.denoise, list[Any]()

    def kept(features: Any) -> tuple[Tensor, ...]:
        seen[:] = [features]
        found: tuple[Tensor, ...] = gates(features)
        return found

    def step(x_t: Tensor, time: Any, own: Condition) -> Tensor:
        gates(seen[0])
        return denoise(x_t, time, own)

    @contextmanager
    def both() -> Iterator[None]:
        with replaced(inner, gates=kept), replaced(model, denoise=step):
            yield

    return both


def untabulated(model: DiffusionModel) -> Callable[[], AbstractContextManager[None]]:
    """Embed the time and evaluate the NBP-Filters at each step."""
    denoise, at = model.denoise, model.at

    def step(x_t: Tensor, t: Tensor, own: Condition) -> Tensor:
        return denoise(x_t, at(t, size_of(x_t)), own)

    return lambda: replaced(model, denoise=step, at=lambda t, size: t)


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Only switch the recording of gradients off."""
    before = {name: vars(EnsembleSampler)[name] for name in ("_looked_at", "_drawn")}
    for name, method in before.items():
        setattr(EnsembleSampler, name, torch.no_grad()(method.__wrapped__))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(EnsembleSampler, name, method)


def compiled_pair(config: Config, given: Given) -> tuple[str, ...]:
    """Time an ensemble with compiled steps beside plain ones; compiling itself is told, not counted."""
    plain, fast = network(config), network(config)
    compile_steps(fast, CPU)
    on, off = (partial(drawn, model, config, given) for model in (fast, plain))
    first = timed(on)
    row = compared(f"compiled steps (after {first:.0f} s)", "plain", on, off, given)
    return row if is_compiled(fast) else (f"{row[0]}: there is no compiler", *row[1:])
