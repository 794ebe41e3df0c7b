"""The authors' own code is the truth: with its weights, our networks give what it gave (fixtures of its output)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from medsegdiff.authors.architecture import infer
from medsegdiff.authors.names import check_whole, translate
from medsegdiff.models.base import MODELS
from tests.authors import Fixture, read_fixture


@pytest.fixture(params=["release", "v1"])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    file = Path(request.config.getoption("--data-root")).parent / "parity" / f"{request.param}.npz"
    if not file.is_file():
        pytest.skip(f"no fixture of the authors' code at {file} (set --data-root to the folder of data beside it)")
    return read_fixture(file)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_our_networks_give_what_the_authors_code_gave(fixture: Fixture) -> None:
    found = infer(fixture.state)
    with torch.device("meta"):
        model = MODELS.build(found.network.name, found.network, image_channels=3, mask_channels=1).eval()
    weights = translate(fixture.state, found.network)
    assert check_whole(weights, model.state_dict()) == []
    model.load_state_dict(weights, assign=True)
    with torch.inference_mode():
        out, logits, *_ = model(fixture.x[:, :3], fixture.x[:, 3:], fixture.t.float())
    assert difference(out, fixture.out) < 1e-5
    assert difference(logits.sigmoid(), fixture.cal) < 1e-5
