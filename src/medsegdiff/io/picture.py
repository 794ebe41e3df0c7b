"""Pictures as a viewer shows them: all their bits, turned, inverted and coloured as the file says; through Pillow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from medsegdiff.errors import DataError, MedSegDiffError, size

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Endings of pictures that are read, in small letters."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
"""What may be inside, whatever the ending says."""
LOSSY = ("JPEG", "MPO", "WEBP")
"""Formats that do not keep values. A TIFF may be a JPEG inside, too."""
GREY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's names for pictures of one channel."""
QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations (EXIF, TIFF) in which height and width change places."""
PHOTOMETRIC, BITS, SAMPLE_FORMAT, PLANES, WIDTH, HEIGHT = 262, 258, 339, 284, 256, 257
"""Tags of a TIFF."""
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Of 16-bit colour, Pillow unpacks one byte of two; read in the other byte order, it is the other one."""
GREY_WITH_ALPHA = "LA;16B"
"""Four bytes a pixel, of which Pillow drops two; as RGBA they are all there."""

Image.MAX_IMAGE_PIXELS = 1 << 30  # Pillow's own limit, 2^26.4, is one for pictures from the web; slides have more


@dataclass(frozen=True)
class Palette:
    """A palette, and which of its colours each pixel has."""

    indices: UInt8[np.ndarray, "h w"]
    colours: UInt8[np.ndarray, "n 3"]
    transparent: frozenset[int]
    """Colours that are not fully opaque."""


@dataclass(frozen=True)
class Picture:
    """What a file shows."""

    values: Shaped[np.ndarray, "h w c"]
    """Grey or colour, upright, in the type of the file; 255 is white of 8 bits, 65535 of 16."""
    transparent: bool
    """Whether any pixel is not fully opaque."""
    lossy: bool
    """Whether the format keeps values only about."""
    one_bit: bool = False
    """Whether a pixel is black or white, and nothing else."""
    palette: Palette | None = None


def header_of(path: Path) -> tuple[tuple[int, int], int]:
    """Read height, width and number of channels (1 or 3) from the header alone."""
    with _opened(path) as picture:
        channels = _shown_channels(picture)  # first: a PNG is loaded to find its orientation
        return _shown_size(picture), channels


def read_picture(path: Path) -> Picture:
    """Read what a file shows, and make sure that it is what its header says."""
    with _opened(path) as picture:
        _check_known(picture, path)
        raw, channels = _raw_mode(picture), _shown_channels(picture)  # first: a PNG is loaded to find its orientation
        expected = (*_shown_size(picture), channels)
        deep = ";16" in raw and picture.mode not in GREY_MODES  # 16-bit colour, or alpha beside 16-bit grey
        plain = None if deep else _plain(picture, raw)
    found = plain or _deep(path, raw)
    if found.values.shape != expected:
        raise DataError(
            f"{path}: the pixels are {size(found.values.shape)} (height×width×channels), but the header says "
            f"{size(expected)}. Export the file again."
        )
    return found


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open a picture and turn whatever goes wrong while reading into one kind of error that names the file.

    Pillow gets a stream, not a name: by their names it would map grey TIFFs into memory before they are turned.
    """
    try:
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1 and picture.format != "MPO":  # a photograph with a preview
                raise DataError(
                    f"{path}: holds {pages} pages, a volume perhaps. Save each page as a picture of its own."
                )
            yield picture
    except MedSegDiffError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Exception as error:  # on a damaged file, decoders raise whatever they like
        raise DataError(
            f"{path}: can't be read as a picture ({error or type(error).__name__}). Allowed: {', '.join(SUFFIXES)}; "
            "re-export the file."
        ) from error


def _tag(picture: ImageFile.ImageFile, tag: int, missing: int) -> int:
    """Read a number of a TIFF; of several, the largest."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return missing
    found = picture.tag_v2.get(tag, missing)
    return int(max(found)) if isinstance(found, tuple) else int(found)


def _shown_size(picture: ImageFile.ImageFile) -> tuple[int, int]:
    """Tell height and width as they are shown."""
    width, height = picture.size
    if isinstance(picture, TiffImagePlugin.TiffImageFile):  # whose size may or may not be turned already
        width, height = _tag(picture, WIDTH, 0), _tag(picture, HEIGHT, 0)
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS
    return (width, height) if turned else (height, width)


def _shown_channels(picture: ImageFile.ImageFile) -> int:
    return 1 if picture.mode in GREY_MODES or _raw_mode(picture) == GREY_WITH_ALPHA else 3


def _check_known(picture: ImageFile.ImageFile, path: Path) -> None:
    """Refuse TIFFs that Pillow opens, but takes for something else."""
    bits, signed = _tag(picture, BITS, 8), _tag(picture, SAMPLE_FORMAT, 1) == 2
    reason = ""
    if bits > 8 and _tag(picture, PLANES, 1) == 2 and picture.mode not in GREY_MODES:
        reason = f"holds {bits}-bit colour in separate planes. Save it with interleaved channels, or as PNG"
    elif picture.mode == "CMYK" and bits > 8:
        reason = f"holds {bits}-bit ink values (CMYK). Save it as RGB"
    elif signed and bits == 8:
        reason = "holds signed 8-bit values. Save it with 16 bits, or unsigned"
    elif picture.mode == "F" and _tag(picture, PHOTOMETRIC, 1) == 0:
        reason = "holds floating point numbers of which the lowest is white. Save it with black at zero"
    elif (missing := _missing(picture)) > 0:
        reason = f"lacks {missing} of the pixels that its header tells of. Export it again"
    if reason:
        raise DataError(f"{path}: {reason}.")


