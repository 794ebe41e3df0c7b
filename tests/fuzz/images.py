"""Pictures and volumes as bytes, with the truth of what is in them: made by Pillow and nibabel, whole or damaged."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from PIL import Image

from tests.fuzz.strategies import DATA, edited, with_checksums


@dataclass(frozen=True)
class File:
    """A file as bytes."""

    suffix: str
    content: bytes

    def write(self, folder: Path) -> Path:
        """Write it into a folder, which is made for it."""
        folder.mkdir()
        path = folder / f"case{self.suffix}"
        path.write_bytes(self.content)
        return path


@dataclass(frozen=True)
class Picture(File):
    """A picture, and what a viewer shows."""

    shown: np.ndarray | None = None
    """(h, w) or (h, w, 3), 0 … 1; ``None`` where it is not known, or where there is nothing to see."""
    valid: bool = False
    """Whether it has to be read; else it may be refused."""


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F")
FORMATS = {
    "png": (".png", tuple(mode for mode in MODES if mode != "F")),
    "jpeg": (".jpg", ("L", "RGB")),
    "tiff": (".tif", MODES),
}
COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")


@st.composite
def pictures(draw: DATA, format: str) -> Picture:
    """Save a picture of any mode, size, orientation and compression, with Pillow."""
    suffix, modes = FORMATS[format]
    mode, turn = draw(st.sampled_from(modes)), draw(st.sampled_from((1, 1, *range(1, 9))))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    picture, shown = _drawn(mode, generator, (height, width), opaque=draw(st.integers(0, 3)) > 0)
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = turn
    more: dict[str, Any] = {"exif": exif} if turn > 1 else {}
    if format == "tiff":
        more["compression"] = draw(st.sampled_from(COMPRESSIONS))
    if format != "jpeg" and draw(st.integers(0, 9)) == 0:
        more |= {"save_all": True, "append_images": [picture]}
    picture.save(file, format, **more)
    if format == "jpeg":
        shown = np.asarray(Image.open(file)) / np.float32(255)
    if "save_all" in more:
        return Picture(suffix, file.getvalue())
    shown = None if shown is None or shown.max() == shown.min() else turned(shown, turn)
    return Picture(suffix, file.getvalue(), shown, valid=shown is not None)


def _drawn(
    mode: str, generator: np.random.Generator, size: tuple[int, int], *, opaque: bool
) -> tuple[Image.Image, np.ndarray | None]:
    """Draw noise, and tell what is seen; nothing where a part is transparent."""
    bytes_ = generator.integers(0, 256, (*size, 4), dtype=np.uint8)
    if opaque:
        bytes_[..., 3] = 255
    grey, colour, alpha = bytes_[..., 0], bytes_[..., :3], bytes_[..., 3]
    seen = alpha.min() == 255
    if mode == "1":
        return Image.fromarray(grey > 127), (grey > 127).astype(np.float32)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 7), grey.astype(np.float32) / 7
    if mode == "I;16":
        deep = grey.astype(np.uint16) * np.uint16(256) + alpha
        return Image.fromarray(deep), deep / np.float32(65535)
    if mode == "P":
        palette = generator.integers(0, 256, (256, 3), dtype=np.uint8)
        picture = Image.fromarray(grey, "L")
        picture.putpalette(palette.tobytes())
        return picture, palette[grey] / np.float32(255)
    if mode == "LA":
        return Image.fromarray(np.stack([grey, alpha], axis=-1), "LA"), grey / np.float32(255) if seen else None
    if mode == "RGBA":
        return Image.fromarray(bytes_, "RGBA"), colour / np.float32(255) if seen else None
    pixels = grey if mode == "L" else colour
    return Image.fromarray(np.ascontiguousarray(pixels)), pixels / np.float32(255)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn as EXIF 2.3, tag 274, says: where row 0 and column 0 are when the picture is shown."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    flipped = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(pixels, flipped)


@st.composite
def damaged_pictures(draw: DATA, format: str) -> Picture:
    """Damage a picture."""
    picture = draw(pictures(format))
    content = draw(edited(picture.content))
    if format == "png" and draw(st.booleans()):
        content = with_checksums(content)
    return Picture(picture.suffix, content)


VOXEL_TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", "i8")
HEADER_FIELDS = {
    "sizeof_hdr": (0, "i"),
    **{f"dim[{axis}]": (40 + 2 * axis, "h") for axis in range(8)},
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    **{f"pixdim[{axis}]": (76 + 4 * axis, "f") for axis in range(5)},
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "b"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    **{f"quatern[{part}]": (256 + 4 * part, "f") for part in range(6)},
    **{f"srow[{part}]": (280 + 4 * part, "f") for part in range(12)},
}
"""Where NIfTI-1 keeps what: bytes from the start, and the type."""
WHOLE = (0, 1, -1, 2, 3, 4, 5, 8, 16, 64, 128, 256, 348, 512, 32767, -32768)
REAL = (0.0, 1.0, -1.0, 0.5, 352.0, 351.5, 1e-30, 1e30, float("nan"), float("inf"), -2.0)


@dataclass(frozen=True)
class Volume(File):
    """A NIfTI file; nibabel tells what is in it."""

    valid: bool = False


@st.composite
def volumes(draw: DATA) -> Volume:
    """Write a volume of any type, shape, place and scaling, with nibabel."""
    shape = draw(st.lists(st.integers(1, 5), min_size=3, max_size=4))
    kind = np.dtype(draw(st.sampled_from(VOXEL_TYPES)))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    voxels = generator.integers(0, 100, shape).astype(kind)
    header = Nifti1Header()
    header.set_data_dtype(kind.newbyteorder(draw(st.sampled_from("<>"))) if kind.itemsize > 1 else kind)
    affine = _affine(draw, generator)
    image = Nifti1Image(voxels, affine, header)
    image.set_sform(affine, draw(st.integers(0, 4)))
    image.set_qform(affine, draw(st.integers(0, 4)))
    if draw(st.booleans()):
        image.header.set_slope_inter(draw(st.sampled_from((0.5, 2.0, -1.0))), draw(st.sampled_from((0.0, -1024.0))))
    content = image.to_bytes()
    valid = bool(voxels.max() > voxels.min())
    return _zipped(draw, content, valid=valid)


def _affine(draw: DATA, generator: np.random.Generator) -> np.ndarray:
    """Turn, mirror, scale and move."""
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([draw(st.sampled_from((0.3, 0.7, 1.0, 2.5, 5.0))) for _ in range(3)])
    affine[:3, 3] = generator.uniform(-100, 100, 3)
    return affine


@st.composite
def damaged_volumes(draw: DATA) -> Volume:
    """Change fields of the header, bytes, or what is zipped."""
    volume = draw(volumes())
    content = gzip.decompress(volume.content) if volume.suffix == ".nii.gz" else volume.content
    if draw(st.integers(0, 3)):
        data = bytearray(content)
        for _ in range(draw(st.integers(1, 3))):
            where, kind = HEADER_FIELDS[draw(st.sampled_from(sorted(HEADER_FIELDS)))]
            given = draw(st.sampled_from(REAL if kind == "f" else WHOLE))
            struct.pack_into("<" + kind, data, where, given & 127 if kind == "b" else given)
        return _zipped(draw, bytes(data), valid=False)
    if draw(st.booleans()):
        return _zipped(draw, draw(edited(content)), valid=False)
    return Volume(volume.suffix, draw(edited(volume.content)))


def _zipped(draw: DATA, content: bytes, *, valid: bool) -> Volume:
    if draw(st.booleans()):
        return Volume(".nii.gz", gzip.compress(content, mtime=0), valid)
    return Volume(".nii", content, valid)
