from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medsegdiff.authors import import_checkpoint
from medsegdiff.authors.architecture import infer
from medsegdiff.config.run import Config
from medsegdiff.data.transforms import prepare
from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.inference.inputs import read_case
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import load_model
from tests.authors import in_their_names
from tests.makers import randomised, small_network, write_png

OVERRIDES = {
    "medsegdiff-v1": ("model.num_blocks=2", "model.num_heads=1"),
    "release": ("model.multiples=[1, 2, 2]", "model.attention_levels=[2]", "model.learn_sigma=true"),
}


@pytest.fixture(params=OVERRIDES)
def config(request: pytest.FixtureRequest) -> Config:
    return small_network(request.param, *OVERRIDES[request.param], "data.channels=3")


@pytest.fixture
def model(config: Config) -> DiffusionModel:
    return randomised(build_model(config))


@pytest.fixture
def state(model: DiffusionModel, config: Config) -> dict[str, Tensor]:
    return in_their_names(model, config)


def save(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "savedmodel000100.pt")
    return folder / "savedmodel000100.pt"


def forward(model: DiffusionModel) -> Tensor:
    """What does not depend on the weights that their version 1 never saves: the anchor in training."""
    generator = torch.Generator().manual_seed(1)
    image, x_t = (torch.randn(1, c, 32, 32, generator=generator) for c in (3, 1))
    return model(image, x_t, torch.tensor([300.0]))[1]


def test_a_run_made_of_their_checkpoint_computes_what_theirs_did(
    state: dict[str, Tensor], config: Config, model: DiffusionModel, tmp_path: Path
) -> None:
    done = import_checkpoint(save(state, tmp_path), tmp_path / "run", image_size=32)
    loaded, its_config = load_model(tmp_path / "run")
    assert torch.equal(forward(loaded), forward(model))
    assert its_config.model.model_copy(update={"dropout": 0.0}) == config.model
    assert (its_config.diffusion.target, its_config.diffusion.coding) == ("eps", "unit")
    assert (its_config.data.channels, its_config.data.values, its_config.data.classes) == (3, "unit", ("foreground",))
    case = read_case(write_png(tmp_path / "white.png", np.eye(32, dtype=np.uint8)[..., None].repeat(3, 2) * 255))
    assert prepare(case, its_config, stride=8).image.max() == 1  # their transform, ToTensor, gives 0 … 1
    assert bool(done.made_anew) == (config.model.name == "medsegdiff-v1")
    kept = {name: value for name, value in loaded.state_dict().items() if name not in done.made_anew}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert "savedmodel000100" in json.loads((tmp_path / "run" / "run.json").read_text())["imported"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {name: value.double() for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if "num_batches_tracked" not in name},
    ],
    ids=["several processes", "nested", "other precision", "no counts"],
)
def test_checkpoints_of_all_kinds_give_the_same_run(
    wrap: Any, state: dict[str, Tensor], model: DiffusionModel, tmp_path: Path
) -> None:
    import_checkpoint(save(wrap(state), tmp_path), tmp_path / "run", image_size=32)
    assert torch.equal(forward(load_model(tmp_path / "run", weights="last")[0]), forward(model))


def test_only_version_1_warns_of_the_convolution_that_is_never_saved(
    state: dict[str, Tensor], config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import_checkpoint(save(state, tmp_path), tmp_path / "run")
    assert ("no checkpoint holds it" in caplog.text) == (config.model.name == "medsegdiff-v1")


class Malicious:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    evil = tmp_path / "made by the checkpoint"
    with pytest.raises(CheckpointError, match="refused.*could run code"):
        import_checkpoint(save({"input_blocks.0.0.weight": Malicious(evil)}, tmp_path), tmp_path / "run")
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Malicious(evil)))
    with pytest.raises(CheckpointError, match="refused|can't be read"):
        import_checkpoint(plain, tmp_path / "run")
    assert not evil.exists()
    assert not (tmp_path / "run").exists()


def without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"encoder.weight": torch.zeros(3)}, r"no weights of the authors.*missing; found encoder\.weight"),
        (lambda s: {}, "holds no weights by name"),
        (lambda s: [1, 2], "holds no weights by name"),
        (lambda s: s | {"label_emb.weight": torch.zeros(2, 8)}, r"variant.*not known.*label_emb\.weight"),
        (lambda s: without(s, "middle_block.1.norm"), "whole network: .*norm.*missing"),
        (lambda s: s | {"out.0.bias": torch.zeros(99)}, r"head\.0\.bias is 99 instead of"),
        (lambda s: s | {"hwm.emb2.weight": torch.zeros(1)}, r"unknown: hwm\.emb2\.weight"),
        (lambda s: s | {"hwm.seg_outputs.0.bias": torch.zeros(1)}, r"condition_model\.head\.bias has no place"),
    ],
)
def test_what_is_not_theirs_is_refused_with_what_was_found(
    change: Any, words: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        import_checkpoint(save(change(state), tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_or_missing_file_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = save(state, tmp_path)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="can't be read|refused"):
        import_checkpoint(file, tmp_path / "run")
    with pytest.raises(CheckpointError, match="there is no such file"):
        import_checkpoint(tmp_path / "gone.pt", tmp_path / "run")


def test_no_run_is_written_over(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = save(state, tmp_path)
    import_checkpoint(file, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already"):
        import_checkpoint(file, tmp_path / "run")


def test_what_the_weights_do_not_tell_is_given(state: dict[str, Tensor], config: Config, tmp_path: Path) -> None:
    file = save(state, tmp_path)
    import_checkpoint(file, tmp_path / "run", heads=2, image_size=96, classes=("lesion",), values="standard")
    its = load_model(tmp_path / "run")[1]
    assert (its.model.num_heads, its.data.image_size, its.data.classes, its.data.values) == (
        2,
        96,
        ("lesion",),
        "standard",
    )
    with pytest.raises(ConfigError, match="2 classes were given; the network has 1 mask channels"):
        import_checkpoint(file, tmp_path / "other", classes=("a", "b"))
    with pytest.raises(CheckpointError, match="can't be rebuilt: .*num_heads must divide"):
        infer(state, heads=5)
