"""TransUNet gives what its official network gave, is as large, and is trained by the same loss."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.load import load_preset
from medsegdiff.config.networks.transunet import TransUNetConfig
from medsegdiff.config.spec import assumed
from medsegdiff.labels import Labels
from medsegdiff.models.base import SUPERVISIONS, Said, build_model
from medsegdiff.models.renaming import renamed
from medsegdiff.models.transunet import ORIGINAL_KEYS, HybridUNet
from medsegdiff.nn.standardised_resnet import StandardisedConv2d, StandardisedResNet
from tests.makers import randomised, small_network
from tests.rivals import difference, read_rival, stored

BINARY, REGIONS = Labels(), Labels("regions", ("disc", "cup"))


def loss_of(logits: Tensor, mask: Tensor, labels: Labels, labelled: Tensor | None = None) -> Tensor:
    return SUPERVISIONS["transunet"].factory(Said(logits, logits), mask, labels=labels, labelled=labelled)


def test_it_gives_what_the_official_network_gave(request: pytest.FixtureRequest) -> None:
    rival = read_rival(request, "transunet")
    with torch.device("meta"):
        network = HybridUNet(TransUNetConfig(image_size=64), image_channels=3, mask_channels=9).eval()
    network.load_state_dict(renamed(rival.state, ORIGINAL_KEYS), assign=True)
    with torch.inference_mode():
        assert difference(network(rival.arrays["x"]), rival.arrays["out"]) < 1e-5


@pytest.mark.parametrize(("side", "millions"), [(224, 105.28), (256, 105.32)])
def test_it_has_the_parameters_of_the_official_network(side: int, millions: float) -> None:
    with torch.device("meta"):
        model = build_model(assumed(load_preset("transunet", [f"model.image_size={side}"])))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=1e-4)


def test_kernels_have_mean_0_and_variance_1_over_what_they_take_in() -> None:
    convolution = StandardisedConv2d(3, 5, 3, padding=1, bias=False)
    weight = convolution.weight.detach().double().flatten(1)
    kernels = (weight - weight.mean(dim=1, keepdim=True)) / (
        weight.var(dim=1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    x = torch.randn(2, 3, 6, 7)
    expected = F.conv2d(x.double(), kernels.view(5, 3, 3, 3), padding=1)
    assert torch.allclose(convolution(x).double(), expected, atol=1e-5)


def test_only_the_features_of_the_first_stage_are_filled_up_below_and_to_the_right() -> None:
    encoder = randomised(StandardisedResNet(2, width=4, blocks=(1, 1, 1)))
    stem, first, second, third = encoder(torch.randn(1, 2, 32, 48))
    assert [tuple(of.shape[1:]) for of in (stem, first, second, third)] == [
        (4, 16, 24),
        (16, 8, 12),
        (32, 4, 6),
        (64, 2, 3),
    ]
    assert not first[..., -1, :].any()
    assert not first[..., -1].any()
    assert first[..., :-1, :-1].any()
    assert all(of[..., -1].any() and of[..., -1, :].any() for of in (stem, second, third))


def test_a_grey_image_is_seen_in_three_equal_channels() -> None:
    grey = randomised(build_model(small_network("transunet", "data.channels=1")))
    colour = build_model(small_network("transunet", "data.channels=3")).eval()
    colour.load_state_dict(grey.state_dict())
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(grey.condition(image).logits, colour.condition(image.repeat(1, 3, 1, 1)).logits)


def test_the_loss_is_the_official_one(request: pytest.FixtureRequest) -> None:
    held = stored(request, "targets")
    logits, classes = torch.from_numpy(held["logits"]), torch.from_numpy(held["labels"]).long()
    mask = F.one_hot(classes, 4).movedim(-1, 1).float()
    found = loss_of(logits, mask, Labels("exclusive", ("none", "a", "b", "c")))
    assert found.mean().item() == pytest.approx(json.loads(str(held["losses"]))["transunet"], rel=1e-6)


def test_one_structure_is_read_as_two_classes_and_several_as_the_mean_of_such() -> None:
    logits, mask = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 2, 8, 8)).float()
    alone = []
    for each in (0, 1):
        own, drawn = logits[:, each : each + 1], mask[:, each : each + 1]
        two, both = torch.cat([torch.zeros_like(own), own], dim=1), torch.cat([1 - drawn, drawn], dim=1)
        alone.append(loss_of(two, both, Labels("exclusive", ("none", "structure"))))
        assert torch.allclose(loss_of(own, drawn, BINARY), alone[-1], atol=1e-6)
    assert torch.allclose(loss_of(logits, mask, REGIONS), torch.stack(alone).mean(dim=0), atol=1e-6)


def test_what_nobody_labelled_does_not_count() -> None:
    logits, mask, labelled = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 2, 8, 8)).float(), torch.ones(2, 1, 8, 8)
    labelled[..., 4:] = 0
    expected = loss_of(logits[..., :4], mask[..., :4], REGIONS)
    assert torch.allclose(loss_of(logits, mask, REGIONS, labelled), expected, atol=1e-6)
