"""A network that learns to deceive discriminators of images without masks, and these to see through it."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.loader import UnlabelledStream
from medsegdiff.data.open import open_source
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.models.base import build_model
from medsegdiff.models.beal import boundary_map
from medsegdiff.models.checkpoint import BEST, LAST, STATE
from medsegdiff.seeding import derive_seed
from medsegdiff.training import adversary
from medsegdiff.training.adversary import check_adversary
from medsegdiff.training.reading import read_unlabelled, unlabelled_stream
from medsegdiff.training.run import Run
from medsegdiff.training.step import TrainingStep
from medsegdiff.training.train import train
from medsegdiff.types import Batch
from tests.integration.test_training import assert_equal, progress, stopping_at, weights
from tests.makers import make_folder, small_network, write_png

RECIPE = ("loss.supervision=beal", "loss.alpha=1", "train.batch_size=2", "train.warmup_steps=0")
FEW = ("model.discriminator_channels=4",)
BY_HAND = (
    *("train.optimizer=sgd", "train.momentum=0.9", "train.nesterov=false", "train.learning_rate=0.05"),
    *("train.lr_schedule=constant", "train.weight_decay=0", "train.max_grad_norm=null"),
)
IN_STEPS = (
    *("train.max_steps=3", "train.val_every=3", "train.save_every=3", "train.val_cases=1", "train.val_members=1"),
    *("train.val_steps=1", "data.image_size=16"),
)


def adversarial(*overrides: str, network: str = "beal") -> ResolvedConfig:
    about = ("data.channels=1", "data.task=regions", "data.classes=[disc, cup]", "train.unlabelled=somewhere")
    return small_network(network, *about, *RECIPE, *(FEW if network == "beal" else ()), *overrides)


def training_step(*overrides: str) -> TrainingStep:
    config = adversarial(*BY_HAND, *overrides)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    step = TrainingStep(config, Accelerator(cpu=True, gradient_accumulation_steps=config.train.accumulate))
    with torch.no_grad():  # as made they are nearly blind, and what is learned from them would not be seen
        for parameter in step.adversary.discriminators.parameters():
            parameter.mul_(8)
    return step


def batch(number: int, *, brightness: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(number)
    image, target = (torch.randn(2, 1, 32, 32, generator=generator) for _ in range(2))
    disc = (F.avg_pool2d(image, 9, 1, 4) > 0).float()
    mask = torch.cat([disc, disc * (image > 0)], dim=1)
    return Batch(brightness * image, mask, (2 * number, 2 * number + 1), unlabelled=1.5 * target + 0.5)


def verdict(maps: Tensor, convolutions: list[Tensor]) -> Tensor:
    for weight in convolutions[:-1]:
        maps = F.leaky_relu(F.conv2d(maps, weight, stride=2, padding=2), 0.2)
    return F.conv2d(maps, convolutions[-1], stride=2, padding=2)


def says(logit: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy(logit.sigmoid(), torch.full_like(logit, truth))


def test_steps_are_those_made_by_hand() -> None:
    """Two parts of the network's loss and one of the discriminators', each with its own backward pass and optimizer."""
    step = training_step()
    begun = copy.deepcopy(step.network)
    net, judges = copy.deepcopy(begun), copy.deepcopy(step.adversary.discriminators)
    boundary, entropy = (list(of.parameters()) for of in (judges.boundary, judges.entropy))
    own = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    theirs = torch.optim.SGD(judges.parameters(), lr=2.5e-5, momentum=0.99, weight_decay=5e-4)
    for number in range(3):
        given = batch(number)
        losses = step(given)
        torch.manual_seed(derive_seed(0, "dropout", given.positions[0]))
        maps = []
        for image in (given.image, given.unlabelled):
            mask, edge = net.condition_model(image)
            p = mask.sigmoid()
            maps.append((p, edge.sigmoid(), -p * torch.log(p + 1e-7)))
        (p, edge, uncertain), (_, target_edge, target_uncertain) = maps
        supervised = F.binary_cross_entropy(p, given.mask) + F.mse_loss(edge, boundary_map(given.mask))
        deceiving = says(verdict(target_edge, boundary), 1) + says(verdict(target_uncertain, entropy), 1)
        own.zero_grad()
        supervised.backward(retain_graph=True)
        (0.01 * deceiving).backward()
        own.step()
        theirs.zero_grad()
        telling = says(verdict(edge.detach(), boundary), 1) + says(verdict(uncertain.detach(), entropy), 1)
        telling = telling + says(verdict(target_edge.detach(), boundary), 0)
        telling = telling + says(verdict(target_uncertain.detach(), entropy), 0)
        telling.backward()
        theirs.step()
        numbers = {name: float(value.detach()) for name, value in losses.parts().items()}
        assert numbers["loss_anchor"] == pytest.approx(float(supervised.detach()), rel=1e-4)
        assert numbers["loss_deceiving"] == pytest.approx(float(deceiving.detach()), rel=1e-4)
        assert numbers["loss_discriminators"] == pytest.approx(float(telling.detach()), rel=1e-4)
    moved = [
        torch.cat([(a - b).flatten() for a, b in zip(of.parameters(), begun.parameters(), strict=True)])
        for of in (step.network, net)
    ]
    assert (moved[0] - moved[1]).norm() < 1e-4 * moved[1].norm()
    for a, b in zip(step.adversary.discriminators.parameters(), judges.parameters(), strict=True):
        ours, hand = (o.state[p]["momentum_buffer"] for o, p in ((step.adversary.optimizer, a), (theirs, b)))
        assert (ours - hand).norm() < 1e-3 * hand.norm()
        assert torch.equal(a.detach(), b.detach()) or (a - b).norm() < 1e-6 * b.norm()


def test_deceiving_moves_the_network_and_leaves_the_discriminators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for weight in (0.0, 10.0):
        monkeypatch.setattr(adversary, "WEIGHT", weight)
        step = training_step()
        torch.manual_seed(0)
        step.adversary(step.model, batch(0)).total.backward()
        networks = (step.network, step.adversary.discriminators)
        gradients.append([torch.cat([p.grad.flatten() for p in of.parameters()]) for of in networks])
    (alone, telling), (deceiving, same) = gradients
    assert torch.equal(telling, same)
    assert telling.abs().max() > 0
    assert (deceiving - alone).norm() > 0.01 * alone.norm()


def test_two_batches_of_a_step_move_the_discriminators_once() -> None:
    step = training_step("train.accumulate=2")
    before = [p.detach().clone() for p in step.adversary.discriminators.parameters()]
    for number, moves in ((0, False), (1, True)):
        step(batch(number))
        after = list(step.adversary.discriminators.parameters())
        assert any((a != b).any() for a, b in zip(after, before, strict=True)) == moves
    assert all(p.grad is None for p in step.adversary.discriminators.parameters())


def test_what_is_not_finite_moves_no_discriminator() -> None:
    step = training_step()
    for number, brightness in enumerate((math.nan, 1.0, math.nan)):
        before = copy.deepcopy(step.adversary.discriminators.state_dict())
        step(batch(number, brightness=brightness))
        same = [torch.equal(before[key], value) for key, value in step.adversary.discriminators.state_dict().items()]
        assert all(same) == math.isnan(brightness)
    momenta = [part["momentum_buffer"] for part in step.adversary.optimizer.state.values()]
    assert all(of.isfinite().all() for of in momenta)


def images_without_masks(root: Path) -> Path:
    """Pictures that are brighter, larger, in colour, and not all of one size."""
    rng = np.random.default_rng(5)
    for number in range(5):
        write_png(root / f"p{number}.png", rng.integers(90, 255, size=(50 + number, 60, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"), count=8)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images_without_masks(tmp_path_factory.mktemp("target"))


def test_training_with_an_adversary_that_goes_on_ends_as_if_it_had_never_stopped(
    data: Path, target: Path, tmp_path: Path
) -> None:
    config, said = small_network("beal", *RECIPE, *FEW, *IN_STEPS, f"train.unlabelled={target}"), io.StringIO()
    train(data, tmp_path / "whole", config, device="cpu", console=Console(file=said, width=200))
    assert "5 images without masks" in said.getvalue()
    patch = stopping_at(2)
    assert train(data, tmp_path / "parts", config, device="cpu").reason == "interrupted"
    patch.undo()
    torch.manual_seed(12345)  # nothing may depend on what the process drew before
    moved = target.rename(target.with_name("moved"))
    config = config.model_copy(update={"train": config.train.model_copy(update={"unlabelled": str(moved)})})
    assert train(data, tmp_path / "parts", config, resume=True, device="cpu").step == 3
    moved.rename(target)
    for file in (STATE, LAST, BEST):
        assert_equal(weights(tmp_path / "whole", file), weights(tmp_path / "parts", file))
    assert progress(tmp_path / "whole")[1] == progress(tmp_path / "parts")[1]
    kept = weights(tmp_path / "whole", STATE)
    assert any(key.startswith("discriminators.") for key in kept)
    assert any(key.startswith("discriminators_optimizer.") for key in kept)
    assert {"loss_deceiving", "loss_discriminators"} <= set(Run(tmp_path / "whole").lines()[0])


def test_without_such_images_it_says_so_and_keeps_no_discriminators(data: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    config = small_network("beal", *RECIPE, *IN_STEPS, "train.max_steps=1")
    train(data, tmp_path / "run", config, device="cpu", console=Console(file=said, width=200))
    assert "without discriminators and a target domain" in said.getvalue()
    assert not any(key.startswith("discriminators") for key in weights(tmp_path / "run", STATE))
    asked = config.model_copy(update={"train": config.train.model_copy(update={"unlabelled": str(data)})})
    with pytest.raises(ValueError, match="train.unlabelled"):
        train(data, tmp_path / "run", asked, resume=True, device="cpu")


@pytest.mark.parametrize(("where", "error"), [("nowhere", ConfigError), ("empty", DataError), ("volumes", ConfigError)])
def test_a_folder_without_pictures_is_refused_before_training(
    where: str, error: type[Exception], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "a.nii.gz").write_bytes(b"")
    config = small_network("beal", *RECIPE, *IN_STEPS, f"train.unlabelled={tmp_path / where}")
    with pytest.raises(error, match=where):
        train(data, tmp_path / "run", config, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "asked", "processes", "words"),
    [
        ("nnunet", (), 1, "'nnunet' learns from images with masks alone"),
        ("beal", (), 2, "there are 2 processes"),
        ("beal", ("train.sharding=true",), 1, "train.sharding is set"),
        ("beal", ("train.precision=fp16",), 1, "train.precision is fp16"),
    ],
)
def test_what_it_can_not_be_is_refused(network: str, asked: tuple[str, ...], processes: int, words: str) -> None:
    own = () if network == "beal" else ("loss.supervision=null",)
    config = adversarial(*own, *asked, network=network)
    with pytest.raises(ConfigError, match=words):
        check_adversary(config, build_model(config), processes=processes)


def test_every_image_comes_once_in_a_round_and_looks_the_same_at_the_same_place(data: Path, target: Path) -> None:
    config = small_network("beal", "data.image_size=16", f"train.unlabelled={target}")
    cases = read_unlabelled(config, open_source(data, config.data).info, stride=8, track=lambda items, _: items)
    names, orientation = [f"p{number}" for number in range(5)], config.spec.orientation
    still = UnlabelledStream(cases, names, seed=0, augment=False, orientation=orientation)
    for first in (0, 5):
        seen = sorted(float(still[first + place].sum()) for place in range(5))
        assert np.allclose(seen, sorted(float(cases[f"p{n}"].image.sum()) for n in range(5)))
    moved, again = (unlabelled_stream(cases, config) for _ in range(2))
    assert torch.equal(moved[7], again[7])
    assert not torch.equal(moved[7], moved[12])
