"""Distillation of the sampler: what the teacher comes to, what is compared with it, who can be a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medsegdiff.config.run import Config
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import BEST, save_config, save_weights
from medsegdiff.training.distillation import Distillation, check_teacher, objective_of
from medsegdiff.types import Batch
from tests.makers import configured, randomised

CPU = torch.device("cpu")
ONE_STEP = ("sampling.steps=1", "train.val_steps=1")


def taught(tmp_path: Path, task: str = "binary") -> tuple[Distillation, DiffusionModel, Config]:
    """A teacher on disk, the same network in memory, and a configuration that names the teacher."""
    folder = tmp_path / "teacher"
    config = configured("medsegdiff-v2", task, f"train.teacher={folder}", *ONE_STEP)
    torch.manual_seed(0)
    model = randomised(build_model(config))
    folder.mkdir()
    save_config(folder, config)
    save_weights(folder / BEST, model.state_dict())
    return Distillation(config, CPU), model, config


def batch_of(config: Config, positions: tuple[int, ...] = (5, 9, 2)) -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(len(positions), config.image_channels, 32, 32, generator=generator)
    mask = (torch.rand(len(positions), config.mask_channels, 32, 32, generator=generator) < 0.3).float()
    return Batch(image, mask, positions)


@pytest.mark.parametrize("task", ["binary", "exclusive", "regions"])
def test_the_teacher_walks_two_steps_of_ddim(tmp_path: Path, task: str) -> None:
    """Song et al. (2021), equation 12 with η = 0, written out: x_s = α_s x_0 + σ_s (x_T − α_T x_0) / σ_T."""
    distillation, model, config = taught(tmp_path, task)
    batch = batch_of(config)
    power = schedule_of(config.diffusion).alpha_bar
    late, early = len(power) - 1, len(power) // 2 - 1

    def x_0(x_t: Tensor, t: int) -> Tensor:
        logits = model(batch.image, x_t, torch.full((len(x_t),), float(t)))[0]
        return 2 * (logits.softmax(dim=1) if task == "exclusive" else logits.sigmoid()) - 1

    with torch.no_grad():
        noise = distillation.noise(batch)
        first = x_0(noise, late)
        epsilon = (noise - power[late].sqrt() * first) / (1 - power[late]).sqrt()
        second = x_0((power[early].sqrt() * first + (1 - power[early]).sqrt() * epsilon).float(), early)
    torch.testing.assert_close(distillation.target(batch), (second + 1) / 2, rtol=0, atol=2e-4)
    assert float((first - second).abs().mean()) > 1e-3  # else one step would do


class Said(nn.Module):
    """Says the same whatever it is asked."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction, self.asked = prediction, list[tuple[Tensor, Tensor]]()

    def forward(self, image: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        self.asked.append((x_t, t))
        return self.prediction, None


def test_nothing_is_better_than_to_say_what_the_teacher_comes_to(tmp_path: Path) -> None:
    distillation, _, config = taught(tmp_path)
    batch = batch_of(config)
    said = Said(torch.logit(distillation.target(batch)))
    least = float(distillation(said, batch).total)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        other = said.prediction + torch.randn(said.prediction.shape, generator=generator)
        assert float(distillation(Said(other), batch).total) > least
    x_T, t = said.asked[0]
    assert torch.equal(x_T, distillation.noise(batch))
    assert t.tolist() == [999.0] * 3


def test_noise_and_target_of_a_sample_are_those_of_its_position_in_any_batch(tmp_path: Path) -> None:
    distillation, _, config = taught(tmp_path)
    batch = batch_of(config)
    turned = Batch(batch.image.flip(0), batch.mask.flip(0), batch.positions[::-1])
    assert torch.equal(distillation.noise(turned), distillation.noise(batch).flip(0))
    torch.testing.assert_close(distillation.target(turned), distillation.target(batch).flip(0))
    assert not torch.equal(distillation.noise(batch)[0], distillation.noise(batch)[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("diffusion.target=eps", "diffusion.target x0"),
        ("diffusion.schedule=linear", "Section 'diffusion'"),
        ("model.num_blocks=2", "Section 'model'"),
        ("sampling.steps=5", "sampling.steps is 5"),
        ("train.val_steps=2", "train.val_steps 2"),
    ],
)
def test_what_could_not_be_distilled_is_refused(tmp_path: Path, change: str, said: str) -> None:
    _, _, config = taught(tmp_path)
    check_teacher(config)
    with pytest.raises(ConfigError, match=said):
        check_teacher(configured("medsegdiff-v2", "binary", f"train.teacher={tmp_path / 'teacher'}", *ONE_STEP, change))


def test_pixels_that_nobody_labelled_teach_nothing(tmp_path: Path) -> None:
    distillation, _, config = taught(tmp_path)
    batch = batch_of(config)
    labelled = torch.ones(3, 1, 32, 32)
    labelled[..., :16] = 0
    masked = Batch(batch.image, batch.mask, batch.positions, labelled=labelled)
    said = torch.logit(distillation.target(batch)).requires_grad_()
    off = said + torch.randn(said.shape, generator=torch.Generator().manual_seed(2))
    distillation(Said(off), masked).total.backward()
    assert said.grad is not None
    assert not said.grad[..., :16].any()
    assert said.grad[..., 16:].any()


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = configured("medsegdiff-v2", "binary", f"train.teacher={tmp_path / 'lost'}")
    with pytest.raises(CheckpointError, match="lost"):
        objective_of(config, CPU)
