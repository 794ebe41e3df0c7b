"""What a viewer shows is what is read: all bits, upright, with white where the file says that white is."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medsegdiff.errors import DataError
from medsegdiff.io.picture import header_of, read_picture
from medsegdiff.io.raster import read_image
from tests.rasters import write_deep_png, write_tiff

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 5, 1), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (7, 5, 1), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
COLOUR16 = RNG.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown),  # shown after a quarter turn clockwise
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}
"""By orientation: what lies in the file."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("shown", [GREY, GREY16, COLOUR, COLOUR16], ids=["grey", "grey16", "colour", "colour16"])
def test_a_tiff_is_turned_as_it_says(tmp_path: Path, shown: np.ndarray, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](shown))
    for order in "<>":
        path = write_tiff(tmp_path / "a.tif", stored, order=order, t274=orientation)
        assert np.array_equal(read_picture(path).values, shown)
        assert header_of(path) == ((7, 5), shown.shape[2])


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_is_turned_too(tmp_path: Path, compression: str | None, orientation: int) -> None:
    for shown in (GREY[..., 0], GREY16[..., 0], COLOUR):
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](shown)))
        stored.save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression)
        assert np.array_equal(np.squeeze(read_picture(tmp_path / "a.tif").values), shown)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_written_elsewhere_is_whole(tmp_path: Path, suffix: str) -> None:
    values = RNG.integers(0, 65536, (40, 30, 3), dtype=np.uint16)
    for compressed in (False, True):
        path = tmp_path / f"a{suffix}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), str(path), useCompression=compressed)
        assert np.array_equal(read_picture(path).values, values)
    image, _ = read_image(path)
    assert np.allclose(image, values.transpose(2, 0, 1) / 65535, atol=1e-6)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_sixteen_bits_is_whole(tmp_path: Path, channels: int, interlaced: bool) -> None:
    values = RNG.integers(0, 65536, (11, 9, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    path = write_deep_png(tmp_path / "a.png", values, interlaced=interlaced)
    picture = read_picture(path)
    assert np.array_equal(picture.values, values[..., : 1 if channels < 3 else 3])
    assert not picture.transparent
    assert header_of(path) == ((11, 9), picture.values.shape[2])
    if channels in (2, 4):
        values[3, 3, -1] = 65534
        assert read_picture(write_deep_png(path, values, interlaced=interlaced)).transparent


@pytest.mark.parametrize("values", [GREY, GREY16], ids=["8", "16"])
def test_where_zero_is_white_it_is_white(tmp_path: Path, values: np.ndarray) -> None:
    path = write_tiff(tmp_path / "a.tif", values, t262=0)
    assert np.array_equal(read_picture(path).values, np.iinfo(values.dtype).max - values)
    Image.fromarray(values[..., 0]).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[data.index(b"\x06\x01\x03\x00") + 8] = 0  # PhotometricInterpretation
    path.write_bytes(data)
    assert np.array_equal(read_picture(path).values[..., 0], np.iinfo(values.dtype).max - values[..., 0])


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (COLOUR16, {"planar": True}, "16-bit colour in separate planes"),
        (GREY.astype(np.int8), {}, "signed 8-bit values"),
        (GREY.astype(np.float32), {"t262": 0}, "floating point numbers of which the lowest is white"),
        (RNG.integers(0, 9, (4, 4, 4), dtype=np.uint16), {"t262": 5}, "16-bit ink values"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(
    tmp_path: Path, values: np.ndarray, options: dict[str, int], words: str
) -> None:
    with pytest.raises(DataError, match=f"a.tif: holds {words}"):
        read_picture(write_tiff(tmp_path / "a.tif", values, **options))


def test_whole_numbers_of_32_bits_do_not_become_negative(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2**31, 2**32 - 1]], np.uint32)[..., None]
    assert np.array_equal(read_picture(write_tiff(tmp_path / "a.tif", values)).values, values)
    signed = np.array([[-5, 1], [2, 2**31 - 1]], np.int32)[..., None]
    assert np.array_equal(read_picture(write_tiff(tmp_path / "b.tif", signed)).values, signed)


def test_floating_point_numbers_of_either_byte_order_keep_their_values(tmp_path: Path) -> None:
    values = RNG.normal(0, 9, (4, 6, 1)).astype(np.float32)
    for order in "<>":
        assert np.array_equal(read_picture(write_tiff(tmp_path / "a.tif", values, order=order)).values, values)
    values[2, 2] = np.nan
    with pytest.raises(DataError, match="1 of 24 values are NaN"):
        read_image(write_tiff(tmp_path / "nan.tif", values))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_photograph_in_other_colours_is_shown_in_red_green_and_blue(tmp_path: Path, mode: str) -> None:
    smooth = np.linspace(20, 230, 48, dtype=np.uint8)
    shown = np.stack(np.broadcast_arrays(smooth[:, None], smooth[None], np.uint8(90)), axis=-1)
    Image.fromarray(shown).convert(mode).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    found = read_picture(tmp_path / "a.jpg")
    assert found.values.shape == shown.shape
    assert np.abs(found.values.astype(int) - shown).max() < 12
    assert not found.transparent


def test_a_colour_that_is_declared_transparent_is_seen(tmp_path: Path) -> None:
    for values, key in ((GREY16, GREY16[2, 2]), (COLOUR16, COLOUR16[2, 2])):
        assert read_picture(write_deep_png(tmp_path / "a.png", values, key=key.tolist())).transparent
    unused = np.setdiff1d(np.arange(256), GREY)[0]
    for key in (GREY[2, 2, 0], unused):
        Image.fromarray(GREY[..., 0]).save(tmp_path / "a.png", transparency=int(key))
        assert read_picture(tmp_path / "a.png").transparent == (key != unused)
    small = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    small.save(tmp_path / "a.png", bits=4, transparency=5)  # of levels 0 … 15, which are shown as 0 … 255
    found = read_picture(tmp_path / "a.png")
    assert found.transparent
    assert np.array_equal(found.values[..., 0], np.arange(16).reshape(4, 4) * 17)
    with pytest.raises(DataError, match="parts of the picture are transparent"):
        read_image(write_deep_png(tmp_path / "a.png", GREY16, key=GREY16[2, 2].tolist()))


def test_frames_are_not_passed_over(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 2 pages"):
        read_picture(tmp_path / "a.png")


def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", GREY, t274=9)
    assert np.array_equal(read_picture(path).values, GREY)
    assert header_of(path) == ((7, 5), 1)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif"])
def test_whatever_is_wrong_with_a_file_is_said_of_the_file(tmp_path: Path, suffix: str) -> None:
    """Bytes changed at random: decoders raise all kinds of errors, of which none may pass."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).convert("P" if suffix == ".gif" else "RGB").save(path)
    whole = path.read_bytes()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data[: len(data) if seed % 3 else rng.integers(len(data))])
        with suppress(DataError):
            shape = read_picture(path).values.shape
            assert shape == (*header_of(path)[0], header_of(path)[1])


def test_a_directory_without_a_width_is_said_of_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", GREY)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[end : end + 4] = len(data).to_bytes(4, "little")  # a second directory, in which there is no width
    path.write_bytes(bytes(data) + bytes.fromhex("0100 0301 0300 01000000 01000000 00000000"))
    with pytest.raises(DataError, match=r"a\.tif: can't be read as a picture"):
        header_of(path)


def test_rows_that_are_not_there_are_not_black(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tif: lacks 10 of the pixels that its header tells of"):
        read_picture(write_tiff(tmp_path / "a.tif", GREY, t257=9))


def test_a_colour_that_the_palette_lacks_is_refused(tmp_path: Path) -> None:
    paletted = Image.fromarray((GREY[..., 0] % 3).astype(np.uint8))
    paletted.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    paletted.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"PLTE") - 4
    short = struct.pack(">I", 6) + data[start + 4 : start + 14]
    short += struct.pack(">I", zlib.crc32(short[4:]))
    (tmp_path / "a.png").write_bytes(data[:start] + short + data[start + 21 :])
    with pytest.raises(DataError, match="it has the colour 2 of a palette of 2"):
        read_picture(tmp_path / "a.png")
