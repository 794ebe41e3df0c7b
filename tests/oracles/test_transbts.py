"""TransBTS gives what its official network gave, is as large in both readings, and is trained by the same loss."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from medsegdiff.config.networks.transbts import TransBTSConfig
from medsegdiff.labels import Labels
from medsegdiff.models.base import SUPERVISIONS, Said, build_model
from medsegdiff.models.transbts import ORIGINAL_KEYS, ORIGINAL_UNUSED, TransBTSNetwork
from tests.makers import configured, randomised
from tests.rivals import difference, load, read_rival, stored


def on_meta(size: int, *, spatial_dims: int) -> TransBTSNetwork:
    with torch.device("meta"):
        return TransBTSNetwork(4, 4, TransBTSConfig(table_size=size), spatial_dims=spatial_dims).eval()


def test_volumes_give_what_the_official_network_gave(request: pytest.FixtureRequest) -> None:
    rival, network = read_rival(request, "transbts"), on_meta(32, spatial_dims=3)
    load(network, rival.state, ORIGINAL_KEYS, ORIGINAL_UNUSED)
    with torch.inference_mode():
        out = network(rival.arrays["x"]).softmax(dim=1)
    assert difference(out, rival.arrays["out"]) < 1e-5


@pytest.mark.parametrize(
    ("size", "spatial_dims", "unused", "parameters"),
    [(128, 3, 512 * 513 + 2 * 512, 32.988e6), (256, 2, 0, 24.76e6)],
)
def test_it_has_the_parameters_of_the_official_network(
    size: int, spatial_dims: int, unused: int, parameters: float
) -> None:
    network = on_meta(size, spatial_dims=spatial_dims)
    assert unused + sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_the_loss_is_the_official_one_of_the_whole_batch(request: pytest.FixtureRequest) -> None:
    held = stored(request, "targets")
    logits, labels = torch.from_numpy(held["logits"]), torch.from_numpy(held["labels"]).long()
    mask, space = F.one_hot(labels, 4).movedim(-1, 1).float(), Labels("exclusive", ("none", "1", "2", "4"))
    expected = json.loads(str(held["losses"]))["transbts"]
    loss = SUPERVISIONS["transbts"].factory
    assert loss(Said(logits, logits), mask, labels=space).tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_what_nobody_labelled_does_not_count() -> None:
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(2, (2, 3, 8, 8)).float()
    labelled = torch.ones(2, 1, 8, 8)
    labelled[..., 4:] = 0
    loss, labels = SUPERVISIONS["transbts"].factory, Labels("regions", ("WT", "TC", "ET"))
    half = loss(Said(logits, logits), mask, labels=labels, labelled=labelled)
    alone = logits[..., :4]
    assert torch.allclose(half, loss(Said(alone, alone), mask[..., :4], labels=labels))


def test_positions_are_those_of_the_table_and_between_them_for_other_sizes() -> None:
    """A table that is linear in the place is linear on any grid, but for its border."""
    model = build_model(configured("transbts", "binary")).condition_model.eval()
    ramp = torch.arange(model.side).float()
    with torch.no_grad():
        model.positions.copy_((10 * ramp[:, None] + ramp).reshape(1, -1, 1).expand_as(model.positions))
    finer = model._table(torch.zeros(1, 16, 2 * model.side, model.side)).unflatten(1, (2 * model.side, model.side))
    rows = (torch.arange(2 * model.side) + 0.5) / 2 - 0.5
    assert torch.allclose(finer[0, 1:-1, :, 0], 10 * rows[1:-1, None] + ramp, atol=1e-5)
    assert model._table(torch.zeros(1, 16, model.side, model.side)) is model.positions


def test_positions_tell_places_apart() -> None:
    model = randomised(build_model(configured("transbts", "binary")))
    flat = torch.full((1, 2, 32, 32), 0.3)
    before = model.condition(flat).logits
    with torch.no_grad():
        model.condition_model.positions[:, 0] += 5
    assert not torch.allclose(model.condition(flat).logits, before, atol=1e-3)
