"""SwinBTS gives what its official network gave, and is as large in both readings; its windows are MONAI's Swin's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask, get_window_size

from medsegdiff.config.networks.swinbts import SwinBTSConfig
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import build_model
from medsegdiff.models.swinbts import ORIGINAL_KEYS, ORIGINAL_UNUSED, SwinBTSNetwork
from medsegdiff.nn.token_grid import Expand
from medsegdiff.nn.windows import WindowAttention, relative_index, window_blocks
from tests.makers import configured, randomised
from tests.rivals import difference, load, read_rival


def on_meta(*, spatial_dims: int, exact: bool = False) -> SwinBTSNetwork:
    with torch.device("meta"):
        return SwinBTSNetwork(4, 3, SwinBTSConfig(exact=exact), spatial_dims=spatial_dims).eval()


def test_volumes_give_what_the_official_network_gave_but_for_biases_where_they_are_put_right(
    request: pytest.FixtureRequest,
) -> None:
    rival, network = read_rival(request, "swinbts"), on_meta(exact=True, spatial_dims=3)
    load(network, rival.state, ORIGINAL_KEYS, ORIGINAL_UNUSED)
    with torch.inference_mode():
        assert difference(network(rival.arrays["x"])[..., ::3, ::3, ::3], rival.arrays["out"]) < 1e-5
        for part in network.modules():
            if isinstance(part, WindowAttention):
                part.exact = False
        changed = difference(network(rival.arrays["x"])[..., ::3, ::3, ::3], rival.arrays["out"])
    assert 0.01 < changed < 0.1


@pytest.mark.parametrize(("spatial_dims", "parameters"), [(3, 35.697e6), (2, 29.52e6)])
def test_it_has_the_parameters_of_the_official_network(spatial_dims: int, parameters: float) -> None:
    network = on_meta(spatial_dims=spatial_dims)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize("sides", [(8, 11), (4, 9), (3, 4), (8, 5, 9), (3, 6, 4)])
def test_blocks_are_monais_swin_blocks(sides: tuple[int, ...]) -> None:
    """Windows that the grid fills, does not fill, and makes smaller; shifted and not."""
    window = (4,) * len(sides)
    ours = window_blocks(6, heads=2, window=window, drops=[0.0, 0.0], exact=True).eval()
    x = expected = torch.randn(2, *sides, 6)
    for block, shift in zip(ours, ((0,) * len(sides), (2,) * len(sides)), strict=True):
        theirs = SwinTransformerBlock(6, 2, window, shift).eval()
        attention, by_itself = block
        theirs.attn.relative_position_bias_table.data = torch.nn.init.normal_(attention.layer.table.data)
        for part, other in (
            (theirs.norm1, attention.norm),
            (theirs.attn.qkv, attention.layer.qkv),
            (theirs.attn.proj, attention.layer.out),
            (theirs.norm2, by_itself.norm),
            (theirs.mlp.linear1, by_itself.layer[0]),
            (theirs.mlp.linear2, by_itself.layer[3]),
        ):
            part.load_state_dict(other.state_dict())
        smaller, by = get_window_size(sides, window, shift)
        filled = [-(-side // of) * of for side, of in zip(sides, smaller, strict=True)]
        expected = theirs(expected, compute_mask(filled, smaller, by, "cpu") if any(by) else None)
    assert torch.allclose(ours(x), expected, atol=1e-5)


def test_pairs_at_the_same_offset_have_the_same_bias_in_windows_of_any_size() -> None:
    full, window = (4, 3), (3, 2)
    places, rows = list(itertools.product(*map(range, full))), relative_index(full, full, exact=False)
    by_offset = {
        tuple(np.subtract(a, b)): rows[i, j] for i, a in enumerate(places) for j, b in enumerate(places)
    }  # one number each: a pair with another number at the same offset would be found below
    for size in (full, window):
        cells = list(itertools.product(*map(range, size)))
        found = relative_index(full, size, exact=False)
        for (i, a), (j, b) in itertools.product(enumerate(cells), repeat=2):
            assert found[i, j] == by_offset[tuple(np.subtract(a, b))]
    assert sorted(by_offset.values()) == list(range(7 * 5))
    assert np.array_equal(relative_index(full, window, exact=True), rows[:6, :6])


def test_a_token_becomes_a_cell_whose_pixels_come_from_neighbouring_channels() -> None:
    expand = Expand(2, patch=2, spatial_dims=2)
    expand.norm, x = torch.nn.Identity(), torch.randn(1, 3, 5, 2)
    wide = expand.linear(x)
    out = expand(x)
    for row, column, down, right in itertools.product(range(3), range(5), range(2), range(2)):
        place = 2 * (2 * down + right)
        assert torch.equal(out[0, 2 * row + down, 2 * column + right], wide[0, row, column, place : place + 2])


def test_branches_are_skipped_ever_more_often_and_never_when_segmenting() -> None:
    model = randomised(build_model(configured("swinbts", "binary")))
    image = torch.randn(4, 2, 16, 16)
    assert torch.equal(model.condition(image).logits, model.condition(image).logits)
    drops = [part.drop_prob for part in model.condition_model.encoder.modules() if hasattr(part, "drop_prob")]
    assert drops == pytest.approx([0, 0, 0.02, 0.02, 0.04, 0.04, 0.06, 0.06])


def test_widths_that_heads_do_not_divide_are_explained() -> None:
    with pytest.raises(
        ConfigError, match=r"channels is 8, the widths are \(8, 16, 32\).*multiple of its heads, \(3, 2\)"
    ):
        configured("swinbts", "binary", "model.heads=[3, 2]")
