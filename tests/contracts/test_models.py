"""Every registered model keeps the contract of a diffusion model, for each task and several sizes."""

from __future__ import annotations

import pytest
import torch

from medsegdiff.checkpoint import build_model
from medsegdiff.data.loader import as_batch
from medsegdiff.diffusion.schedule import make_schedule
from medsegdiff.errors import ShapeError
from medsegdiff.models.base import MODELS
from medsegdiff.training.objective import training_losses
from tests.makers import randomised, small_config

TASKS = {
    "binary": ("lesion",),
    "exclusive": ("background", "a", "b"),
    "regions": ("disc", "cup"),
}


def configured(name: str, task: str, *overrides: str):
    classes = "[" + ", ".join(TASKS[task]) + "]"
    return small_config(
        f"model.name={name}", f"data.task={task}", f"data.classes={classes}", "data.channels=2", *overrides
    )


@pytest.fixture(params=[entry.name for entry in MODELS])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_facts_name_the_paper(name: str) -> None:
    assert {"kind", "paper", "year"} <= set(MODELS[name].facts)


@pytest.mark.parametrize("task", TASKS)
def test_shapes(name: str, task: str) -> None:
    model = build_model(configured(name, task)).eval()
    k = len(TASKS[task])
    for h, w in ((model.stride, model.stride), (3 * model.stride, 2 * model.stride)):
        image, x_t, t = torch.randn(2, 2, h, w), torch.randn(2, k, h, w), torch.tensor([0.0, 999.0])
        prediction, logits = model(image, x_t, t)
        assert prediction.shape == logits.shape == (2, k, h, w)


def test_a_size_that_does_not_fit_says_which_would(name: str) -> None:
    model = build_model(configured(name, "binary"))
    s = model.stride
    with pytest.raises(ShapeError, match=f"{s + 1}×{s}.*multiples of {s}.*Pad it to {2 * s}×{s}"):
        model.condition(torch.zeros(1, 2, s + 1, s))


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_gradient_reaches_every_parameter(name: str, target: str) -> None:
    config = configured(name, "exclusive", f"diffusion.target={target}", "loss.anchor_weighting=expected")
    model = randomised(build_model(config))
    labels = torch.randint(3, (4, 32, 32))
    mask = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    batch = as_batch({"image": torch.randn(4, 2, 32, 32), "mask": mask, "position": torch.arange(4)})
    training_losses(model, batch, make_schedule("cosine", signal_scale=0.3), config).total.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_it_overfits_four_images(name: str) -> None:
    config = configured(name, "binary", "model.condition_widths=[16, 16, 32]", "model.diffusion_widths=[16, 16, 32]")
    torch.manual_seed(0)
    model, schedule = build_model(config), make_schedule("cosine", signal_scale=0.3)
    image = torch.randn(4, 2, 16, 16)
    mask = (torch.nn.functional.avg_pool2d(image[:, :1], 5, 1, 2) > 0).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for step in range(120):
        batch = as_batch({"image": image, "mask": mask, "position": torch.arange(4) + 4 * step})
        losses = training_losses(model, batch, schedule, config)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses.total.item())
    assert sum(history[-10:]) < 0.35 * sum(history[:10])


def test_the_condition_does_not_know_the_mask(name: str) -> None:
    """The same condition serves any x_t: nothing in it is computed from one."""
    model = randomised(build_model(configured(name, "binary")))
    image, t = torch.randn(1, 2, 32, 32), torch.tensor([300.0])
    condition = model.condition(image)
    for seed in (1, 2):
        x_t = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(model.denoise(x_t, t, condition), model(image, x_t, t)[0], atol=1e-5)
