"""Every registered model trains, resumes, samples, segments and compiles as any other."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from medsegdiff.config.run import Config
from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import MODELS, build_model
from medsegdiff.models.checkpoint import BEST, LAST, STATE, load_config
from medsegdiff.training.run import Run
from medsegdiff.training.train import train
from tests.integration.test_training import assert_equal, progress, stopping_at, weights
from tests.makers import configured, fitting, make_folder, randomised, small_network

STEPS = (
    *("train.max_steps=3", "train.val_every=3", "train.save_every=3", "train.batch_size=2", "train.num_workers=0"),
    *("train.val_cases=1", "train.val_members=2", "train.val_steps=1"),
)


@dataclass(frozen=True)
class Trained:
    """A run of three steps without a break, and what was said."""

    name: str
    config: Config
    folder: Path
    said: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"), count=8)


@pytest.fixture(scope="module", params=[entry.name for entry in MODELS])
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    side = fitting(build_model(small_network(request.param)), 16, 16)[0]
    config, said = small_network(request.param, *STEPS, f"data.image_size={side}"), StringIO()
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(data, folder, config, device="cpu", console=Console(file=said, width=200))
    return Trained(request.param, config, folder, said.getvalue())


def test_training_that_goes_on_ends_as_if_it_had_never_stopped(run: Trained, data: Path, tmp_path: Path) -> None:
    patch = stopping_at(2)
    assert train(data, tmp_path / "parts", run.config, device="cpu").reason == "interrupted"
    patch.undo()
    torch.manual_seed(12345)  # nothing may depend on what the process drew before
    assert train(data, tmp_path / "parts", run.config, resume=True, device="cpu").step == 3
    for file in (STATE, LAST, BEST):
        assert_equal(weights(run.folder, file), weights(tmp_path / "parts", file))
    assert progress(run.folder) == progress(tmp_path / "parts")


def test_training_moves_the_weights_and_tells_of_an_anchor_only_if_there_is_one(run: Trained) -> None:
    torch.manual_seed(run.config.train.seed)
    begun, after = build_model(load_config(run.folder)), weights(run.folder, STATE)
    assert any((after[f"model.{name}"] != value).any() for name, value in begun.named_parameters())
    losses, validation = Run(run.folder).lines()
    assert (losses["step"], validation["step"]) == (3, 3)
    has_one = MODELS[run.name].facts.has_anchor
    assert (("loss_anchor" in losses), ("dice_anchor" in validation)) == (has_one, has_one)
    assert all(np.isfinite(value) for value in {**losses, **validation}.values())
    assert "validation Dice" in run.said
    assert ("anchor" in run.said) == has_one


def test_what_it_segments_has_an_anchor_only_if_it_has_one(run: Trained, data: Path, tmp_path: Path) -> None:
    result = Segmenter.from_pretrained(run.folder, device="cpu")(data / "images" / "case00.png", members=2, steps=2)
    result.save(tmp_path)
    has_one = MODELS[run.name].facts.has_anchor
    assert result.mask.shape == (40, 32)
    assert [part is not None for part in (result.anchor, result.anchor_probability)] == [has_one, has_one]
    assert (tmp_path / "anchor").exists() == has_one
    assert (tmp_path / "masks" / "case00.png").is_file()


def test_it_samples_with_every_sampler(name: str) -> None:
    """Masks are finite, of the right shape, the same for the same seed; members differ if noise means anything."""
    config = configured(name, "regions")
    model = randomised(build_model(config))
    size = fitting(model, 16, 24)
    image = torch.randn(2, 2, *size)
    for entry in SAMPLERS:
        sampling = config.sampling.model_copy(update={"sampler": entry.name, "steps": 3, "members": 3})
        sampler = EnsembleSampler(model, config, sampling, precision="fp32")
        drawn, again = (sampler.draw(image, ["a", "b"], seed=1).probability for _ in range(2))
        assert drawn.shape == (3, 2, 2, *size), entry.name
        assert drawn.isfinite().all(), entry.name
        assert 0 <= drawn.min() <= drawn.max() <= 1, entry.name
        assert torch.equal(drawn, again), entry.name
        spread = (drawn - drawn[:1]).abs().max()
        assert (spread > 1e-3) == (MODELS[name].facts.kind == "diffusion"), entry.name


COMPILED = """
import functools, json, torch
from medsegdiff.inference.resources import compile_steps, is_compiled
from medsegdiff.models.base import MODELS, build_model
from tests.makers import configured, fitting, randomised

torch.compile = functools.partial(torch.compile, backend="aot_eager")  # no code is generated: it takes a minute each
for entry in MODELS:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = randomised(build_model(configured(entry.name, "regions")))
    size = fitting(model, 16, 16)
    image, x_t, t = torch.randn(1, 2, *size), torch.randn(2, 2, *size), torch.tensor([300.0])
    with torch.inference_mode():
        condition, time = model.condition(image).expand(0, 2), model.at(t, size)
        plain = model.denoise(x_t, time, condition)
        compile_steps(model, torch.device("cpu"))
        compiled = model.denoise(x_t, time, condition)
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    found = {"whole": is_compiled(model), "breaks": breaks, "difference": (compiled - plain).abs().max().item()}
    print(json.dumps({"name": entry.name, "scale": plain.abs().max().item(), **found}), flush=True)
"""


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    """Compile a step of each network, in a process where no types are checked: the compiler can't see through that."""
    command = [sys.executable, "-c", COMPILED]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {found.pop("name"): found for found in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.slow
def test_its_step_compiles_in_one_piece_and_computes_the_same(
    name: str, compiled: dict[str, dict[str, object]]
) -> None:
    found = compiled[name]
    assert found["whole"]
    assert found["breaks"] == {}
    assert found["difference"] < 1e-4 * found["scale"]
