"""Nothing in a training step, or in the steps of a sampler, waits for a GPU.

On the meta device whatever asks for a value raises. What waits without asking, a copy from memory that is not pinned
and not told to be ``non_blocking``, is watched for.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils._python_dispatch import TorchDispatchMode

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion import noise
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import MODELS, build_model
from medsegdiff.training import step as training
from medsegdiff.training.step import TrainingStep
from medsegdiff.types import Batch
from tests.makers import configured, fitting

META = torch.device("meta")
NETWORKS = [entry.name for entry in MODELS]
LEARNED = {"medsegdiff-v1", "release", "medsegdiff-transunet"}


class NoWaiting(TorchDispatchMode):
    """Refuses copies between devices that wait for what the GPU has yet to do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = kwargs or {}
        moved = func is torch.ops.aten._to_copy.default and asked.get("device") not in (None, args[0].device)
        assert not moved or asked.get("non_blocking"), f"a copy of {tuple(args[0].shape)} waits"
        return func(*args, **asked)


@pytest.fixture(autouse=True)
def noise_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(noise.AT_ONCE, "meta", noise.AT_ONCE["cuda"])


def built_on_meta(config: ResolvedConfig) -> torch.nn.Module:
    with META:
        return build_model(config)


def step_on_meta(config: ResolvedConfig, monkeypatch: pytest.MonkeyPatch) -> TrainingStep:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    for state in (AcceleratorState, PartialState):  # the first is brought in line with the other again and again
        monkeypatch.setitem(state._shared_state, "device", META)
    monkeypatch.setattr(training, "build_model", built_on_meta)
    monkeypatch.setattr(training, "SKIPPING", {"meta"})
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda _: None)  # it has never heard of this device
    return TrainingStep(config, accelerator)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_step_asks_the_device_nothing(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = ("model.learn_sigma=true",) if network in LEARNED else ()
    config = configured(network, "exclusive", "train.batch_size=2", "train.snapshots=1", *learned)
    step = step_on_meta(config, monkeypatch)
    h, w = fitting(step.network, 32, 32)
    image, mask = torch.zeros(2, 2, h, w, device=META), torch.zeros(2, config.mask_channels, h, w, device=META)
    step(Batch(image, mask, (0, 1)))  # tables that depend on the size alone are made once
    with NoWaiting():
        step(Batch(image, mask, (2, 3)))
    assert step.progress.step == 2
    with pytest.raises(RuntimeError, match="meta"):
        step.count_skipped()  # which does wait, and is done every few steps


@pytest.mark.parametrize("network", NETWORKS)
def test_drawing_an_ensemble_asks_the_device_nothing(network: str) -> None:
    config = configured(network, "exclusive", "sampling.members=2", "sampling.steps=2", "sampling.batch_size=4")
    model = built_on_meta(config).eval()
    sampler = EnsembleSampler(model, config, config.sampling, precision="fp32")
    image = torch.zeros(2, 2, *fitting(model, 32, 32), device=META)
    sampler.draw(image, ["a", "b"], seed=0)
    with NoWaiting():
        drawn = sampler.draw(image, ["c", "d"], seed=0)
    assert drawn.probability.device == META
