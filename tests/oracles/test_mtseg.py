"""MTSeg gives what its official network gave, is as large, and is trained by the same loss."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from medsegdiff.models.base import SUPERVISIONS, Said, build_model
from medsegdiff.models.mtseg import ORIGINAL_KEYS, ORIGINAL_UNUSED, TRFENet
from tests.makers import configured, randomised
from tests.rivals import difference, load, read_rival, stored

WIDTHS = (64, 128, 256, 512, 1024)


def test_both_decoders_give_what_the_official_network_gave(request: pytest.FixtureRequest) -> None:
    rival = read_rival(request, "mtseg")
    with torch.device("meta"):
        network = TRFENet(3, 1, widths=WIDTHS).eval()
    load(network, rival.state, ORIGINAL_KEYS, ORIGINAL_UNUSED)
    with torch.inference_mode():
        nodule, gland = network(rival.arrays["x"])
    assert difference(nodule, rival.arrays["out"]) < 1e-5
    assert difference(gland, rival.arrays["gland"]) < 1e-5


def test_it_has_the_parameters_that_the_official_network_uses() -> None:
    with torch.device("meta"):
        network = TRFENet(3, 1, widths=WIDTHS)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(43.24e6, rel=1e-3)


def test_the_loss_is_the_official_one_image_by_image(request: pytest.FixtureRequest) -> None:
    held = stored(request, "targets")
    logits, mask = torch.from_numpy(held["binary_logits"]), torch.from_numpy(held["binary"]).float()
    loss = SUPERVISIONS["mtseg"].factory(Said(logits, logits), mask, labels=Labels())
    assert loss.tolist() == pytest.approx(json.loads(str(held["losses"]))["mtseg_per_image"], rel=1e-6)


def test_each_structure_counts_alike_and_what_nobody_labelled_does_not() -> None:
    logits, mask = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 2, 8, 8)).float()
    labels, loss = Labels("regions", ("nodule", "gland")), SUPERVISIONS["mtseg"].factory
    labelled = torch.ones(2, 1, 8, 8)
    labelled[..., 4:] = 0
    half = loss(Said(logits, logits), mask, labels=labels, labelled=labelled)
    nodule, gland = (
        loss(Said(half_, half_), mask[:, i : i + 1, :, :4], labels=Labels())
        for i, half_ in ((0, logits[:, :1, :, :4]), (1, logits[:, 1:, :, :4]))
    )
    assert torch.allclose(half, nodule + gland)


def test_the_background_of_exclusive_classes_is_no_structure() -> None:
    logits, mask = torch.randn(2, 3, 8, 8), F.one_hot(torch.randint(3, (2, 8, 8)), 3).movedim(-1, 1).float()
    found = SUPERVISIONS["mtseg"].factory(Said(logits, logits), mask, labels=Labels("exclusive", ("none", "a", "b")))
    p = logits.softmax(dim=1)
    by_hand = sum(1 - 2 * ((p * mask)[:, k].sum((1, 2)) + 1) / ((p + mask)[:, k].sum((1, 2)) + 1) for k in (1, 2))
    assert torch.allclose(found, by_hand)


@pytest.mark.parametrize("place", [0, 1])
def test_the_glands_channel_comes_from_its_own_decoder(place: int) -> None:
    model = randomised(build_model(configured("mtseg", "regions", f"model.gland={place}")))
    image = torch.randn(1, 2, 16, 24)
    nodule, gland = model.condition_model(image)
    logits = model.condition(image).logits
    assert torch.equal(logits[:, place : place + 1], gland)
    assert torch.equal(logits[:, 1 - place : 2 - place], nodule)


@pytest.mark.parametrize(("task", "place"), [("binary", 0), ("regions", 2)])
def test_a_gland_that_no_mask_channel_holds_is_refused(task: str, place: int) -> None:
    with pytest.raises(ConfigError, match=f"model.gland is {place}.*set model.gland to null"):
        build_model(configured("mtseg", task, f"model.gland={place}"))
