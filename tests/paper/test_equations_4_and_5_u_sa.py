"""U-SA: f_anc = max(f_c * k_Gauss, f_c); f_d' = sigmoid(conv1×1(f_anc)) · f_d + f_d."""

from __future__ import annotations

import math

import pytest
import torch

from medsegdiff.models.base import build_model
from medsegdiff.nn.u_sa import SIGMA_RANGE, UncertainSpatialAttention, apply_gate
from tests.makers import small_config


def direct_blur(feature: torch.Tensor, sigma: float, taps: int) -> torch.Tensor:
    """Convolve one map with a 2-D Gaussian, term by term, borders repeated."""
    h, w = feature.shape
    reach = taps // 2
    weights = {
        (dy, dx): math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
    }
    total = sum(weights.values())
    out = torch.zeros_like(feature)
    for y in range(h):
        for x in range(w):
            out[y, x] = sum(
                weight * feature[min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)]
                for (dy, dx), weight in weights.items()
            )
    return out / total


@pytest.fixture
def u_sa() -> UncertainSpatialAttention:
    torch.manual_seed(0)
    module = UncertainSpatialAttention(2, sigma=1.5, taps=7).double()
    with torch.no_grad():
        module.sigma.copy_(torch.tensor([0.8, 2.0]))
    return module


def test_equations_4_and_5_equal_a_direct_convolution(u_sa: UncertainSpatialAttention) -> None:
    f_c = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    f_d = torch.randn(1, 5, 9, 8, dtype=torch.float64)
    blurred = torch.stack([direct_blur(f_c[0, c], u_sa.sigma[c].item(), 7) for c in range(2)])
    f_anc = torch.where(blurred > f_c[0], blurred, f_c[0])
    weight, bias = u_sa.to_map.weight[0, :, 0, 0], u_sa.to_map.bias
    gate = 1 / (1 + torch.exp(-(weight[0] * f_anc[0] + weight[1] * f_anc[1] + bias)))
    expected = gate * f_d[0] + f_d[0]
    assert torch.allclose(apply_gate(u_sa(f_c), f_d)[0], expected, atol=1e-6)


def test_blur_of_a_constant_is_that_constant_up_to_the_border(u_sa: UncertainSpatialAttention) -> None:
    f_c = torch.full((1, 2, 6, 6), 3.0, dtype=torch.float64)
    assert torch.allclose(u_sa.smooth(f_c), f_c, atol=1e-6)


def test_maximum_keeps_a_sharp_peak(u_sa: UncertainSpatialAttention) -> None:
    f_c = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    f_c[:, :, 4, 4] = 1
    f_anc = torch.maximum(u_sa.smooth(f_c), f_c)
    assert f_anc[0, :, 4, 4].tolist() == [1.0, 1.0]
    assert (f_anc[0, :, 4, 5] > 0).all()


def test_sigma_is_learned_within_its_range() -> None:
    module = UncertainSpatialAttention(1, sigma=4.0)
    module(torch.randn(1, 1, 16, 16)).sum().backward()
    assert module.sigma.grad is not None
    assert module.sigma.grad.abs() > 0
    with torch.no_grad():
        module.sigma.fill_(100.0)
    wide = module.kernel()
    with torch.no_grad():
        module.sigma.fill_(SIGMA_RANGE[1])
    assert torch.equal(wide, module.kernel())


def test_what_is_added_beside_the_gate_starts_at_nothing_and_then_passes_the_features_themselves() -> None:
    """A gate passes one number per place; with the sum the features themselves are linear in what comes out."""
    plain, added = (build_model(small_config(f"model.anchor_add={on}")).eval() for on in ("false", "true"))
    added.load_state_dict(plain.state_dict(), strict=False)
    image, x_t, t = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32), torch.tensor([500.0])
    assert torch.equal(plain(image, x_t, t).prediction, added(image, x_t, t).prediction)
    adder = added.diffusion_model.adders["0"]
    features = [torch.randn(1, width, 32 >> level, 32 >> level) for level, width in enumerate((8, 16, 16))]
    torch.nn.init.normal_(adder.weight)
    by_hand = torch.einsum("oc,bchw->bohw", adder.weight[:, :, 0, 0], features[0])
    assert torch.allclose(added.diffusion_model.additions(features)[0], by_hand, atol=1e-5)
    assert not torch.allclose(plain(image, x_t, t).prediction, added(image, x_t, t).prediction)
