"""Plans: a preset that suits the device, images that suit the network, batches that suit the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import device_memory, machine_memory
from medsegdiff.models.base import build_model
from medsegdiff.training.advise import (
    RESERVE,
    DataPlan,
    make_plan,
    suggest_batch,
    suggest_cache,
    suggest_size,
    write_plan,
)
from medsegdiff.training.plan import check_sampling, config_for, default_preset
from tests.makers import PLAIN, SMALL, small_network
from tests.scans import make_scans

TINY = [*PLAIN, *(value for value in SMALL if value.startswith("model."))]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return make_scans(tmp_path / "data")


def planned(data: Path, *overrides: str, memory: float = 8e9, preset: str | None = None) -> DataPlan:
    return make_plan(str(data), preset=preset, memory=memory, device="cpu", overrides=[*TINY, *overrides])


def test_the_preset_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_preset("cpu") == "v2-fast-tiny"
    monkeypatch.setattr("medsegdiff.training.plan.pick_device", lambda name: torch.device(name or "cuda"))
    assert [default_preset(device) for device in (None, "mps")] == ["v2-fast"] * 2


def test_training_and_the_plan_of_data_take_the_same_preset(scans: Path, tmp_path: Path) -> None:
    taken = config_for(tmp_path / "run", device="cpu")
    assert taken.model == load_preset(make_plan(str(scans), device="cpu", memory=8e9).preset).model


def test_images_are_as_large_as_slices_within_bounds(scans: Path) -> None:
    from dataclasses import replace

    found = planned(scans).fingerprint
    sides = {}
    for side in (10.0, 100.0, 130.0, 250.0, 512.0, 900.0):
        alike = replace(found, size=replace(found.size, median=(side - 3, side)))
        sides[side] = [suggest_size(alike, largest=largest, stride=16) for largest in (128, 512)]
    assert list(sides.values()) == [[64, 64], [112, 112], [128, 144], [128, 256], [128, 512], [128, 512]]
    assert suggest_size(found, largest=512, stride=24) == 72


def test_micro_batches_divide_the_batch() -> None:
    assert [suggest_batch(fits, 16) for fits in (100, 16, 15, 5, 1, 0)] == [
        (16, 1),
        (16, 1),
        (8, 2),
        (4, 4),
        (1, 16),
        (1, 16),
    ]
    assert suggest_batch(5, 12) == (4, 3)


def test_the_cache_grows_only_if_cases_need_it() -> None:
    assert suggest_cache(3e9, usual=4.0, free=1e12) == 4
    assert suggest_cache(1e15, usual=0.5, free=80e9) == 40
    assert suggest_cache(0.7e9, usual=0.5, free=80e9) == 0.7
    assert suggest_cache(0.7e9, usual=0.5, free=1e9) == 0.5


def test_a_cpu_lends_half_of_the_memory() -> None:
    assert device_memory(torch.device("cpu")) == machine_memory() / 2
    assert 0.5e9 < machine_memory() < 1e14


def test_little_memory_makes_micro_batches_and_keeps_the_step(scans: Path) -> None:
    """And what it is said to need fits, and one step further would not."""
    much = planned(scans)
    step = load_preset(much.preset).train.batch_size
    assert (much.batch_size, much.accumulate) == (step, 1)
    assert much.fits
    room = RESERVE + (much.needed - RESERVE) * 0.6
    less = planned(scans, memory=room)
    assert less.batch_size < step
    assert less.batch_size * less.accumulate == step
    assert less.needed <= room < planned(scans, f"train.batch_size={2 * less.batch_size}").needed
    nothing = planned(scans, memory=RESERVE)
    assert nothing.batch_size == 1
    assert not nothing.fits


def test_a_plan_says_what_it_rests_on_and_what_it_changes(scans: Path) -> None:
    made = planned(scans)
    assert (made.preset, made.device, made.image_size) == ("v2-fast-tiny", "cpu", 64)
    assert made.changes["data"] == {"image_size": 64, "plane": "axial", "modalities": ["ct"], "window": [30, 300]}
    assert made.to_dict()["fingerprint"]["modalities"] == ("ct",)


def test_the_file_is_a_preset_with_all_that_was_chosen(scans: Path, tmp_path: Path) -> None:
    made = planned(scans, memory=RESERVE + 0.02e9)
    write_plan(made, tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    assert text.startswith("# Made by 'medsegdiff data plan' from 5 training volumes of ")
    config = load_preset(str(tmp_path / "plan.yaml"))
    assert (config.data.modalities, config.data.window, config.data.image_size) == (("ct",), (30, 300), 64)
    assert (config.train.batch_size, config.train.accumulate) == (made.batch_size, made.accumulate)
    assert config.model == load_preset("v2-fast-tiny", TINY).model
    assert (config.data.channels, config.data.task, config.data.classes) == (None, None, None)
    assert config.train.max_steps == load_preset("v2-fast-tiny").train.max_steps


def test_what_the_user_fixes_is_not_chosen(scans: Path) -> None:
    made = planned(scans, "data.image_size=40", "train.batch_size=3", "data.window=[-5, 5]", memory=RESERVE)
    assert (made.image_size, made.batch_size, made.accumulate) == (40, 3, 1)
    assert made.fingerprint.window == (-5, 5)
    assert made.changes["data"]["window"] == [-5, 5]


def test_a_preset_of_ones_own_is_built_upon(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever training is started later."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("base: v2-tiny\ntrain: {max_steps: 77}\ndata: {image_size: 72}\n")
    made = planned(scans, preset="own.yaml")
    write_plan(made, tmp_path / "plan.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_preset(str(tmp_path / "plan.yaml"))
    assert config.train.max_steps == 77
    assert config.data.image_size == made.image_size == 64


def test_sides_are_multiples_of_the_stride(scans: Path) -> None:
    assert build_model(assumed(load_preset("v2-tiny", [*TINY, "model.patch=3"]))).stride == 12
    assert planned(scans, "model.patch=3").image_size == 72


def test_pictures_are_planned_too(folder: Path) -> None:
    made = planned(folder)
    assert made.fingerprint.modalities == ("natural",)
    assert "modalities" not in made.changes.get("data", {})
    with pytest.raises(ConfigError, match=r"data\.neighbours is 1"):
        planned(folder, "data.neighbours=1")


@pytest.mark.parametrize("name", ["anchor", "nnunet", "segdiff", "medsegdiff-v1"])
def test_a_residual_is_refused_where_no_fixed_anchor_is_added_to(name: str) -> None:
    """An anchor alone would be doubled; that of V1 has seen x_t in training, and an empty mask when it samples."""
    with pytest.raises(ConfigError, match=f"residual adds .* '{name}' has no such anchor"):
        check_sampling(small_network(name, "diffusion.target=x0", "diffusion.residual=true"))
    check_sampling(small_network("medsegdiff-v2", "diffusion.residual=true"))


@pytest.mark.parametrize("name", ["anchor", "nnunet", "segdiff", "medsegdiff-v1"])
def test_an_anchor_learns_alone_where_there_is_one_beside_a_diffusion_model(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"train.anchor_alone is 0\.5; the network '{name}' has no anchor"):
        check_sampling(small_network(name, "train.anchor_alone=0.5"))
    with pytest.raises(ConfigError, match=r"split over processes"):
        check_sampling(small_network("medsegdiff-v2", "train.anchor_alone=0.5", "train.sharding=true"))
    check_sampling(small_network("medsegdiff-v2", "train.anchor_alone=0.5"))


def test_only_predictions_of_the_mask_are_recycled() -> None:
    with pytest.raises(ConfigError, match=r"loss\.recycled is 0\.3, but what a network says of v"):
        check_sampling(small_network("medsegdiff-v2", "diffusion.target=v", "loss.recycled=0.3"))
    check_sampling(small_network("medsegdiff-v2", "loss.recycled=0.3"))
