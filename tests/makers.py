"""What tests are made of: small configurations, networks, pictures and data folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from medsegdiff.config.data import DataConfig, next_multiple
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.models.base import DiffusionModel, size_of
from medsegdiff.training.objective import Losses, training_losses
from medsegdiff.types import Batch, Condition

PLAIN = ("model.condition_patch=null", "model.diffusion_patch=null", "model.detail_channels=0")
"""Makes a preset whose Diffusion Model works on larger cells than its Condition Model one in which both see alike."""

SMALL = (
    *PLAIN,
    "model.condition_widths=[8, 16, 16]",
    "model.diffusion_widths=[8, 16, 16]",
    "model.ss_former_dim=16",
    "model.ss_former_blocks=1",
    "model.filter_channels=8",
    "model.filter_blocks=2",
    "model.time_dim=16",
    "model.patch=1",
    "data.image_size=32",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.val_cases=2",
    "train.val_members=2",
    "train.val_steps=2",
    "sampling.steps=3",
    "sampling.fusion=staple",
    "sampling.members=3",
)
"""Overrides that make a V2 of a few thousand parameters."""

SMALL_NETWORKS = {
    "medsegdiff-v1": (
        "model.channels=8",
        "model.multiples=[1, 1, 2]",
        "model.num_blocks=1",
        "model.attention_levels=[1]",
        "model.num_heads=2",
        "model.condition_widths=[4, 8]",
        "model.filter_size=32",
        "model.dropout=0.0",
    ),
    "release": (
        "model.channels=16",
        "model.multiples=[1, 2]",
        "model.num_blocks=1",
        "model.attention_levels=[]",
        "model.condition_widths=[4, 8, 8]",
        "model.scale_shift=true",
        "model.learn_sigma=false",
        "model.dropout=0.0",
    ),
    "ensdiff": (
        "model.channels=16",
        "model.multiples=[1, 2]",
        "model.num_blocks=1",
        "model.attention_levels=[1]",
    ),
    "segdiff": (
        "model.channels=16",
        "model.multiples=[1, 2]",
        "model.num_blocks=1",
        "model.attention_levels=[1]",
        "model.num_heads=2",
        "model.encoder_blocks=1",
        "model.encoder_channels=8",
        "model.encoder_growth=4",
    ),
    "medsegdiff-transunet": (
        "model.channels=8",
        "model.multiples=[1, 1, 2]",
        "model.num_blocks=1",
        "model.condition_widths=[4, 8]",
        "model.filter_size=32",
        "model.dropout=0.0",
        "model.transformer_dim=16",
        "model.transformer_depth=2",
        "model.transformer_heads=2",
    ),
    "transunet": (
        "model.image_size=32",
        "model.channels=8",
        "model.blocks=[1, 1]",
        "model.dim=16",
        "model.depth=1",
        "model.heads=2",
        "model.dropout=0.0",
        "model.decoder_widths=[16, 16, 8, 8]",
    ),
    "ultraunet": ("model.widths=[8, 8, 16]",),
    "unetr": (
        "model.image_size=32",
        "model.channels=4",
        "model.dim=12",
        "model.mlp_dim=24",
        "model.heads=2",
    ),
    "swinunetr": (
        "model.channels=12",
        "model.depths=[1, 1, 1, 1]",
        "model.heads=[1, 1, 2, 2]",
        "model.window=2",
    ),
    "anchor": ("model.condition_widths=[8, 16, 16]", "model.num_blocks=1"),
    "mtseg": ("model.widths=[8, 8, 16]",),
    "beal": ("model.widths=[16, 8, 16, 16]", "model.blocks=[1, 1, 1]", "model.channels=16", "model.low_channels=16"),
    "transbts": (
        "model.channels=8",
        "model.transformer_dim=16",
        "model.transformer_depth=1",
        "model.transformer_heads=2",
        "model.transformer_ratio=2",
        "model.table_size=32",
    ),
    "swinbts": (
        "model.patch=2",
        "model.channels=8",
        "model.heads=[2, 2]",
        "model.window=4",
        "model.mixing_channels=16",
    ),
    "resunet": ("model.widths=[8, 16]", "model.blocks=[1, 1]", "model.decoder_channels=16"),
    "fatnet": (
        "model.widths=[8, 16, 32]",
        "model.blocks=[1, 1, 1]",
        "model.dim=12",
        "model.depth=2",
    ),
    "bat": (
        *("model.widths=[8, 16]", "model.blocks=[1, 1]", "model.aspp_channels=16"),
        *("model.dim=16", "model.depth=2", "model.heads=2", "model.hidden=32"),
    ),
    "nnunet": ("model.levels=4", "model.channels=8", "model.max_channels=16"),
}
"""The same for networks with settings of their own, by name."""


TASKS = {
    "binary": ("lesion",),
    "exclusive": ("background", "a", "b"),
    "regions": ("disc", "cup"),
}
"""Mask channels to try, by task."""


def small_config(*overrides: str) -> ResolvedConfig:
    return assumed(load_preset("v2-tiny", [*SMALL, *overrides]))


def as_told(data: DataConfig, **spec: object) -> ResolvedConfig:
    """What was asked of data, and what they told."""
    config = assumed(Config(data=data))
    return config.model_copy(update={"spec": config.spec.model_copy(update=spec)})


def small_network(name: str, *overrides: str) -> ResolvedConfig:
    return small_config(f"model.name={name}", *SMALL_NETWORKS.get(name, ()), *overrides)


def configured(name: str, task: str, *overrides: str) -> ResolvedConfig:
    """A small network for images of two channels and the classes of a task."""
    classes = "[" + ", ".join(TASKS[task]) + "]"
    return small_network(name, f"data.task={task}", f"data.classes={classes}", "data.channels=2", *overrides)


def randomised(model: DiffusionModel, seed: int = 0) -> DiffusionModel:
    """Give every weight a value, those that start at zero too, so that each part has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def fitting(model: DiffusionModel, height: int, width: int) -> tuple[int, int]:
    """The size itself, or the next that a network takes."""
    h, w = (next_multiple(size, model.stride) for size in (height, width))
    return (h, w) if h * w >= model.fewest_cells * model.stride**2 else (2 * h, 2 * w)


def denoised(model: DiffusionModel, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """What a network says of masks, asked for it from the start."""
    return model.denoise(x_t, model.at(t, size_of(x_t)), condition)


def losses_of(model: nn.Module, batch: Batch, config: ResolvedConfig, *, signal_scale: float | None = None) -> Losses:
    """Equation 3 for a batch; with a signal scale, on a cosine schedule with that one."""
    process = Process.of(config)
    if signal_scale is not None:
        process = replace(process, schedule=make_schedule("cosine", signal_scale=signal_scale))
    return training_losses(model, batch, process, config.loss, seed=config.train.seed)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.hypot(y - centre[0], x - centre[1]) < radius


def make_folder(root: Path, *, count: int = 12, size: tuple[int, int] = (40, 32), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for i in range(count):
        inside = disc(size, tuple(rng.uniform(12, 20, size=2)), rng.uniform(5, 10))
        image = np.clip(80 + 90 * inside + rng.normal(0, 10, size=size), 0, 255)
        write_png(root / "images" / f"case{i:02d}.png", image.astype(np.uint8))
        write_png(root / "masks" / f"case{i:02d}.png", inside.astype(np.uint8) * np.uint8(255))
    return root
