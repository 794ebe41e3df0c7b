"""Pictures and plots as data URIs, which carry them inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

QUALITY = 88
"""Of JPEG: contours stay sharp."""


def embed(picture: Path) -> str:
    """Turn a picture into an address that carries it."""
    return data_uri(picture.read_bytes(), "image/png")


def data_uri(content: bytes, kind: str) -> str:
    """Turn the content of a file into an address that carries it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Pack a picture as JPEG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return data_uri(content.getvalue(), "image/jpeg")


def svg_uri(figure: Figure) -> str:
    """Pack a plot as SVG, sharp at any size; the same plot gives the same bytes."""
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "medsegdiff", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", dpi=160, metadata={"Date": None})
    return data_uri(content.getvalue(), "image/svg+xml")
