"""A Diffusion Model on larger cells than the Condition Model's: levels meet by resolution, edges stay sharp."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.config.spec import assumed
from medsegdiff.data.loader import as_batch
from medsegdiff.data.phantom import make_lesion
from medsegdiff.errors import ConfigError
from medsegdiff.models.base import DiffusionModel, build_model
from tests.makers import denoised, losses_of, randomised, small_config

UNLIKE = (
    "model.condition_patch=1",
    "model.condition_widths=[8, 8, 16, 24]",
    "model.diffusion_patch=4",
    "model.diffusion_widths=[16, 16]",
    "model.anchor_levels=[0]",
    "model.detail_channels=4",
)


@pytest.fixture
def fast() -> DiffusionModel:
    return randomised(build_model(small_config(*UNLIKE)))


def inputs(size: tuple[int, int] = (32, 48)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, x_t = (torch.randn(2, channels, *size, generator=generator) for channels in (3, 1))
    return image, x_t, torch.tensor([20.0, 900.0])


def test_one_patch_for_both_is_what_it_was() -> None:
    for named in (["condition_patch=2"], ["condition_patch=2", "diffusion_patch=2"], ["diffusion_patch=2"]):
        patch = "model.patch=1" if "condition_patch=2" in named else "model.patch=2"
        old, new = small_config("model.patch=2"), small_config(patch, *(f"model.{key}" for key in named))
        a, b = (randomised(build_model(config)) for config in (old, new))
        b.load_state_dict(a.state_dict())
        assert a.stride == b.stride == 8
        assert torch.equal(a(*inputs())[0], b(*inputs())[0])


def test_levels_meet_where_their_resolution_is_the_same(fast: DiffusionModel) -> None:
    """Cells of 4: level 0 of the Diffusion Model lies at 1/4, where the third level of the Condition Model is."""
    image, x_t, t = inputs((32, 48))
    condition = fast.condition(image)
    assert fast.stride == 8
    assert [tuple(gate.shape) for gate in condition.gates] == [(2, 1, 8, 12)]
    assert fast.diffusion_model.anchors["0"].sigma.shape == (16,)  # channels of condition_widths[2]
    assert torch.equal(fast.diffusion_model.anchors["0"].sigma.round(), torch.ones(16))  # 4 pixels are 1 cell
    *_, e = fast.diffusion_model.encoder(x_t, fast.diffusion_model.time(t))
    assert e.shape[-2:] == fast.condition_model(image)[1].shape[-2:] == (4, 6)
    assert {part.shape[1] for part in condition.semantics} == {4 * 6}
    assert denoised(fast, x_t, t, condition).shape == x_t.shape


def test_an_edge_within_a_cell_reaches_the_output_where_it_is(fast: DiffusionModel) -> None:
    """One pixel of the detail changes the 3×3 pixels around it and no other, wherever the borders of cells are."""
    image, x_t, t = inputs((32, 32))
    condition = fast.condition(image)
    assert condition.detail.shape == (2, 4, 32, 32)
    before = denoised(fast, x_t, t, condition)
    for row, column in ((12, 16), (14, 19)):
        detail = condition.detail.clone()
        detail[:, :, row, column] += 1
        changed = denoised(fast, x_t, t, replace(condition, detail=detail)) != before
        rows, columns = changed[0, 0].any(dim=1).nonzero().flatten(), changed[0, 0].any(dim=0).nonzero().flatten()
        assert rows.tolist() == [row - 1, row, row + 1]
        assert columns.tolist() == [column - 1, column, column + 1]


def test_an_image_is_looked_at_alone(fast: DiffusionModel) -> None:
    image, x_t, t = inputs()
    together = fast(image, x_t, t)[0]
    alone = torch.cat([fast(image[i : i + 1], x_t[i : i + 1], t[i : i + 1])[0] for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.diffusion_patch=4"], "with condition_patch 1 and diffusion_patch 4.*2 fewer levels"),
        (["model.diffusion_patch=3"], "diffusion_patch is 3; it must be 1, 2, 4 … times 1"),
        (["model.condition_patch=2", "model.diffusion_patch=1"], "diffusion_patch is 1; it must be"),
        (["model.condition_patch=3", "model.diffusion_patch=4"], "diffusion_patch is 4; it must be"),
        ([*UNLIKE, "model.anchor_levels=[1]"], "anchor_levels must lie in 0 … 0"),
    ],
)
def test_patches_that_do_not_fit_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small_config(*overrides)


def _learnt(config: Config, image: torch.Tensor, mask: torch.Tensor, *, steps: int) -> DiffusionModel:
    torch.manual_seed(0)
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        batch = as_batch({"image": image, "mask": mask, "positions": tuple(range(4 * step, 4 * step + 4))})
        optimizer.zero_grad()
        losses_of(model, batch, config, signal_scale=0.1).total.backward()
        optimizer.step()
    return model.eval()


def test_the_tiny_fast_network_learns_four_lesions_to_the_edge() -> None:
    """From nearly pure noise, so that what it says comes from the image; at half the width, to be quick."""
    config = load_preset(
        "v2-fast-tiny",
        [
            *("model.condition_patch=1", "model.condition_widths=[8, 16, 32, 48]", "model.diffusion_widths=[16, 32]"),
            "model.anchor_levels=[0]",
            *("data.channels=1", "data.task=binary", "data.classes=[lesion]", "model.ss_former_dim=32"),
            *("model.ss_former_blocks=1", "model.filter_channels=8", "model.filter_blocks=2", "model.time_dim=32"),
        ],
    )
    lesions = [make_lesion(32, seed) for seed in range(4)]
    image = torch.stack([torch.from_numpy(lesion.image) for lesion in lesions])
    image = (image - image.mean()) / image.std()
    mask = torch.stack([torch.from_numpy(lesion.core)[None].float() for lesion in lesions])
    model = _learnt(assumed(config), image, mask, steps=60)
    with torch.inference_mode():
        x_T = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
        said = denoised(model, x_T, torch.tensor([999.0]), model.condition(image)) > 0
    overlap = 2 * (said & (mask > 0)).sum() / (said.sum() + mask.sum())
    assert overlap > 0.96


def test_gradient_reaches_every_parameter() -> None:
    config = small_config(*UNLIKE, "data.task=binary", "data.classes=[a]")
    model = randomised(build_model(config))
    mask = (torch.rand(4, 1, 32, 32) > 0.5).float()
    batch = as_batch({"image": torch.randn(4, 3, 32, 32), "mask": mask, "positions": (0, 1, 2, 3)})
    losses_of(model, batch, config, signal_scale=0.3).total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
