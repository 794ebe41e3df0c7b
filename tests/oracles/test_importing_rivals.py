"""Checkpoints of the rivals' official networks become runs: by the names and shapes that their own code gave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medsegdiff.authors import describe, import_checkpoint, understood
from medsegdiff.authors.names import check_whole
from medsegdiff.authors.rivals import RIVALS
from medsegdiff.errors import CheckpointError
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import load_model
from tests.rivals import difference, read_rival, stored

COPIES = {
    "beal": {"backbone.low_level_features.0.0.weight": (32, 3, 3, 3)},
    "fatnet": {"FAM1.5.conv3.weight": (64, 64, 3, 3)},
}
"""What official checkpoints hold twice."""


def shapes_of(request: pytest.FixtureRequest, name: str) -> dict[str, Tensor]:
    """An official checkpoint without its numbers."""
    table = {key: shape for key, (shape, _) in json.loads(str(stored(request, name)["table"])).items()}
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in (table | COPIES.get(name, {})).items()}


@pytest.mark.parametrize("name", RIVALS)
def test_every_weight_of_an_official_network_finds_its_place(name: str, request: pytest.FixtureRequest) -> None:
    found, weights = understood(shapes_of(request, name))
    assert (found.network.name, found.image_channels) == (name, 3)
    config = describe(found, image_size=None, classes=None, values=None)
    with torch.device("meta"):
        wanted = build_model(config).state_dict()
    assert check_whole(weights, wanted) == []


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [
        ("transunet", "exclusive", ("background", *(f"class_{number}" for number in range(1, 9)))),
        ("beal", "regions", ("region 1", "region 2")),
        *((name, "binary", ("foreground",)) for name in ("mtseg", "fatnet", "bat")),
    ],
)
def test_mask_channels_are_what_they_were_to_the_official_network(
    name: str, task: str, classes: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    found, _ = understood(shapes_of(request, name))
    labels = describe(found, image_size=None, classes=None, values=None).spec.labels
    assert (labels.task, labels.classes) == (task, classes)


def test_positions_tell_the_size_of_the_images(request: pytest.FixtureRequest) -> None:
    state = shapes_of(request, "transunet")
    state["transformer.embeddings.position_embeddings"] = torch.empty(1, 14 * 14, 768, device="meta")
    found, _ = understood(state)
    config = describe(found, image_size=None, classes=None, values=None)
    assert (config.data.image_size, config.model.image_size) == (224, 224)


def test_a_run_made_of_a_checkpoint_says_what_the_official_network_said(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rival = read_rival(request, "beal")
    torch.save({"epoch": 3, "model_state_dict": rival.state}, tmp_path / "checkpoint.pth.tar")
    done = import_checkpoint(tmp_path / "checkpoint.pth.tar", tmp_path / "run", classes=("cup", "disc"))
    model, config = load_model(tmp_path / "run")
    with torch.inference_mode():
        assert difference(model.condition(rival.arrays["x"]).logits, rival.arrays["out"]) < 1e-5
    assert (done.network, config.spec.labels.classes) == ("beal", ("cup", "disc"))
    assert "images entered from −1 to 1" in caplog.text


@pytest.mark.parametrize(("name", "word"), [("transbts", "TransBTS"), ("swinbts", "SwinBTS")])
def test_networks_of_volumes_are_refused_by_name(name: str, word: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(CheckpointError, match=f"{word} for volumes.*--preset {name}"):
        understood(shapes_of(request, name))
