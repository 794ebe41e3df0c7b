from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from medsegdiff.errors import DataError
from medsegdiff.io import png
from medsegdiff.io.picture import header_of
from medsegdiff.io.raster import read_image, read_map, read_mask, write_map, write_mask, write_picture
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
    assert header_of(path)[1] == len(expected)


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
    assert geometry.shape == header_of(tmp_path / "turned.png")[0] == (5, 7)
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
    with pytest.raises(DataError, match="mask values go from nan to nan"):
        read_mask(write_png(tmp_path / "nan.tif", np.full((4, 4), np.nan, np.float32)))


def test_writing_keeps_values_and_leaves_no_parts(tmp_path: Path) -> None:
    write_mask(tmp_path / "deep" / "m.png", GREY8)
    assert np.array_equal(read_mask(tmp_path / "deep" / "m.png"), GREY8)
    values = RNG.random((7, 5)).astype(np.float32)
    write_map(tmp_path / "deep" / "p.png", values)
    assert np.abs(read_map(tmp_path / "deep" / "p.png") - values).max() < 1e-5
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["m.png", "p.png"]


@pytest.mark.parametrize("band", [1, 20, 1 << 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (37, 23)])
def test_other_programs_read_what_is_written_in_bands(
    tmp_path: Path, shape: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "BAND", band)
    grey, colour, levels = RNG.integers(0, 256, shape), RNG.integers(0, 256, (*shape, 3)), RNG.integers(0, 65536, shape)
    grey[:, ::3] = 0
    write_mask(tmp_path / "grey.png", grey.astype(np.uint8).T.copy().T)  # rows need not lie one after the other
    write_picture(tmp_path / "colour.png", colour.astype(np.uint8))
    write_map(tmp_path / "map.png", levels / 65535)
    for name, pixels in (("grey", grey), ("colour", colour), ("map", levels)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_turned_picture_has_one_size(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(COLOUR).save(path, exif=exif)
    assert read_image(path)[1].shape == header_of(path)[0]


def test_a_photograph_with_a_preview_is_a_photograph(tmp_path: Path) -> None:
    preview = Image.fromarray(np.ascontiguousarray(COLOUR[::2, ::2]))
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg")[1].shape == (7, 5)


def test_grey_levels_of_a_jpeg_mask_are_not_taken_for_a_halo(tmp_path: Path) -> None:
    levels = np.repeat(np.array([0, 127, 255], np.uint8), 16)[None].repeat(48, axis=0)
    assert 120 < np.median(read_mask(write_png(tmp_path / "a.jpg", levels))) < 135


MASK = (RNG.random((7, 5)) < 0.4).astype(np.uint8)


def write_palette(path: Path, indices: np.ndarray, colours: list[list[int]], **options: object) -> Path:
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette([level for colour in colours for level in colour])
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_black_and_white_of_a_palette_are_what_is_shown_in_either_order(tmp_path: Path, suffix: str) -> None:
    black, white = [0] * 3, [255] * 3
    assert np.array_equal(read_mask(write_palette(tmp_path / f"a{suffix}", MASK, [black, white])), MASK)
    assert np.array_equal(read_mask(write_palette(tmp_path / f"b{suffix}", 1 - MASK, [white, black])), MASK)
    everything = read_mask(write_palette(tmp_path / f"c{suffix}", 0 * MASK, [white, black]))
    assert everything.all()


def test_a_palette_of_greys_gives_the_grey_levels(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(256)
    path = write_palette(tmp_path / "a.png", np.argsort(order)[GREY8], [[level] * 3 for level in order.tolist()])
    assert np.array_equal(read_mask(path), GREY8)


RED, GREEN, BLACK, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 0], [255, 255, 255]


@pytest.mark.parametrize(
    ("colours", "fine"),
    [
        ([BLACK, RED, GREEN], True),
        ([WHITE, RED, GREEN], True),
        ([RED, BLACK, GREEN], False),
        ([RED, WHITE, GREEN], False),
        ([WHITE, BLACK, RED], False),
    ],
)
def test_indices_of_a_coloured_palette_are_classes_where_its_first_colour_may_be_the_background(
    tmp_path: Path, colours: list[list[int]], fine: bool
) -> None:
    path = write_palette(tmp_path / "a.png", GREY8 % 3, colours)
    if fine:
        assert np.array_equal(read_mask(path), GREY8 % 3)
    else:
        with pytest.raises(DataError, match=r"a\.png: the palette of the mask shows \{0: .* so 0 can't be"):
            read_mask(path)


def test_only_the_background_of_a_palette_may_be_transparent(tmp_path: Path) -> None:
    path = write_palette(tmp_path / "a.png", GREY8 % 3, [BLACK, RED, GREEN], transparency=0)
    assert np.array_equal(read_mask(path), GREY8 % 3)
    for transparency in (1, bytes([255, 255, 9])):
        with pytest.raises(DataError, match="parts of the mask are transparent"):
            read_mask(write_palette(path, GREY8 % 3, [BLACK, RED, GREEN], transparency=transparency))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_jpeg_mask_is_known_by_what_it_holds(tmp_path: Path, name: str) -> None:
    """Under any ending; here one that has been renamed to the other."""
    drawn = np.kron(MASK, np.ones((13, 13), np.uint8)) * 255
    Image.fromarray(drawn).save(tmp_path / name, format="JPEG", quality=60)
    assert not np.isin(np.asarray(Image.open(tmp_path / name)), [0, 255]).all()
    assert np.array_equal(read_mask(tmp_path / name), drawn)


@pytest.mark.parametrize("top", [1, 2, 9])
def test_class_indices_are_not_taken_from_a_jpeg(tmp_path: Path, top: int) -> None:
    labels = np.random.default_rng(0).integers(0, top + 1, (32, 32)).astype(np.uint8)
    with pytest.raises(DataError, match=r"a\.jpg: the brightest value of the mask is .* does not keep class indices"):
        read_mask(write_png(tmp_path / "a.jpg", labels))
    assert not read_mask(write_png(tmp_path / "empty.jpg", 0 * labels)).any()


def test_a_small_grey_structure_in_a_jpeg_is_not_an_edge(tmp_path: Path) -> None:
    """Of three values, the one between covers a hundredth of the mask, and must not become one of the others."""
    drawn = np.zeros((80, 80), np.uint8)
    drawn[:40], drawn[60:68, 60:68] = 255, 127
    found = read_mask(write_png(tmp_path / "a.jpg", drawn))
    assert abs(int(found[64, 64]) - 127) < 8


def test_large_pictures_are_no_attack(tmp_path: Path) -> None:
    Image.new("1", (14_000, 14_001)).save(tmp_path / "a.tif", compression="group4")
    assert header_of(tmp_path / "a.tif") == ((14_001, 14_000), 1)
