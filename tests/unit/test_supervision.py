"""A network may bring a loss of its own, and be trained as all others are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.load import load_preset
from medsegdiff.data.loader import as_batch
from medsegdiff.errors import ConfigError
from medsegdiff.labels import Labels
from medsegdiff.models.base import SUPERVISIONS, Said, build_model
from medsegdiff.training.plan import check_sampling, config_for
from tests.makers import configured, losses_of


@pytest.fixture
def squared() -> str:
    """A supervision of a plug-in: the mean square of the difference, where somebody labelled."""

    def loss(
        said: Said, mask: Float[Tensor, "b k h w"], *, labels: Labels, labelled: Tensor | None = None
    ) -> Float[Tensor, " b"]:
        known = torch.ones_like(mask[:, :1]) if labelled is None else labelled
        return ((labels.activate(said.logits) - mask) ** 2 * known).flatten(1).mean(dim=1)

    SUPERVISIONS.register("squared", what="a test's")(loss)
    yield "squared"
    SUPERVISIONS._entries.pop("squared")


def test_the_loss_is_that_of_the_network_averaged_over_raters(squared: str) -> None:
    config = configured("anchor", "binary", f"loss.supervision={squared}", "loss.alpha=2")
    model = build_model(config)
    image, masks = torch.randn(2, 2, 32, 32), torch.randint(2, (2, 2, 1, 32, 32)).float()
    batch = as_batch({"image": image, "mask": masks[:, 0], "others": masks[:, 1:], "positions": (0, 1)})
    found = losses_of(model, batch, config, signal_scale=1.0).anchor
    p = torch.sigmoid(model.condition(image).logits)
    by_hand = torch.stack([((p - masks[:, rater]) ** 2).mean() for rater in range(2)]).mean() / 2
    assert torch.allclose(found, by_hand, atol=1e-6)


def test_an_unknown_one_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="No supervision 'nothing'"):
        check_sampling(load_preset("anchor-tiny", ["loss.supervision=nothing"]))


@pytest.mark.parametrize(("preset", "loss"), [("anchor-tiny", "beal"), ("segdiff-tiny", "transunet")])
def test_a_loss_of_what_the_network_does_not_say_is_refused(preset: str, loss: str) -> None:
    with pytest.raises(ConfigError, match=f"loss.supervision '{loss}' is of .*; this is"):
        check_sampling(load_preset(preset, [f"loss.supervision={loss}"]))


def test_the_common_recipe_is_that_of_v2_and_leaves_the_network(tmp_path: Path) -> None:
    v2, asked = load_preset("v2-fast-tiny"), config_for(tmp_path, preset="nnunet-tiny", recipe="common", device="cpu")
    own = load_preset("nnunet-tiny")
    for key in ("optimizer", "betas", "learning_rate", "lr_schedule", "weight_decay", "batch_size", "ema_decay"):
        assert getattr(asked.train, key) == getattr(v2.train, key), key
    assert (asked.loss.beta, asked.loss.batch_dice) == (v2.loss.beta, v2.loss.batch_dice)
    assert asked.data.augmentation == v2.data.augmentation != own.data.augmentation
    assert (asked.model, asked.sampling, asked.data.image_size) == (own.model, own.sampling, own.data.image_size)
    changed = config_for(tmp_path, preset="nnunet-tiny", recipe="common", changes=["train.batch_size=3"], device="cpu")
    assert changed.train.batch_size == 3


def test_a_run_that_goes_on_keeps_its_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--recipe is that of a preset"):
        config_for(tmp_path, recipe="common", resume=True)
