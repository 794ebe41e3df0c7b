"""What networks need: memory of a training step, and the list of all with their costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.data.dataset import DATASETS
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.errors import ConfigError
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.hardware import Computed
from medsegdiff.inference.ensemble import num_looks
from medsegdiff.metrics.base import METRICS
from medsegdiff.models.base import MODELS, DiffusionModel, budget, build_model
from medsegdiff.models.checkpoint import load_config, with_snapshots_kept
from medsegdiff.nn.blocks import recompute
from medsegdiff.training.objective import training_losses
from medsegdiff.training.run import Run
from medsegdiff.types import Batch

COPIES = 5
"""Weights, their gradients, two moments of AdamW and the moving average, in 32 bits each."""
MARGIN = 1.25
"""Over what is kept for the backward pass: gradients on their way, and what the allocator can't hand out again."""
HALVED = {
    *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, F.conv_transpose3d, F.linear, torch.conv2d, torch.einsum),
    *(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.baddbmm, torch.addmm),
    F.scaled_dot_product_attention,
}
"""Operations that autocast computes in 16 bits; bf16 here stands for both kinds."""
KEPT_ON_GPU = {F.group_norm, F.layer_norm, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, torch.exp}
"""Operations that autocast computes in fp32 on a GPU, and in bf16 on a CPU."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step needs beyond those of the libraries."""

    fixed: float
    """However many images: the weights and what belongs to them."""
    per_image: float
    """For each image of the batch: what the backward pass will ask for."""

    def of(self, batch_size: int) -> float:
        """Estimate what a batch needs."""
        return self.fixed + batch_size * self.per_image

    def largest_batch(self, memory: float) -> int:
        """Find out how many images fit."""
        return max(0, int((memory - self.fixed) // self.per_image))


def step_memory(config: ResolvedConfig, *, precision: Computed, device: str = "cpu") -> StepMemory:
    """Estimate the memory of a training step: a forward pass on the meta device, and a count of what it keeps.

    The tensors saved for the backward pass are those of a real one, byte for byte, also in bf16, whose casts are
    made as autocast makes them; what comes beside goes into `MARGIN`. On a CPU, real steps of batches from 3 to 16
    images peaked within 15 % of the estimate, those of a single image below it (benchmarks/memory.md). On a GPU
    it has not been measured.
    """
    with torch.device("meta"):
        model = build_model(config)
    if config.train.gradient_checkpointing:
        recompute(model)
    side = config.data.grid_side(model.stride)
    one, two = (saved_bytes(model, config, batch, side, precision=precision, device=device) for batch in (1, 2))
    return StepMemory(fixed=COPIES * _bytes(model) + MARGIN * (2 * one - two), per_image=MARGIN * (two - one))


def split_memory(step: StepMemory, config: ResolvedConfig, processes: int) -> StepMemory:
    """Estimate the memory of each process where several share a network (``train.sharding``)."""
    with torch.device("meta"):
        model = build_model(config)
    shared = COPIES * _bytes(model) * (1 - 1 / processes)
    return StepMemory(fixed=step.fixed - shared + gathered_bytes(model), per_image=step.per_image)


def gathered_bytes(model: DiffusionModel) -> int:
    """Count what is whole at a time where a network is split over processes.

    What lies outside its blocks is whole all the time, and so is its gradient. Of its blocks, that which computes is
    whole, with its gradient, and the next one; each also lies in a buffer between processes.
    """
    units = [_bytes(module) for module in model.modules() if isinstance(module, model.units)]
    return 2 * (_bytes(model) - sum(units)) + 6 * max(units, default=0)


def _bytes(module: nn.Module) -> int:
    """Count the bytes of parameters in 32 bits each."""
    return 4 * sum(parameter.numel() for parameter in module.parameters())


def saved_bytes(
    model: DiffusionModel,
    config: ResolvedConfig,
    batch_size: int,
    side: int,
    *,
    precision: Computed,
    device: str = "cpu",
) -> int:
    """Count what the loss of a batch keeps for the backward pass, the weights aside."""
    where = next(model.parameters()).device
    image = torch.zeros(batch_size, config.image_channels, side, side, device=where)
    mask = torch.zeros(batch_size, config.mask_channels, side, side, device=where)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    class Cast(nn.Module):
        """The network under autocast, which the loss is not."""

        def forward(self, *given: Tensor) -> Any:
            with ExitStack() as stack:
                if precision != "fp32":
                    stack.enter_context(torch.autocast("cpu", torch.bfloat16))
                    if where.type == "meta":
                        stack.enter_context(Autocast(on_gpu=device != "cpu"))
                return model(*given)

    batch, draws = Batch(image, mask, tuple(range(batch_size))), config.train.score_members or config.train.draws
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = training_losses(Cast(), batch, Process.of(config), config.loss, seed=0, draws=draws)
    held = sum(storage.nbytes() for storage in kept.values())
    del losses  # the graph lives until here
    return held


class Autocast(TorchFunctionMode):
    """Casts as autocast does, where there is none: on the meta device.

    It heeds ``torch.autocast("cpu", enabled=False)``, with which parts of a network keep their precision there.
    """

    def __init__(self, *, on_gpu: bool) -> None:
        super().__init__()
        self.kept = KEPT_ON_GPU if on_gpu else set()
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cast the tensors of an operation, then do it."""
        wanted = torch.bfloat16 if func in HALVED else torch.float32 if func in self.kept else None
        if wanted is None or not torch.is_autocast_enabled("cpu"):
            return func(*args, **(kwargs or {}))
        cast = {key: self._cast(value, wanted) for key, value in (kwargs or {}).items()}
        return func(*(self._cast(value, wanted) for value in args), **cast)

    def _cast(self, value: Any, wanted: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.bfloat16) or value.dtype == wanted:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(wanted)
        if id(value) not in self._weights:  # autocast keeps the cast of a weight until the step is done
            self._weights[id(value)] = value.to(wanted)
        return self._weights[id(value)]


REGISTRIES = {"datasets": DATASETS, "samplers": SAMPLERS, "fusers": FUSERS, "metrics": METRICS}


def registered(kind: str) -> list[dict[str, Any]]:
    """List what is registered of a kind, with its facts; models with what they cost too."""
    if kind == "models":
        return [{**entry.described(), **_cost(entry.name)} for entry in MODELS]
    return [entry.described() for entry in REGISTRIES[kind]]  # type: ignore[attr-defined]


def _cost(name: str) -> dict[str, Any]:
    """Count what a model costs with its own defaults, which are the published settings."""
    costs = budget(assumed(make_config({"model": {"name": name}})))
    gmac = {"condition": round(costs.condition_gmac, 3), "denoiser": round(costs.denoiser_gmac, 3)}
    return {"parameters": costs.parameters, "gmac": gmac}


def describe(what: str, *, size: int | None = None) -> dict[str, Any]:
    """Collect the facts about a preset, a file or a run; ``size`` is the side of images, in pixels."""
    config, facts = _find(what)
    if size is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": size})})
    costs = budget(config)
    sampling, place = config.sampling, Path(what)
    looks = min(num_looks(sampling, with_snapshots_kept(place, config) if place.is_dir() else config), sampling.drawn)
    ensemble = looks * costs.condition_gmac + sampling.drawn * sampling.steps * costs.denoiser_gmac
    return {
        "description": config.description,
        "reproduces": config.reproduces,
        "model": config.model.name,
        "parameters": costs.parameters,
        "parameters_by_part": costs.parts,
        "image_size": config.data.image_size,
        "gmac": {
            "condition": round(costs.condition_gmac, 3),
            "denoiser": round(costs.denoiser_gmac, 3),
            "forward": round(costs.condition_gmac + costs.denoiser_gmac, 3),
            "ensemble": round(ensemble, 1),
            "looks": looks,
        },
        "memory_gb": _memory(config, costs.parameters),
        "sampling": sampling.model_dump(mode="json"),
        **facts,
        "config": config.model_dump(mode="json"),
    }


def _memory(config: ResolvedConfig, parameters: int) -> dict[str, float]:
    """Estimate memory in GB: of the weights, and of a training step in fp32, on one device or on each of several."""
    step = step_memory(config, precision="fp32")
    needs = {"weights": 4 * parameters, "training": step.fixed, "per_image": step.per_image}
    needs["batch"] = step.of(config.train.batch_size)
    if config.train.sharding:
        for number in (2, 4, 8, 16):
            needs[f"training_on_each_of_{number}"] = split_memory(step, config, number).fixed
    return {name: round(number / 1e9, 2) for name, number in needs.items()}


def _find(what: str) -> tuple[ResolvedConfig, dict[str, Any]]:
    if not Path(what).is_dir():
        if "/" in what and not what.endswith((".yaml", ".yml")):
            raise ConfigError(f"{what}: there is no such folder. Name the folder of a run, a preset or a YAML file.")
        return assumed(load_preset(what)), {}
    return load_config(Path(what)), Run(Path(what)).told()
