"""Memory of a training step: what is counted without computing is what a real pass keeps."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.models.base import build_model
from medsegdiff.training.memory import COPIES, MARGIN, StepMemory, saved_bytes, step_memory
from tests.makers import small_config


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", ["binary", "exclusive"])
def test_what_is_counted_is_what_a_real_pass_keeps(precision: str, task: str) -> None:
    """Byte for byte, also of autocast, which the meta device does not have."""
    config = small_config(f"data.task={task}", f"data.classes={'[a]' if task == 'binary' else '[a, b, c]'}")
    with torch.device("meta"):
        imagined = build_model(config)
    counted, real = (
        saved_bytes(model, config, 2, 32, precision=precision) for model in (imagined, build_model(config))
    )
    assert counted == pytest.approx(real, rel=0.002)
    assert counted > 1e6


def test_bf16_keeps_less_and_a_gpu_more_of_it_in_full_precision() -> None:
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[a]", "data.image_size=64")
    full, on_cpu, on_gpu = (
        step_memory(config, precision=precision, device=device).per_image
        for precision, device in (("fp32", "cpu"), ("bf16", "cpu"), ("bf16", "cuda"))
    )
    assert 0.4 * full < on_cpu < 0.75 * full
    assert on_cpu < on_gpu < 1.2 * full


def test_weights_count_five_times_and_images_by_their_pixels() -> None:
    small = small_config("data.channels=1", "data.task=binary", "data.classes=[a]", "model.filter_channels=8")
    large = small.model_copy(update={"data": small.data.model_copy(update={"image_size": 64})})
    here, there = step_memory(small, precision="fp32"), step_memory(large, precision="fp32")
    weights = 4 * sum(parameter.numel() for parameter in build_model(small).parameters())
    assert here.fixed == pytest.approx(COPIES * weights, rel=0.1)
    assert 4 < there.per_image / here.per_image < 5  # the affinity of tokens grows with the square of the pixels
    one = saved_bytes(build_model(small), small, 1, 32, precision="fp32")
    assert here.of(1) == pytest.approx(COPIES * weights + MARGIN * one)


def test_the_largest_batch_is_the_last_that_fits() -> None:
    memory = StepMemory(fixed=100.0, per_image=30.0)
    assert [memory.largest_batch(bytes_) for bytes_ in (50.0, 129.0, 130.0, 189.0, 190.0)] == [0, 0, 1, 2, 3]
    assert memory.of(3) == 190
