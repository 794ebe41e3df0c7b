"""The SS-Former: cross-attention in the frequency domain, filtered, without softmax."""

from __future__ import annotations

import math

import pytest
import torch

from medsegdiff.nn.nbp_filter import affinity, band_pass, distinct_radii, spread
from medsegdiff.nn.ss_former import SpectrumAttention, SSFormer, positions

GRIDS = [(4, 4), (5, 4), (4, 6), (3, 5)]

CPU = torch.device("cpu")


def ones(h: int, w: int) -> torch.Tensor:
    return torch.ones(1, h, w, h, w // 2 + 1)


@pytest.fixture
def attention() -> SpectrumAttention:
    torch.manual_seed(0)
    return SpectrumAttention(8)


@pytest.mark.parametrize("grid", GRIDS)
def test_with_an_open_filter_it_is_scaled_softmax_free_attention(
    attention: SpectrumAttention, grid: tuple[int, int]
) -> None:
    length = grid[0] * grid[1]
    query, source = torch.randn(2, length, 8), torch.randn(2, length, 8)
    q = attention.norm_q(query) @ attention.to_q.weight.T
    k = attention.norm_k(source) @ attention.to_k.weight.T
    v = source @ attention.to_v.weight.T
    expected = (q @ k.transpose(1, 2)) @ v / math.sqrt(8 * length)
    assert torch.allclose(
        attention.attend(query, attention.keys_values(source), ones(*grid), grid=grid), expected, atol=1e-5
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_it_equals_the_formula_of_the_paper_with_whole_complex_transforms(grid: tuple[int, int]) -> None:
    """M = F(q) F(k)^T over the token grid, times H, the inverse over all four axes, written out."""
    h, w = grid
    q, k = torch.randn(2, h * w, 6, dtype=torch.float64), torch.randn(2, h * w, 6, dtype=torch.float64)
    table = torch.rand(1, *(len(distinct_radii(h, w, CPU)[0]),) * 2, dtype=torch.float64)

    def transformed(tokens: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(tokens.reshape(2, h, w, 6), dim=(1, 2), norm="ortho").reshape(2, h * w, 6)

    m = transformed(q) @ transformed(k).transpose(1, 2) / math.sqrt(6 * h * w)  # plain transpose, no conjugate
    places = distinct_radii(h, w, CPU)[1].flatten()
    filtered = m * table[:, places][:, :, places]
    f = torch.fft.ifftn(filtered.reshape(2, h, w, h, w), dim=(1, 2, 3, 4), norm="ortho").reshape(2, h * w, h * w)
    assert f.imag.abs().max() < 1e-5
    ours = band_pass(affinity(q, k).double(), spread(table, h, w), h, w)
    assert torch.allclose(ours, f.real, atol=1e-6)


def test_the_adjoint_instead_of_the_transpose_reverses_the_keys() -> None:
    h, w = 4, 4
    q, k = torch.randn(1, h * w, 6, dtype=torch.float64), torch.randn(1, h * w, 6, dtype=torch.float64)

    def transformed(tokens: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(tokens.reshape(1, h, w, 6), dim=(1, 2), norm="ortho").reshape(1, h * w, 6)

    def back(m: torch.Tensor) -> torch.Tensor:
        whole = torch.fft.ifftn(m.reshape(1, h, w, h, w), dim=(1, 2, 3, 4), norm="ortho")
        return whole.real.reshape(1, h * w, h * w)

    right = band_pass(affinity(q, k).double(), ones(h, w), h, w)
    transpose = back(transformed(q) @ transformed(k).transpose(1, 2)) / math.sqrt(6 * h * w)
    adjoint = back(transformed(q) @ transformed(k).mH) / math.sqrt(6 * h * w)
    reverse = (-torch.arange(h)[:, None] % h * w + -torch.arange(w) % w).flatten()
    assert torch.allclose(right, transpose, atol=1e-6)
    assert not torch.allclose(right, adjoint, atol=1e-2)
    assert torch.allclose(right[:, :, reverse], adjoint, atol=1e-6)


def test_permuted_keys_change_the_result_when_the_filter_is_not_flat(attention: SpectrumAttention) -> None:
    torch.manual_seed(1)
    query, source = torch.randn(1, 16, 8), torch.randn(1, 16, 8)
    shuffled = source[:, torch.randperm(16)]
    table = torch.rand(1, *(len(distinct_radii(4, 4, CPU)[0]),) * 2)
    keys_values = [attention.keys_values(s) for s in (source, shuffled)]
    flat = [attention.attend(query, given, ones(4, 4), grid=(4, 4)) for given in keys_values]
    filtered = [attention.attend(query, given, spread(table, 4, 4), grid=(4, 4)) for given in keys_values]
    assert torch.allclose(*flat, atol=1e-5)
    assert not torch.allclose(*filtered, atol=1e-3)


def test_an_uneven_filter_would_not_give_a_real_map() -> None:
    """What the evenness of H is for: without it the inverse has an imaginary part."""
    a = torch.randn(1, 4, 4, 4, 4, dtype=torch.float64)
    uneven = torch.rand(4, 4, 4, 4, dtype=torch.float64)
    assert torch.fft.ifftn(torch.fft.fftn(a, dim=(1, 2, 3, 4)) * uneven, dim=(1, 2, 3, 4)).imag.abs().max() > 1e-2


def test_positions_tell_rows_from_columns() -> None:
    place = positions(3, 5, 8, CPU)
    assert place.shape == (15, 8)
    assert len({tuple(row.tolist()) for row in place}) == 15
    assert torch.equal(place[0, :4], place[1, :4])  # same row
    assert torch.equal(place[0, 4:], place[5, 4:])  # same column


def test_untrained_it_adds_the_condition_to_the_embedding() -> None:
    """Zero-initialised outputs: c^N is c⁰, so the decoder starts from e plus the projected condition."""
    torch.manual_seed(0)
    former = SSFormer(6, 10, time_dim=16, dim=8, num_blocks=2, filter_channels=4, filter_blocks=2)
    e, c = torch.randn(2, 10, 4, 4), torch.randn(2, 6, 4, 4)
    out = former(e, former.encode_image(c), former.tabulate(torch.randn(2, 16), 4, 4))
    tokens = former.embed_c(c) + positions(4, 4, 8, CPU).T.reshape(1, 8, 4, 4)
    assert torch.allclose(out, e + former.project(tokens), atol=1e-6)


def test_roles_alternate_as_in_the_paper() -> None:
    """Module 1: query e, key and value c. Module 2: query c̃, key and value e. e is the same in all blocks."""
    torch.manual_seed(0)
    former = SSFormer(8, 8, time_dim=16, dim=8, num_blocks=2, filter_channels=4, filter_blocks=2)
    queries, sources, outs = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
    for block in former.blocks:
        for part in (block.encode_noise, block.encode_semantics):
            torch.nn.init.normal_(part.out.weight, std=0.1)
            part.register_forward_hook(lambda m, args, out: queries.append(args[0]) or outs.append(out))
            part.norm_k.register_forward_hook(lambda m, args, out: sources.append(args[0]))
    e, c = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    former(e, former.encode_image(c), former.tabulate(torch.randn(1, 16), 4, 4))
    e_tokens, c_tokens = former._tokens(former.embed_e(e)), former._tokens(former.embed_c(c))
    expected = [(e_tokens, c_tokens), (outs[0], e_tokens), (e_tokens, outs[1]), (outs[2], e_tokens)]
    for query, source, (right_query, right_source) in zip(queries, sources, expected, strict=True):
        assert torch.equal(query, right_query)
        assert torch.equal(source, right_source)