def _missing(picture: ImageFile.ImageFile) -> int:
    """Count the pixels of a TIFF that no strip and no tile holds: Pillow would leave them black."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 0
    extents = [tile.extents for tile in picture.tile if tile.extents]
    held = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    return _tag(picture, WIDTH, 0) * _tag(picture, HEIGHT, 0) - held


def _raw_mode(picture: ImageFile.ImageFile) -> str:
    """Tell how the pixels lie in a file that is not loaded yet, in Pillow's words."""
    args = picture.tile[0].args if picture.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _plain(picture: ImageFile.ImageFile, raw: str) -> Picture:
    """Read a picture of which Pillow keeps all bits."""
    turned = ImageOps.exif_transpose(picture)
    palette = _palette(turned) if turned.mode in ("P", "PA") else None
    values, alpha = _parted(_resolved(turned))
    if values.dtype == np.uint16 and _tag(picture, PHOTOMETRIC, 1) == 0:  # of fewer bits, Pillow turns them itself
        values = np.uint16(65535) - values
    if values.dtype == np.int32 and _tag(picture, SAMPLE_FORMAT, 1) == 1 and values.min() < 0:
        values = values.view(np.uint32)
    transparent = alpha is not None and bool(alpha.min() < 255)
    if palette is None and (key := _transparent_colour(picture, raw)) is not None:
        transparent |= bool((values == key).all(axis=2).any())
    lossy = picture.format in LOSSY or picture.info.get("compression") in ("jpeg", "tiff_jpeg")
    return Picture(values, transparent, lossy, one_bit=turned.mode == "1", palette=palette)


def _resolved(picture: Image.Image) -> Image.Image:
    """Bring a picture into a mode in which an array holds grey or colour, with or without alpha."""
    if picture.mode == "La":
        return picture.convert("LA")
    if picture.mode in (*GREY_MODES[1:], "RGB", "RGBA"):
        return picture
    opaque = picture.mode not in ("PA", "RGBa") and "transparency" not in picture.info
    return picture.convert("L" if picture.mode == "1" else "RGB" if opaque else "RGBA")


def _parted(picture: Image.Image) -> tuple[Shaped[np.ndarray, "h w c"], Shaped[np.ndarray, "h w"] | None]:
    """Take colours and alpha apart."""
    pixels = np.asarray(picture)
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.ndim == 2:
        return pixels[..., None], None
    return (pixels[..., :-1], pixels[..., -1]) if pixels.shape[2] in (2, 4) else (pixels, None)


def _transparent_colour(picture: ImageFile.ImageFile, raw: str) -> np.ndarray | None:
    """Find the grey or colour that a PNG declares transparent, in the values that it is read as."""
    key = picture.info.get("transparency")
    if key is None or picture.mode not in (*GREY_MODES, "RGB"):
        return None
    return np.atleast_1d(key) * {"L;2": 85, "L;4": 17}.get(raw, 1)


def _palette(picture: Image.Image) -> Palette:
    pixels = np.asarray(picture)
    indices = pixels[..., 0] if pixels.ndim == 3 else pixels
    colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if indices.max() >= len(colours):
        raise ValueError(f"it has the colour {indices.max()} of a palette of {len(colours)}")
    said = picture.info.get("transparency", b"")
    faint = {said} if isinstance(said, int) else {index for index, alpha in enumerate(said) if alpha < 255}
    if pixels.ndim == 3:
        faint |= set(np.unique(indices[pixels[..., 1] < 255]).tolist())
    return Palette(indices, colours, frozenset(faint))


def _deep(path: Path, raw: str) -> Picture:
    """Read 16-bit colour: once the upper bytes and once the lower ones, for Pillow gives eight bits a time."""
    if raw == GREY_WITH_ALPHA:
        four = _unpacked(path, "RGBA").astype(np.uint16)
        values, alpha = four[..., 0:1] * 256 + four[..., 1:2], four[..., 2] * 256 + four[..., 3]
        return Picture(values, bool(alpha.min() < 65535), lossy=False)
    upper, lower = _unpacked(path, raw), _unpacked(path, raw[:-1] + OTHER_BYTE[raw[-1]])
    pixels = upper.astype(np.uint16) * 256 + lower
    transparent = pixels.shape[2] == 4 and bool(pixels[..., 3].min() < 65535)
    with _opened(path) as picture:
        key = picture.info.get("transparency")
    if key is not None:
        transparent |= bool((pixels[..., :3] == np.array(key)).all(axis=2).any())
    return Picture(pixels[..., :3], transparent, lossy=False)


def _unpacked(path: Path, raw: str) -> UInt8[np.ndarray, "h w c"]:
    """Decode a picture, reading its bytes as another raw mode of Pillow."""
    with _opened(path) as picture:
        picture.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in picture.tile
        ]
        return np.asarray(ImageOps.exif_transpose(picture))
