"""The NBP-Filter: a coordinate network over pairs of radial frequencies, moved by the time step."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.nn.hartley import BY_PRODUCTS, hartley
from medsegdiff.nn.nbp_filter import BY_FFT, FilterBlock, NBPFilter, distinct_radii, spread

CPU = torch.device("cpu")


@pytest.fixture
def nbp() -> NBPFilter:
    torch.manual_seed(0)
    module = NBPFilter(time_dim=16, channels=8, num_blocks=6)
    torch.nn.init.normal_(module.head.weight)
    return module


@pytest.mark.parametrize(("size", "count"), [(8, 15), (16, 42)])
def test_number_of_distinct_radii(size: int, count: int) -> None:
    radii, places = distinct_radii(size, size, CPU)
    assert len(radii) == count
    assert places.shape == (size, size)
    assert radii.min() == 0
    assert radii.max() == pytest.approx(1.0)


@pytest.mark.parametrize("grid", [(4, 4), (8, 6), (5, 7)])
def test_table_equals_direct_evaluation_at_every_entry(nbp: NBPFilter, grid: tuple[int, int]) -> None:
    h, w = grid
    time = torch.randn(3, 16)
    along_h, along_w = torch.fft.fftfreq(h), torch.fft.fftfreq(w)
    omega = torch.hypot(along_h[:, None].expand(h, w), along_w[None].expand(h, w)) * 2**0.5
    omega_q = omega[:, :, None, None].expand(h, w, h, w // 2 + 1)
    omega_k = omega[None, None, :, : w // 2 + 1].expand(h, w, h, w // 2 + 1)
    direct = nbp.at(omega_q, omega_k, time)
    assert torch.allclose(spread(nbp(h, w, time), h, w), direct, atol=1e-6)


def test_filter_starts_near_pass_through_and_lies_between_0_and_1() -> None:
    h = NBPFilter(time_dim=16)(8, 8, torch.randn(4, 16))
    assert h.min() > 0.5
    assert h.max() < 1


def test_filter_moves_with_the_time_step(nbp: NBPFilter) -> None:
    a, b = nbp(4, 4, torch.randn(2, 16))
    assert not torch.allclose(a, b, atol=1e-3)


def test_filter_is_even_in_every_frequency(nbp: NBPFilter) -> None:
    h, w = 6, 4
    places = distinct_radii(h, w, CPU)[1].flatten()
    whole = nbp(h, w, torch.randn(1, 16))[0][places][:, places].reshape(h, w, h, w)
    mirrored = torch.roll(whole.flip(0, 1, 2, 3), (1, 1, 1, 1), (0, 1, 2, 3))
    assert torch.equal(whole, mirrored)


def test_a_batch_of_times_equals_its_elements(nbp: NBPFilter) -> None:
    time = torch.randn(3, 16)
    assert torch.allclose(nbp(4, 4, time), torch.cat([nbp(4, 4, t[None]) for t in time]), atol=1e-6)


def test_a_block_is_convolution_normalisation_scale_and_shift_and_silu_in_this_order() -> None:
    """With the scale and the shift set by hand, against the formula written out."""
    block, x = FilterBlock(3, 4, time_dim=5), torch.randn(1, 6, 3)
    scale, shift = torch.tensor([0.5, -0.2, 0.0, 2.0]), torch.tensor([0.3, -1.0, 4.0, 0.1])
    with torch.no_grad():
        block.time[-1].weight.zero_()
        block.time[-1].bias.copy_(torch.cat([scale, shift]))
    y = x @ block.conv.weight.T + block.conv.bias
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = y * (1 + scale) + shift
    assert torch.allclose(block(x, torch.randn(1, 5)), y * torch.sigmoid(y), atol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (5, 6), (8, 3), (2, 7)])
def test_products_of_real_matrices_filter_as_the_fourier_transform_does(grid: tuple[int, int]) -> None:
    h, w = grid
    radii = len(distinct_radii(h, w, torch.device("cpu"))[0])
    generator = torch.Generator().manual_seed(0)
    table, a = torch.rand(1, radii, radii, generator=generator), torch.randn(3, h * w, h * w, generator=generator)
    expected, found = (way.band_pass(a, way.spread(table, h, w), h, w) for way in (BY_FFT, BY_PRODUCTS))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_hartley_s_transform_is_its_own_inverse_and_real_less_imaginary_part_of_fourier_s() -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    once, fourier = x @ hartley(7, x.device), torch.fft.fft(x, norm="ortho")
    torch.testing.assert_close(once, fourier.real - fourier.imag)
    torch.testing.assert_close(once @ hartley(7, x.device), x)
