from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsegdiff.config.data import DataConfig
from medsegdiff.data.intensity import match_channels, normalise
from medsegdiff.data.placement import place
from medsegdiff.data.slicing import slices_of
from medsegdiff.data.transforms import from_grid, grid_mask, prepare, to_grid
from medsegdiff.errors import DataError, GeometryError
from medsegdiff.inference.inputs import read_case
from medsegdiff.types import Case, Geometry
from tests.makers import as_told, disc, write_png

sizes = st.tuples(st.integers(5, 90), st.integers(5, 90))


def data(**values: object) -> DataConfig:
    return DataConfig(**values)


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from(["fit", "stretch", "none"]), st.sampled_from([8, 16]))
def test_grid_is_a_multiple_of_the_stride_and_nothing_is_cut(native: tuple[int, int], how: str, stride: int) -> None:
    placement = place(native, data(image_size=40, resize=how), stride)
    assert all(g % stride == 0 for g in placement.grid)
    assert all(
        r <= g < r + (40 if how == "fit" else 0) + stride
        for r, g in zip(placement.resized, placement.grid, strict=True)
    )
    if how == "none":
        assert placement.resized == native
    if how == "stretch":
        assert placement.resized == (40, 40)
    if how == "fit":
        assert max(placement.resized) == 40
        assert abs(placement.resized[0] * native[1] - placement.resized[1] * native[0]) <= max(native)


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_padding_alone_is_undone_exactly(native: tuple[int, int]) -> None:
    placement = place(native, data(image_size=40, resize="none"), 16)
    values = torch.randn(3, *native)
    assert torch.equal(from_grid(to_grid(values, placement)[None], placement)[0], values)


@pytest.mark.parametrize("how", ["fit", "stretch"])
@pytest.mark.parametrize("native", [(120, 90), (33, 64), (50, 50)])
def test_a_mask_comes_back_where_it_was(how: str, native: tuple[int, int]) -> None:
    """A disc off the centre: any shift, flip or swap of axes would show."""
    mask = disc(native, (0.3 * native[0], 0.6 * native[1]), 0.2 * min(native))
    placement = place(native, data(image_size=64, resize=how), 16)
    there = grid_mask(mask[None, None].astype(np.uint8), placement, exclusive=False)
    back = from_grid(there[0, None].float(), placement)[0, 0] >= 0.5
    assert 2 * (back.numpy() & mask).sum() / (back.numpy().sum() + mask.sum()) > 0.95


def test_exclusive_masks_stay_exclusive_and_padding_is_background() -> None:
    labels = np.zeros((30, 50), np.uint8)
    labels[5:20, 5:20], labels[10:28, 25:45] = 1, 2
    mask = (labels == np.arange(3)[:, None, None])[None].astype(np.uint8)
    placement = place((30, 50), data(image_size=40), 16)
    there = grid_mask(mask, placement, exclusive=True)
    assert torch.equal(there.sum(dim=1), torch.ones(1, *placement.grid))
    assert there[0, 0, 0].min() == 1  # above the image


def test_normalised_channels_have_mean_0_and_deviation_1_and_constant_ones_are_0() -> None:
    image = np.stack([np.random.default_rng(0).normal(7, 3, (20, 20)), np.full((20, 20), 5.0)])
    out = normalise(image)
    assert out.mean(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-5)
    assert out.std(axis=(1, 2), ddof=1) == pytest.approx([1, 0], abs=1e-5)


def test_values_may_enter_as_the_authors_code_lets_them(tmp_path: Path) -> None:
    """Their loaders divide pictures by 255, in whatever file these lie, and give volumes in their own units."""
    levels = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
    share = torch.from_numpy(levels / np.float32(255))
    deep = write_png(tmp_path / "deep.png", levels.astype(np.uint16) * 257)
    bright = np.dstack([levels] * 3)
    files = [write_png(tmp_path / f"a{suffix}", levels) for suffix in (".png", ".tif")]
    pictures = (*files, deep, bright, levels / 255)
    nib.Nifti1Image(levels[..., None], np.diag([-1, -1, 5, 1])).to_filename(tmp_path / "v.nii")
    volume = read_case(tmp_path / "v.nii")
    (cut,) = slices_of(volume, "axial", shared_noise=False)
    for source, unit, raw in (*((p, share, share) for p in pictures), (cut, share, share * 255)):
        case = read_case(source)
        for values, expected in (("unit", unit), ("raw", raw)):
            config = as_told(data(resize="none", values=values), channels=len(case.image))
            found = prepare(case, config, stride=1).image
            expected = expected.flatten().sort().values  # in any order: a slice is turned
            assert all(torch.allclose(channel.flatten().sort().values, expected) for channel in found), source


def test_what_has_another_white_is_not_taken_for_shares_of_it() -> None:
    config = as_told(data(resize="none", values="unit"), channels=1)
    levels = np.array([[[0, 51], [102, 255]]], np.float32)
    picture = Case("a", levels, None, Geometry((2, 2), (1.0, 1.0)))
    with pytest.raises(DataError, match=r"a: the values go from 0 to 255; data\.values is 'unit', .* 1 is white"):
        prepare(picture, config, stride=1)
    slice_of_ct = replace(picture, image=levels * 8 - 1000, intensity=np.array([[0, 1]], np.float32))
    with pytest.raises(DataError, match="the values go from -1000 to 1040; .* 255 is white"):
        prepare(slice_of_ct, config, stride=1)


def test_ct_enters_by_its_window_whatever_the_others_do() -> None:
    ct = normalise(np.array([[[0.0, 51.0, 102.0, 255.0]]]), values="raw", modalities=("ct",), window=(0.0, 102.0))
    assert ct.ravel().tolist() == [-1, 0, 1, 1]


def test_a_mask_of_another_size_than_its_image_is_refused() -> None:
    image, config = np.random.rand(1, 6, 4).astype("f"), as_told(data(image_size=8), channels=1)
    case = Case("a", image, np.ones((1, 1, 6, 4), np.uint8), Geometry((6, 4), (1.0, 1.0)))
    assert prepare(case, config, stride=8).mask is not None
    object.__setattr__(case, "mask", np.ones((1, 1, 4, 6), np.uint8))  # outside tests, shapes are not checked
    with pytest.raises(GeometryError, match="a: the image is 6×4 but its mask is 4×6"):
        prepare(case, config, stride=8)


def test_grey_becomes_colour_and_colour_becomes_grey_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    grey, colour = np.random.rand(1, 4, 4).astype("f"), np.random.rand(3, 4, 4).astype("f")
    assert np.array_equal(match_channels(grey, 3, "a"), np.repeat(grey, 3, 0))
    with caplog.at_level(logging.WARNING):
        assert match_channels(colour, 1, "lesion").shape == (1, 4, 4)
    assert "lesion is coloured" in caplog.text
    with pytest.raises(DataError, match="has 3 channels; the model expects 4"):
        match_channels(colour, 4, "a")


def test_prepare_gives_image_and_masks_on_the_same_grid() -> None:
    case = Case(
        "a", np.random.rand(1, 30, 50).astype("f"), np.ones((2, 1, 30, 50), np.uint8), Geometry((30, 50), (1.0, 1.0))
    )
    prepared = prepare(case, as_told(data(image_size=40), channels=3), stride=16)
    assert prepared.image.shape == (3, 48, 48)
    assert prepared.mask is not None
    assert prepared.mask.shape == (2, 1, 48, 48)
    inside = prepared.mask[0, 0] > 0
    assert inside.sum() == 24 * 40
    assert (prepared.image[:, ~inside] == 0).all()
