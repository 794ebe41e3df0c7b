"""Training on the score of one-step samples: what is asked, what is scored, who can be trained so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medsegdiff.config.run import Config
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.diffusion.losses import energy_score
from medsegdiff.errors import ConfigError
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.models.base import build_model
from medsegdiff.training.distillation import objective_of
from medsegdiff.training.objective import mask_terms
from medsegdiff.training.plan import config_for
from medsegdiff.training.scoring import Scoring, check_scored
from medsegdiff.types import Batch
from tests.makers import configured, randomised, small_config, small_network

CPU = torch.device("cpu")
ONE_STEP = ("sampling.steps=1", "train.val_steps=1", "sampling.spacing=trailing", "train.score_members=3")


def batch_of(config: Config, *, raters: int = 3, positions: tuple[int, ...] = (5, 9)) -> Batch:
    generator = torch.Generator().manual_seed(1)
    b, k = len(positions), config.mask_channels  # type: ignore[attr-defined]  # of a resolved one
    image = torch.rand(b, config.image_channels, 32, 32, generator=generator)  # type: ignore[attr-defined]
    mask, *others = (torch.rand(raters, b, k, 32, 32, generator=generator) < 0.3).float()
    return Batch(image, mask, positions, others=torch.stack(others, dim=1) if others else None)


@pytest.mark.parametrize("task", ["binary", "exclusive", "regions"])
@pytest.mark.parametrize("residual", ["false", "true"])
def test_what_is_scored_is_what_the_sampler_would_draw(task: str, residual: str) -> None:
    """Truth: the sampler of inference, given the same noise; the background of exclusive classes is no structure."""
    config = configured("medsegdiff-v2", task, f"diffusion.residual={residual}", *ONE_STEP)
    torch.manual_seed(0)
    model, batch = randomised(build_model(config)), batch_of(config)
    found = objective_of(config, CPU)(model, batch)

    sampler = EnsembleSampler(model, config, config.sampling.model_copy(update={"members": 3}), precision="fp32")
    keys = [f"position {position}" for position in batch.positions]
    drawn = sampler.draw(batch.image, keys, seed=config.train.seed)
    structures = slice(1 if task == "exclusive" else 0, None)
    samples, raters = (
        drawn.probability.transpose(0, 1)[:, :, structures],
        torch.stack(batch.masks, dim=1)[:, :, structures],
    )
    assert float(found.noise) == pytest.approx(float(energy_score(samples, raters).mean()), abs=1e-5)
    with torch.no_grad():
        logits = model.condition(batch.image).logits
    assert logits is not None
    anchor = [mask_terms(logits, mask, config.loss, labels=config.spec.labels) for mask in batch.masks]
    assert float((found.total - found.noise).detach()) == pytest.approx(
        float(torch.stack(anchor).mean()) / config.loss.alpha, abs=1e-5
    )
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


class Sampler(nn.Module):
    """Says what its two numbers and the noise make: a square, with a second one beside it if the noise is high."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = list[tuple[int, int]]()

    def forward(self, image: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, None]:
        self.looks.append((len(image), len(x_t)))
        assert t.tolist() == [999.0] * len(x_t)
        return 8 * x_t, None


def test_images_are_looked_at_once_and_every_rater_enters() -> None:
    config = configured("medsegdiff-v2", "binary", *ONE_STEP)
    scoring, model, batch = Scoring(config), Sampler(), batch_of(config)
    found = scoring(model, batch)
    assert model.looks == [(2, 6)]
    assert found.anchor is None
    alone = [scoring(model, Batch(batch.image, mask, batch.positions)).total for mask in batch.masks]
    assert float(found.total) == pytest.approx(float(torch.stack(alone).mean()), abs=1e-6)  # it is linear in raters
    turned = Batch(batch.image.flip(0), batch.mask.flip(0), batch.positions[::-1], others=batch.others.flip(0))  # type: ignore[union-attr]
    assert float(scoring(model, turned).total) == pytest.approx(float(found.total), abs=1e-6)


@pytest.mark.parametrize(
    ("network", "changes", "said"),
    [
        ("medsegdiff-v2", ("diffusion.target=eps",), "diffusion.target x0"),
        ("medsegdiff-v2", ("sampling.steps=5",), "sampling.steps is 5"),
        ("medsegdiff-v2", ("train.val_steps=2",), "train.val_steps 2"),
        ("anchor", (), "needs a diffusion model"),
        ("medsegdiff-v1", ("model.learn_sigma=false",), "looks at the image anew"),
    ],
)
def test_what_could_not_be_scored_is_refused(network: str, changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_scored(small_network(network, *ONE_STEP, *changes))
    check_scored(small_config())  # nobody asked


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two samples or more"):
        small_config("train.score_members=1")
    with pytest.raises(ConfigError, match="teacher"):
        small_config("train.score_members=4", "train.teacher=runs/v2")
    with pytest.raises(ConfigError, match="--start RUN"):
        config_for(tmp_path, score=True)


def test_a_run_from_before_there_were_scores_learns_as_it_did() -> None:
    told = small_config().model_dump(mode="json")
    del told["train"]["score_members"]
    assert ResolvedConfig.model_validate(told).train.one_step == ""
