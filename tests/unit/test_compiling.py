"""Compiled steps: the same masks, and no end of the work where the compiler fails."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medsegdiff.benchmark.timing import Meter
from medsegdiff.config.run import Config
from medsegdiff.inference.resources import CompiledStep, is_compiled
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import build_model
from tests.makers import denoised, randomised, small_config

CONFIG = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]")
IMAGE = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))

AS_EAGER = """
import torch
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.resources import compile_steps, is_compiled
from medsegdiff.models.base import build_model
from tests.makers import randomised, small_config

about = ("data.channels=1", "data.task=binary", "data.classes=[lesion]", "data.image_size=16")
narrow = [f"model.{part}_widths=[8, 8]" for part in ("condition", "diffusion")]
config = small_config(*about, *narrow, "model.anchor_levels=[0]", "model.detail_channels=4")
model, image = randomised(build_model(config)), torch.rand(1, 1, 16, 16)
sampler = EnsembleSampler(model, config, config.sampling, precision="fp32")
plain = sampler.draw(image, ["a"], seed=0).probability
compile_steps(model, torch.device("cpu"))
compiled = sampler.draw(image, ["a"], seed=0).probability
assert is_compiled(model)
torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-4)
assert plain.std() > 0.01
"""


def segmenter(config: Config = CONFIG, **options: Any) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32", **options)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no compiler")
def test_compiled_members_are_those_drawn_without_a_compiler_but_for_rounding() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AS_EAGER], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])  # the compiler's, and checks of what it made
def test_where_the_compiler_fails_it_is_said_once_and_masks_come_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    expected = segmenter()(IMAGE).probability
    calls: list[int] = []

    def without_compiler(step: object, **_: object) -> Any:
        def fail(*_: object, **__: object) -> torch.Tensor:
            calls.append(1)
            raise kind("\nNo working C++ compiler found in g++\nlong story")

        return fail

    monkeypatch.setattr(torch, "compile", without_compiler)
    with caplog.at_level(logging.WARNING):
        compiled = segmenter(compiled=True)
        found = compiled(IMAGE).probability
    assert (found == expected).all()
    assert len(calls) == 1
    assert not is_compiled(compiled.model)
    assert [record.getMessage() for record in caplog.records] == [
        "The steps are not compiled (No working C++ compiler found in g++). It goes on without; leave --compile away."
    ]


def test_an_error_of_the_step_itself_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    with pytest.raises(RuntimeError, match="out of memory"):
        CompiledStep(broken, on_gpu=False)()


def test_on_a_gpu_a_result_outlives_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph writes each result to the same place."""
    place, modes, begun = torch.zeros(3), list[object](), list[int]()

    def recorded(step: object, *, mode: object) -> Any:
        modes.append(mode)
        return place.copy_

    monkeypatch.setattr(torch, "compile", recorded)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    step = CompiledStep(torch.clone, on_gpu=True)
    first, second = step(torch.ones(3)), step(2 * torch.ones(3))
    assert (first.tolist(), second.tolist(), modes, len(begun)) == ([1.0] * 3, [2.0] * 3, ["reduce-overhead"], 2)


def test_nothing_is_compiled_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda step, **_: asked.append(step) or step)
    assert not is_compiled(segmenter().model)
    assert not asked
    assert is_compiled(segmenter(compiled=True).model)
    assert len(asked) == 1


def test_a_compiled_step_is_still_there_after_it_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    model = segmenter(compiled=True).model
    step, condition = model.denoise, model.condition
    meter = Meter(lambda: 0.0)
    with meter.watch(model, {"denoise": "steps", "condition": "condition"}):
        denoised(model, torch.zeros(1, 1, 32, 32), torch.zeros(1), model.condition(torch.zeros(1, 1, 32, 32)))
    assert meter.spans == {"steps": [0.0], "condition": [0.0]}
    assert model.denoise is step
    assert "condition" not in vars(model)
    assert model.condition == condition
