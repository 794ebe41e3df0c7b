"""FAT-Net gives what its official network gave, and is as large."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.config.networks.fatnet import FATNetConfig
from medsegdiff.models.base import MODELS
from medsegdiff.models.fatnet import ORIGINAL_KEYS, ORIGINAL_UNUSED, FATNet
from tests.rivals import difference, load, read_rival


def published() -> FATNet:
    with torch.device("meta"):
        return MODELS.build("fatnet", FATNetConfig(), image_channels=3, mask_channels=1).eval()


def test_it_gives_what_the_official_network_gave(request: pytest.FixtureRequest) -> None:
    rival, model = read_rival(request, "fatnet"), published()
    load(model.condition_model, rival.state, ORIGINAL_KEYS, ORIGINAL_UNUSED)
    with torch.inference_mode():
        found = model.condition(rival.arrays["x"]).logits
    assert difference(found, rival.arrays["out"]) < 1e-5


def test_it_has_the_parameters_that_the_official_network_uses() -> None:
    unused = 64 * 16 + 16 + 16 * 16 * 9 + 16 + 16 * 64 + 64 + 2 * (16 + 16 + 64)  # of a step that is never called
    assert sum(p.numel() for p in published().parameters()) == pytest.approx(28.759e6 - unused, abs=500)


def test_its_tokens_carry_no_position() -> None:
    """Patches that change places change places after the transformer; a table of positions would show."""
    torch.manual_seed(0)
    small = FATNetConfig(widths=(4, 8), blocks=(1, 1), dim=6, depth=2, heads=3)
    network = FATNet(small, image_channels=1, mask_channels=1).eval().condition_model
    tokens = torch.randn(1, 16, 6)
    order = torch.randperm(16)
    torch.testing.assert_close(network.layers(tokens[:, order]), network.layers(tokens)[:, order])
