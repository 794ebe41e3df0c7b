"""Operations: networks counted by hand, the published size of the reference, Fourier transforms by their formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from medsegdiff.benchmark.flops import counted_pass, extended, operations
from medsegdiff.benchmark.nnunet_reference import FORWARDS, planned_widths
from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import budget
from medsegdiff.models.nnunet import PlainUNet
from tests.makers import small_config


def test_a_small_network_counts_as_it_does_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1))
    counted = operations(lambda: net(torch.zeros(2, 3, 10, 10)))
    first, second = 2 * 100 * 8 * 3 * 9, 2 * 25 * 4 * 8 * 9  # images · pixels · channels out · channels in · 3×3
    assert counted.counted == 2 * (first + second)
    assert counted.elementwise == 2 * 8 * 100  # the ReLU
    assert counted.fft == 0


def test_a_transposed_convolution_and_a_product_count_as_they_do_by_hand() -> None:
    up = nn.ConvTranspose2d(6, 5, 2, stride=2)
    assert operations(lambda: up(torch.zeros(1, 6, 7, 7))).counted == 2 * 49 * 6 * 5 * 4
    assert operations(lambda: torch.zeros(3, 4, 5) @ torch.zeros(3, 5, 6)).counted == 2 * 3 * 4 * 5 * 6


def test_normalisations_are_estimated_with_eight_operations_per_value() -> None:
    for norm in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm(6)):
        assert operations(lambda norm=norm: norm(torch.zeros(1, 4, 6, 6))).elementwise == pytest.approx(
            8 * 144, rel=0.3
        )


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_real_fourier_transform_there_and_back_is_five_n_log_n(device: str) -> None:
    grid = torch.zeros(2, 8, 8, 8, 8, device=device)
    axes, n = (1, 2, 3, 4), 2 * 8**4
    there = operations(lambda: torch.fft.rfftn(grid, dim=axes)).fft
    both = operations(lambda: torch.fft.irfftn(torch.fft.rfftn(grid, dim=axes), s=(8, 8, 8, 8), dim=axes)).fft
    assert there == pytest.approx(2.5 * n * math.log2(8**4), rel=0.1)
    assert both == pytest.approx(2 * there, rel=0.1)
    assert operations(lambda: torch.fft.fft(grid.to(torch.complex64))).fft == 5 * n * 3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reference_has_the_size_of_the_plan_of_nnunet(channels: int) -> None:
    """33.5 M parameters and 29.6 GFLOP at 256×256; 592 GFLOP for an image."""
    with torch.device("meta"):
        net = PlainUNet(channels, 2, widths=planned_widths(256), deep_supervision=False)
        image = torch.empty(1, channels, 256, 256)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(33.5e6, rel=0.01)
    one = operations(lambda: net(image)[0]).counted
    assert one == pytest.approx(29.6e9, rel=0.02)
    assert FORWARDS * one == pytest.approx(592e9, rel=0.02)


def test_the_reference_gives_logits_at_full_resolution_and_stops_halving_at_four_pixels() -> None:
    assert [len(planned_widths(size)) for size in (16, 32, 64, 128, 256, 320, 512)] == [3, 4, 5, 6, 7, 7, 8]
    net = PlainUNet(1, 2, widths=planned_widths(32), deep_supervision=False)
    assert (net.stride, net(torch.rand(2, 1, 32, 48))[0].shape) == (8, (2, 2, 32, 48))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 2 * (4 + 3)
    assert sum(m.stride == (2, 2) for m in convolutions) == 3


def test_operations_of_an_image_are_condition_and_members_times_steps_of_the_denoiser() -> None:
    config = small_config("data.channels=3", "data.task=binary", "data.classes=[a]")
    price, counted = budget(config), counted_pass(config, members=5, steps=7)
    assert counted["condition"].counted == pytest.approx(2e9 * price.condition_gmac, rel=0.02)
    assert counted["steps"].counted == pytest.approx(2e9 * 5 * 7 * price.denoiser_gmac, rel=0.02)
    assert counted["tables"].counted > 0
    for stage in ("tables", "steps"):
        one, three = (counted_pass(config, members=5, steps=steps)[stage].counted for steps in (1, 3))
        assert three == pytest.approx(3 * one)


def test_transforms_of_the_paper_are_counted_in_the_steps_alone() -> None:
    """Two transforms in each of 8 modules, of 10 members, of a map of 256 × 256 tokens."""
    config = assumed(load_preset("v2-paper"))
    counted = counted_pass(config, members=10, steps=1)
    assert counted["steps"].fft == pytest.approx(8 * 10 * 2 * 2.5 * 256**2 * 16)
    assert counted["condition"].fft == counted["tables"].fft == 0


def test_steps_that_were_not_made_cost_the_mean_of_the_later_ones_chunk_by_chunk() -> None:
    assert extended([5.0, 1.0, 3.0], made=3, steps=10) == 9 + 7 * 2
    assert extended([5.0, 1.0, 9.0, 2.0], made=2, steps=4) == 17 + 2 * (1 + 2)
    assert extended([4.0], made=1, steps=3) == 12
    assert extended([4.0], made=2, steps=9) == 4  # once for all steps
    assert extended([], made=2, steps=9) == 0
