"""Every registered model keeps the contract of a diffusion model, for each task and several sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.config.networks import NETWORKS, NetworkConfig
from medsegdiff.data.loader import as_batch
from medsegdiff.errors import ConfigError, ShapeError
from medsegdiff.models.base import MODELS, SUPERVISIONS, build_model
from medsegdiff.models.checkpoint import BEST, load_model, save_config, save_weights
from tests.makers import TASKS, configured, denoised, fitting, losses_of, randomised


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Draw the same each time: how much rounding does depends on what is drawn."""
    torch.manual_seed(0)


def model_config(name: str, task: str) -> NetworkConfig:
    return configured(name, task).model


def test_facts_name_the_paper(name: str) -> None:
    facts = MODELS[name].facts
    assert facts.paper
    assert facts.year >= 2015  # no network of the comparison is older than the UNet
    assert facts.kind in ("diffusion", "deterministic")


def has_anchor(name: str) -> bool:
    return MODELS[name].facts.has_anchor


def test_a_network_has_an_anchor_and_is_trained_to_if_it_declares_one(name: str) -> None:
    config = configured(name, "binary")
    model = randomised(build_model(config))
    size = fitting(model, 32, 32)
    image, mask = torch.randn(1, 2, *size), torch.ones(1, 1, *size)
    batch = as_batch({"image": image, "mask": mask, "positions": (0,)})
    losses = losses_of(model, batch, config, signal_scale=1.0)
    logits = (model.condition(image).logits, model(image, mask, torch.tensor([9.0]))[1])
    if not has_anchor(name):
        assert (losses.anchor, *logits) == (None, None, None)
        assert torch.equal(losses.total, losses.noise)
        assert set(losses.parts()) == {"loss", "loss_noise"}
        return
    assert losses.anchor > 0
    assert torch.allclose(losses.total, losses.noise + losses.anchor)
    assert set(losses.parts()) == {"loss", "loss_noise", "loss_anchor"}
    assert all(value.any() for value in logits)


@pytest.mark.parametrize(("task", "channels"), [("binary", 3), ("exclusive", 1), ("regions", 4)])
def test_shapes(name: str, task: str, channels: int) -> None:
    model = build_model(configured(name, task, f"data.channels={channels}")).eval()
    k, s = len(TASKS[task]), model.stride
    for h, w in ((s, model.fewest_cells * s), (3 * s, 2 * s), (5 * s, 8 * s)):
        image, x_t, t = torch.randn(2, channels, h, w), torch.randn(2, k, h, w), torch.tensor([0.0, 999.0])
        prediction, logits, *_ = model(image, x_t, t)
        assert (logits is not None) == has_anchor(name)
        assert logits is None or logits.shape == (2, k, h, w)
        assert prediction.shape == (2, k * (1 + getattr(model_config(name, task), "learn_sigma", False)), h, w)


def test_a_size_that_does_not_fit_says_which_would(name: str) -> None:
    model = build_model(configured(name, "binary"))
    s = model.stride
    if model.fewest_cells > 1:
        with pytest.raises(
            ShapeError, match=rf"{s}×{s}.*keeps 1 pixel; it needs {model.fewest_cells}\. .*fewer levels"
        ):
            model.condition(torch.zeros(1, 2, s, s))
    with pytest.raises(ShapeError, match=f"{s + 1}×{s}.*multiples of {s}.*Pad it to {2 * s}×{s}"):
        model.condition(torch.zeros(1, 2, s + 1, s))


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_gradient_reaches_every_parameter_or_the_target_is_refused(name: str, target: str) -> None:
    if target not in NETWORKS[name].factory.targets:
        with pytest.raises(ConfigError, match=f"'{name}' predicts x0, not {target}: set diffusion.target=x0"):
            configured(name, "exclusive", f"diffusion.target={target}")
        return
    own = [f"loss.supervision={entry.name}" for entry in SUPERVISIONS if entry.name == name]  # as its authors train it
    config = configured(name, "exclusive", f"diffusion.target={target}", "loss.anchor_weighting=expected", *own)
    model = randomised(build_model(config)).train()
    size = fitting(model, 32, 32)
    labels = torch.randint(3, (4, *size))
    mask = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    batch = as_batch({"image": torch.randn(4, 2, *size), "mask": mask, "positions": (0, 1, 2, 3)})
    losses_of(model, batch, config, signal_scale=0.3).total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    void = {n for n, p in model.named_parameters() if not p.grad.abs().max() > 0}
    # before a normalisation a bias has no effect, so that its gradient is rounding error, which may be 0
    assert [n for n in void if not n.endswith(".bias") or n.removesuffix("bias") + "weight" in void] == []


COARSE = {"bat": 4, "beal": 4}
"""How much coarser than the image a network decides, where it does: it can't learn finer masks by heart."""


def test_it_overfits_four_images(name: str) -> None:
    wider = ("model.condition_widths=[16, 16, 32]", "model.diffusion_widths=[16, 16, 32]")
    config = configured(name, "binary", *(wider if name == "medsegdiff-v2" else ()))
    torch.manual_seed(0)
    model = build_model(config)
    image = torch.randn(4, 2, *fitting(model, 16, 16))
    mask = (torch.nn.functional.avg_pool2d(image[:, :1], 5, 1, 2) > 0).float()
    image, mask = (torch.nn.functional.interpolate(of, scale_factor=COARSE.get(name, 1)) for of in (image, mask))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history, learned = list[float](), False
    for step in range(120):
        batch = as_batch({"image": image, "mask": mask, "positions": tuple(range(4 * step, 4 * step + 4))})
        losses = losses_of(model, batch, config, signal_scale=0.3)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses.total.item())
        learned = step >= 20 and sum(history[-10:]) < 0.35 * sum(history[:10])
        if learned:
            break
    assert learned, f"the loss fell from {history[0]:.3f} to {history[-1]:.3f}"


