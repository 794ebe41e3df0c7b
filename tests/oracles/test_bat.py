"""BAT gives what its official network gave, is as large, and is told the same key patches by the same loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from medsegdiff.config.networks.bat import BATConfig
from medsegdiff.data.loader import as_batch
from medsegdiff.errors import ConfigError, ShapeError
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said, build_model
from medsegdiff.models.bat import BAT, ORIGINAL_KEYS
from medsegdiff.models.key_patches import contours, key_patches, key_points
from tests.makers import configured, losses_of
from tests.rivals import difference, load, read_rival, stored


def published() -> BAT:
    with torch.device("meta"):
        return MODELS.build("bat", BATConfig(), image_channels=3, mask_channels=1)


def test_it_gives_what_the_official_network_gave(request: pytest.FixtureRequest) -> None:
    rival, network = read_rival(request, "bat"), published().condition_model.eval()
    load(network, rival.state, ORIGINAL_KEYS, ())
    with torch.inference_mode():
        logits, maps = network(rival.arrays["x"])
    assert difference(logits, rival.arrays["out"]) < 1e-5
    for found, expected in zip(maps, rival.arrays["maps"], strict=True):
        assert difference(found.sigmoid(), expected) < 1e-5


def test_it_has_the_parameters_of_the_official_network_but_those_that_do_nothing() -> None:
    idle = 3 * 128 * 128  # weights of the attention of zeros to themselves
    assert sum(p.numel() for p in published().parameters()) == pytest.approx(46.737e6 - idle, abs=500)


@pytest.mark.parametrize("seed", range(4))
def test_contours_are_all_border_pixels_each_beside_the_next(seed: int) -> None:
    """Borders by erosion, their number by labelling: scipy is the oracle, of holes and single pixels too."""
    noise = np.random.default_rng(seed).standard_normal((40, 30))
    mask = ndimage.gaussian_filter(noise, 1.5) > 0.05
    mask[0, ::3], mask[20, 20] = True, True
    mask[34:40, 20:30] = False
    mask[[35, 36, 36, 37, 37], [25, 24, 26, 23, 27]] = True  # two lines that meet where the border begins
    found = list(contours(mask))
    border = mask & ~ndimage.binary_erosion(mask)  # four neighbours; beyond the image is background
    assert {tuple(point) for contour in found for point in contour} == {tuple(point) for point in np.argwhere(border)}
    structures = ndimage.label(mask, np.ones((3, 3)))[1]
    holes = ndimage.label(np.pad(~mask, 1, constant_values=True))[1] - 1
    assert len(found) == structures + holes
    for contour in found:
        assert np.abs(contour - np.roll(contour, 1, axis=0)).max(initial=0) <= 1


def test_key_points_and_patches_are_those_of_the_official_code(request: pytest.FixtureRequest) -> None:
    held = stored(request, "targets")
    lesion, heat = held["lesion"] > 0, held["bat_heat"]
    assert {tuple(point) for point in key_points(lesion)} == {tuple(point) for point in np.argwhere(heat == 1)}
    assert np.array_equal(key_patches(lesion, (32, 32)), held["bat_patches"])


def test_a_larger_or_wider_mask_has_its_key_patches_at_the_same_places(request: pytest.FixtureRequest) -> None:
    lesion = stored(request, "targets")["lesion"] > 0
    whole = key_patches(lesion, (16, 16))
    assert np.array_equal(key_patches(lesion.repeat(2, axis=0).repeat(2, axis=1), (16, 16)), whole)
    wide, square = (np.pad(lesion, padding) for padding in (((0, 0), (0, 512)), ((0, 512), (0, 512))))
    assert np.array_equal(key_patches(wide, (16, 32)), key_patches(square, (32, 32))[:16])


@pytest.mark.parametrize("side", [512, 256, 128, 64])
def test_a_smaller_mask_has_its_key_patches_at_its_corners_too(side: int) -> None:
    """A square that stands on a corner, in the units of 512 pixels; along its sides nothing bends."""
    rows, columns = np.mgrid[:side, :side] * (512 / side)
    marked = key_patches(np.abs(rows - 250) + 0.8 * np.abs(columns - 260) <= 152, (16, 16))
    near = np.zeros((16, 16), bool)
    for row, column in ((98, 260), (402, 260), (250, 70), (250, 450)):
        tall, wide = (slice(max(0, (at - 32) // 32), (at + 32) // 32 + 1) for at in (row, column))
        near[tall, wide] = True
    assert not (marked > near).any()
    assert ndimage.label(marked)[1] >= 2  # a point is kept if it is strictly beyond its neighbours


def test_nothing_and_a_few_pixels_have_no_key_patches() -> None:
    mask = np.zeros((512, 512), bool)
    assert not key_patches(mask, (32, 32)).any()
    mask[100:120, 100:120] = True  # a contour of 16 points
    assert not key_patches(mask, (32, 32)).any()


def losses(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    held = stored(request, "targets")
    logits, mask = torch.from_numpy(held["binary_logits"]), torch.from_numpy(held["binary"]).float()
    return logits, mask, json.loads(str(held["losses"]))


def test_dice_and_what_maps_miss_are_the_official_losses(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, mask, official = losses(request)
    loss = SUPERVISIONS["bat"].factory
    assert loss(Said(logits, logits), mask, labels=Labels()).tolist() == pytest.approx([official["bat_dice"]] * 2)
    monkeypatch.setattr("medsegdiff.models.bat.key_patch_maps", lambda structures, grid: mask)
    maps = tuple(torch.logit(logits.double().sigmoid() ** power).float() for power in (1, 2, 3))
    for extra, name in ((maps[:1], "bat_focal"), (maps, "bat_focal_per_map_mean_over_3")):
        both = loss(Said(logits, logits, extra=extra), mask, labels=Labels())
        assert both.tolist() == pytest.approx([official["bat_dice"] + official[name]] * 2, rel=1e-6)


def test_what_nobody_labelled_counts_neither_for_dice_nor_for_patches(request: pytest.FixtureRequest) -> None:
    lesion = torch.from_numpy(stored(request, "targets")["lesion"]).float()[None, None]
    labelled = torch.ones_like(lesion)
    labelled[..., 256:] = 0
    torch.manual_seed(0)
    logits, extra = torch.randn_like(lesion), torch.randn(1, 1, 32, 32)
    loss = SUPERVISIONS["bat"].factory
    one = loss(Said(logits, logits, extra=(extra,)), lesion, labels=Labels(), labelled=labelled)
    beyond = torch.cat([extra[..., :16], torch.randn(1, 1, 32, 16)], dim=-1)
    logits[..., 256:] = 9
    assert torch.equal(one, loss(Said(logits, logits, extra=(beyond,)), lesion, labels=Labels(), labelled=labelled))
    lesion[..., 300:] = 1
    assert torch.equal(one, loss(Said(logits, logits, extra=(beyond,)), lesion, labels=Labels(), labelled=labelled))


def test_it_gives_its_maps_in_training_alone_and_learns_from_them() -> None:
    config = configured("bat", "binary", "loss.supervision=bat", "model.dropout=0")
    model, image = build_model(config), torch.randn(2, 2, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., 4:20, 6:30] = 1
    batch = as_batch({"image": image, "mask": mask, "positions": (0, 1)})
    losses_of(model, batch, config, signal_scale=1.0).total.backward()
    assert model.condition_model.query.gate.mix.weight.grad.abs().max() > 0
    maps = model.condition(image).extra
    assert [tuple(each.shape) for each in maps] == [(2, 1, 8, 8)] * 3  # two layers, and the query's
    assert model.eval().condition(image).extra == ()


def test_positions_are_those_of_columns_and_rows_and_end_somewhere() -> None:
    network = build_model(configured("bat", "binary")).condition_model
    found = network.positions((2, 3))
    for row in range(2):
        for column in range(3):
            expected = torch.cat([network.columns[column], network.rows[row]])
            assert torch.equal(found[0, 3 * row + column], expected)
    with pytest.raises(ShapeError, match=r"404×8; this network has positions for sides of 400"):
        network.positions((101, 2))


@pytest.mark.parametrize("name", ["bat", "fatnet"])
def test_a_width_that_its_heads_do_not_divide_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="dim is 14; it must be a multiple of heads, 4"):
        configured(name, "binary", "model.dim=14", "model.heads=4")
