"""Runs trained before: every preset's weights keep their names, and each network says of them what it said."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.spec import assumed
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import build_model
from tests.makers import configured, fitting

GOLDEN = Path(__file__).parents[1] / "golden"
VARIANTS = {
    "v2 on cells": (
        *("model.condition_widths=[8, 8, 16, 24]", "model.diffusion_patch=4", "model.diffusion_widths=[16, 16]"),
        *("model.anchor_levels=[0]", "model.detail_channels=4"),
    ),
    "v2 unfiltered": ("model.semantic_condition=unfiltered",),
    "v2 cross-attention": ("model.semantic_condition=cross-attention",),
    "v2 spatial": ("model.anchor_condition=spatial",),
    "v2 bare": ("model.semantic_condition=none", "model.anchor_condition=none", "model.see_image=true"),
}
"""Beside the networks with their small settings."""


def golden(name: str) -> dict[str, dict[str, object]]:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))["found"]


def layout_of(model: nn.Module) -> dict[str, object]:
    """Names and shapes in order: the order is that of the optimizer's state in a checkpoint."""
    lines = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    return {"tensors": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def fill(model: nn.Module) -> nn.Module:
    """Give weights that follow from their names, so that no order of making them matters."""
    for name, value in model.state_dict().items():
        normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        if "running_var" in name:
            normal = 1 + 0.1 * np.abs(normal)
        elif value.ndim > 1 and "parser" not in name:
            normal = 0.7 * normal / np.sqrt(np.prod(value.shape[1:]))
        elif name.endswith(("weight", "sigma")):
            normal = 1 + 0.1 * normal
        else:
            normal = 0.1 * normal
        if value.is_floating_point():
            value.copy_(torch.from_numpy(np.asarray(normal)))
    return model.eval()


def some(values: Tensor | None) -> list[float] | None:
    return None if values is None else [round(float(v), 7) for v in values.flatten()[:: values.numel() // 7][:7]]


def said(name: str) -> dict[str, object]:
    """What a network with such weights says of random images: at once, and as an ensemble."""
    config = configured(name if name not in VARIANTS else "medsegdiff-v2", "exclusive", *VARIANTS.get(name, ()))
    model = fill(build_model(config))
    drawn_from = np.random.RandomState(0)
    shapes = [(2, channels, *fitting(model, 32, 32)) for channels in (2, 3)]
    image, x_t = (torch.from_numpy(drawn_from.standard_normal(shape).astype(np.float32)) for shape in shapes)
    with torch.inference_mode():
        prediction, anchor, *_ = model(image, x_t, torch.tensor([3.0, 700.0]))
    ensemble = EnsembleSampler(model, config, config.sampling, precision="fp32").draw(image, ["a", "b"], seed=3)
    return {
        "prediction": some(prediction),
        "anchor": some(anchor),
        "members": some(ensemble.probability),
        "their_anchor": some(ensemble.anchor),
    }


@pytest.mark.parametrize("preset", preset_names())
def test_weights_keep_names_shapes_and_order(preset: str) -> None:
    with torch.device("meta"):
        model = build_model(assumed(load_preset(preset)))
    assert layout_of(model) == golden("weights.json")[preset]


@pytest.mark.parametrize("name", golden("networks.json"))
def test_a_network_says_of_old_weights_what_it_said(name: str) -> None:
    now = said(name)
    for what, before in golden("networks.json")[name].items():
        assert now[what] is None if before is None else now[what] == pytest.approx(before, abs=1e-5, rel=1e-5), what
