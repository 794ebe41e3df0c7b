from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medsegdiff.config.run import Config
from medsegdiff.errors import CheckpointError
from medsegdiff.models import checkpoint
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import BEST, load_config, load_model, save_config, save_weights
from tests.makers import small_config


@pytest.fixture
def run(tmp_path: Path, config: Config, model: DiffusionModel) -> Path:
    save_config(tmp_path, config)
    save_weights(tmp_path / BEST, model.state_dict(), {"step": 5})
    return tmp_path


def test_a_model_comes_back_with_its_configuration(run: Path, config: Config, model: DiffusionModel) -> None:
    loaded, its_config = load_model(run)
    assert its_config == config
    assert not loaded.training
    image, x_t, t = torch.randn(1, 3, 32, 32), torch.randn(1, 1, 32, 32), torch.tensor([7.0])
    assert torch.equal(loaded(image, x_t, t)[0], model(image, x_t, t)[0])


def test_no_pickle_is_involved(run: Path) -> None:
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]
    assert set(load_file(run / BEST)) == set(build_model(load_config(run)).state_dict())


def test_weights_of_another_architecture_are_refused(run: Path) -> None:
    save_config(run, small_config("model.diffusion_widths=[8, 16, 32]"))
    with pytest.raises(CheckpointError, match="belongs to another architecture: .* weights differ, e.g."):
        load_model(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "config.json").unlink(), "holds no config.json"),
        (lambda run: (run / BEST).unlink(), "there are no weights"),
        (lambda run: (run / "config.json").write_text("{"), "can't be read"),
        (lambda run: (run / "config.json").write_text("{}"), "has no section 'config'"),
        (lambda run: (run / "config.json").write_text('{"config": 3}'), "has no section 'config'"),
        (lambda run: (run / "config.json").write_text('{"config": {}, "spec": {}}'), "labels\n  Field required"),
        (lambda run: (run / BEST).write_bytes((run / BEST).read_bytes()[:900]), "damaged or not whole"),
    ],
)
def test_damaged_runs_are_refused_with_a_reason(run: Path, change: object, words: str) -> None:
    change(run)
    with pytest.raises(CheckpointError, match=words):
        load_model(run)


def test_a_value_that_no_configuration_has_is_named_with_its_file(run: Path) -> None:
    told = json.loads((run / "config.json").read_text())
    told["config"]["data"]["cache_gb"] = None
    (run / "config.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"config\.json: data\.cache_gb: Input should be a valid number"):
        load_config(run)


def test_a_newer_format_asks_for_an_upgrade(run: Path) -> None:
    value = json.loads((run / "config.json").read_text()) | {"format": 99}
    (run / "config.json").write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="Upgrade medsegdiff"):
        load_model(run)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_model(tmp_path / "gone")


def test_a_full_disk_keeps_the_weights_there_were(
    run: Path, model: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / BEST).read_bytes()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device.*Free some space, or choose another folder"):
        save_weights(run / BEST, {k: v + 1 for k, v in model.state_dict().items()})
    assert (run / BEST).read_bytes() == before
    assert sorted(p.name for p in run.iterdir()) == ["config.json", "model.safetensors"]