def test_the_condition_is_computed_without_mask_and_time(name: str) -> None:
    """It is a function of the image alone, and of each image by itself; and it matters to the prediction."""
    model = randomised(build_model(configured(name, "binary")))
    size = fitting(model, 32, 32)
    image, x_t, t = torch.randn(2, 2, *size), torch.randn(2, 1, *size), torch.tensor([300.0])
    before = model.condition(image)
    denoised(model, x_t, t, before)
    after, alone = model.condition(image), model.condition(image[1:])
    swapped = before.select(torch.tensor([1, 0]))
    assert before.tensors
    for old, new, one, other in zip(before.tensors, after.tensors, alone.tensors, swapped.tensors, strict=True):
        assert torch.equal(old, new)
        assert torch.allclose(old[1:], one, atol=1e-5)
        assert torch.equal(old.flip(0), other)
    assert not torch.allclose(denoised(model, x_t, t, before), denoised(model, x_t, t, swapped), atol=1e-4)


def test_members_of_an_image_see_its_condition_in_place(name: str) -> None:
    """Views, no copies: whatever a network keeps of an image."""
    model = randomised(build_model(configured(name, "binary")))
    condition = model.condition(torch.randn(2, 2, *fitting(model, 32, 32)))
    for view, whole in zip(condition.expand(1, 5).tensors, condition.tensors, strict=True):
        assert torch.equal(view, whole[1:].expand_as(view))
        assert (len(view), view.stride(0), view.data_ptr()) == (5, 0, whole[1].data_ptr())


def test_a_cached_condition_is_that_of_training_whatever_the_noisy_mask(name: str) -> None:
    """Where a model says so, its anchor is one function of the image; a dynamic one follows x_t."""
    model = randomised(build_model(configured(name, "binary")))
    size = fitting(model, 32, 32)
    if not has_anchor(name):
        assert model.condition(torch.randn(1, 2, *size)).logits is None
        return
    image, x_t, t = torch.randn(1, 2, *size), torch.randn(2, 1, 1, *size), torch.tensor([300.0])
    logits = [model(image, noisy, t)[1] for noisy in x_t]
    assert torch.equal(*logits) == torch.equal(logits[0], model.condition(image).logits)
    assert torch.equal(*logits) == MODELS[name].facts.condition_cached


def test_a_step_looks_at_the_image_anew_only_where_the_condition_is_not_cached(name: str) -> None:
    model = randomised(build_model(configured(name, "binary")))
    size = fitting(model, 32, 32)
    condition, looks = model.condition(torch.randn(1, 2, *size)), list[int]()
    looker = getattr(model, "condition_model", torch.nn.Identity())
    for part in looker.modules():
        part.register_forward_hook(lambda *_: looks.append(1))
    denoised(model, torch.randn(1, 1, *size), torch.tensor([300.0]), condition)
    without = not hasattr(model, "condition_model")  # the image enters the denoiser itself
    assert bool(looks or without) == (not MODELS[name].facts.condition_cached)


def test_denoising_with_the_condition_is_the_forward_pass(name: str) -> None:
    model = randomised(build_model(configured(name, "regions")))
    size = fitting(model, 16, 24)
    image, x_t, t = torch.randn(2, 2, *size), torch.randn(2, 2, *size), torch.tensor([3.0, 700.0])
    assert torch.equal(model(image, x_t, t)[0], denoised(model, x_t, t, model.condition(image)))
    same = torch.allclose(model(image, x_t, t)[0], model(image, x_t.flip(0), t.flip(0))[0], atol=1e-4)
    assert same == (MODELS[name].facts.kind == "deterministic")
    assert same == torch.allclose(model(image, x_t, t)[0], model(image, x_t, t.flip(0))[0], atol=1e-4)


def test_a_batch_equals_its_elements(name: str) -> None:
    model = randomised(build_model(configured(name, "binary")))
    size = fitting(model, 16, 16)
    image, x_t, t = torch.randn(2, 2, *size), torch.randn(2, 1, *size), torch.tensor([3.0, 700.0])
    both = model(image, x_t, t)
    alone = [model(image[i : i + 1], x_t[i : i + 1], t[i : i + 1]) for i in range(2)]
    for together, each in zip(both[:2], zip(*(said[:2] for said in alone), strict=True), strict=True):
        assert each == (None, None) if together is None else torch.allclose(together, torch.cat(each), atol=1e-5)


def test_it_comes_back_from_a_run_folder(name: str, tmp_path: Path) -> None:
    config = configured(name, "exclusive")
    model = randomised(build_model(config))
    save_config(tmp_path, config)
    save_weights(tmp_path / BEST, model.state_dict())
    loaded, its_config = load_model(tmp_path)
    assert its_config == config
    size = fitting(model, 16, 16)
    image, x_t, t = torch.randn(1, 2, *size), torch.randn(1, 3, *size), torch.tensor([7.0])
    assert torch.equal(loaded(image, x_t, t)[0], model(image, x_t, t)[0])
