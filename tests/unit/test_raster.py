from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from medsegdiff.errors import DataError
from medsegdiff.io.raster import picture_channels, picture_size, read_image, read_map, read_mask, write_map, write_mask
from tests.makers import write_png

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (7, 5), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [GREY8, GREY16, COLOUR], ids=["grey8", "grey16", "colour"])
def test_pictures_come_back_exactly(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = write_png(tmp_path / f"a{suffix}", pixels)
    image, geometry = read_image(path)
    top = 65535 if pixels.dtype == np.uint16 else 255
    expected = (pixels if pixels.ndim == 3 else pixels[..., None]).transpose(2, 0, 1) / np.float32(top)
    assert np.allclose(image, expected, atol=1e-6)
    assert geometry.shape == (7, 5)
    assert picture_channels(path) == len(expected)


def test_jpeg_is_read(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))
    image, _ = read_image(write_png(tmp_path / "a.jpg", smooth))
    assert np.abs(image[0] * 255 - smooth).max() < 8


def test_floating_point_tiff_keeps_its_values(tmp_path: Path) -> None:
    values = RNG.normal(100, 50, (6, 4)).astype(np.float32)
    image, _ = read_image(write_png(tmp_path / "a.tif", values))
    assert np.array_equal(image[0], values)


def test_palettes_and_opaque_alpha_are_resolved(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[0].shape == (3, 7, 5)
    opaque = np.dstack([COLOUR, np.full((7, 5), 255, np.uint8)])
    image, _ = read_image(write_png(tmp_path / "rgba.png", opaque))
    assert np.allclose(image.transpose(1, 2, 0) * 255, COLOUR, atol=1e-3)
    bits = Image.fromarray(GREY8 > 100)
    bits.save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png")[0])) == {0, 1}


@pytest.mark.parametrize(
    ("name", "pixels", "words"),
    [
        ("nan.tif", np.full((4, 4), np.nan, np.float32), "16 of 16 values are NaN"),
        ("flat.png", np.full((4, 4), 77, np.uint8), "nothing to see"),
        ("clear.png", np.dstack([COLOUR, np.zeros((7, 5), np.uint8)]), "transparent"),
    ],
)
def test_images_with_nothing_to_see_are_refused(tmp_path: Path, name: str, pixels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_image(write_png(tmp_path / name, pixels))
    assert name in str(error.value)


def test_photographs_are_turned_as_they_are_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn clockwise
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    image, geometry = read_image(tmp_path / "turned.png")
    assert geometry.shape == picture_size(tmp_path / "turned.png") == (5, 7)
    assert np.allclose(image.transpose(1, 2, 0) * 255, np.rot90(COLOUR, -1), atol=1e-3)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY8 + np.uint8(i)) for i in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 3 pages"):
        read_image(tmp_path / "stack.tif")


def test_a_mask_drawn_in_the_transparency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="drawn in the transparency"):
        read_mask(write_png(tmp_path / "alpha.png", np.dstack([np.zeros((7, 5, 3), np.uint8), GREY8])))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png")


def test_masks_keep_their_values(tmp_path: Path) -> None:
    for name, pixels in {
        "grey": GREY8,
        "rgb": np.dstack([GREY8] * 3),
        "wide": GREY8.astype(np.uint16),
    }.items():
        assert np.array_equal(read_mask(write_png(tmp_path / f"{name}.png", pixels)), GREY8)
    palette = Image.fromarray(GREY8 % 4)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png"), GREY8 % 4)
    Image.fromarray(GREY8 > 100).save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png"), (GREY8 > 100).astype(np.uint8))


def test_masks_that_are_coloured_or_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the mask is coloured"):
        read_mask(write_png(tmp_path / "c.png", COLOUR))
    with pytest.raises(DataError, match="allowed are whole numbers 0 … 255"):
        read_mask(write_png(tmp_path / "big.png", GREY16))


def test_writing_keeps_values_and_leaves_no_parts(tmp_path: Path) -> None:
    write_mask(tmp_path / "deep" / "m.png", GREY8)
    assert np.array_equal(read_mask(tmp_path / "deep" / "m.png"), GREY8)
    values = RNG.random((7, 5)).astype(np.float32)
    write_map(tmp_path / "deep" / "p.png", values)
    assert np.abs(read_map(tmp_path / "deep" / "p.png") - values).max() < 1e-5
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["m.png", "p.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_turned_picture_has_one_size(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(COLOUR).save(path, exif=exif)
    assert read_image(path)[1].shape == picture_size(path)


def test_a_photograph_with_a_preview_is_a_photograph(tmp_path: Path) -> None:
    preview = Image.fromarray(np.ascontiguousarray(COLOUR[::2, ::2]))
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg")[1].shape == (7, 5)


def test_grey_levels_of_a_jpeg_mask_are_not_taken_for_a_halo(tmp_path: Path) -> None:
    levels = np.repeat(np.array([0, 127, 255], np.uint8), 16)[None].repeat(48, axis=0)
    assert 120 < np.median(read_mask(write_png(tmp_path / "a.jpg", levels))) < 135
