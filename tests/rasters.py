"""Pictures written byte by byte, as no library at hand writes them: PNG of 16-bit colour, TIFF with any tag."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Passes of an interlaced PNG: first row and column, steps down and across."""
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Of a PNG, by its channels."""


def write_deep_png(path: Path, values: np.ndarray, *, interlaced: bool = False, key: list[int] | None = None) -> Path:
    """Write (h, w, c) of 16 bits: grey, colour, or either with alpha; ``key`` is declared transparent."""
    height, width, channels = values.shape
    passes = [values[y::down, x::across] for y, x, down, across in ADAM7] if interlaced else [values]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, int(interlaced))
    transparent = b"" if key is None else _chunk(b"tRNS", np.array(key, ">u2").tobytes())
    body = _chunk(b"IHDR", head) + transparent + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_tiff(path: Path, values: np.ndarray, *, order: str = "<", planar: bool = False, **tags: int) -> Path:
    """Write (h, w, c) without compression, in little or big endian; ``tags`` are named t274 and so on."""
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    planes = list(values.transpose(2, 0, 1)) if planar else [values]
    strips = [plane.astype(values.dtype.newbyteorder(order)).tobytes() for plane in planes]
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries = {
        256: [width], 257: [height], 258: [8 * values.dtype.itemsize] * channels, 259: [1],
        262: [2 if channels > 2 else 1], 273: starts, 277: [channels], 278: [height], 279: [len(s) for s in strips],
        284: [2 if planar else 1], 339: [kind] * channels,
    } | {int(name[1:]): [value] for name, value in tags.items()}  # fmt: skip
    directory = 8 + sum(map(len, strips))
    beyond = directory + 2 + 12 * len(entries) + 4
    rows, more = b"", b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        where = packed if len(packed) == 4 else struct.pack(f"{order}I", beyond + len(more))
        more += b"" if len(packed) == 4 else packed
        rows += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + where
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory)
    path.write_bytes(head + b"".join(strips) + struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + more)
    return path
