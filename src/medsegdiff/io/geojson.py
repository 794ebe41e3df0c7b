"""Outlines of a picture's structures as GeoJSON, as QuPath and other viewers of pictures read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.contours import Ring, outlines

CENTRE = 0.5
"""Where the centre of the first pixel is, for viewers that count from the corner of the picture."""


def write_geojson(
    path: Path,
    masks: Iterable[UInt8[np.ndarray, "h w"]],
    *,
    labels: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Write a feature for each connected part of each structure: a polygon, whose further rings are holes."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        between = "\n"
        for mask, name, colour in zip(masks, labels, colours, strict=True):
            for outline in outlines(mask):
                file.write(between + json.dumps(_feature(outline.rings, name, colour), ensure_ascii=False))
                between = ",\n"
        file.write("\n]}\n")


def _feature(rings: Sequence[Ring], name: str, colour: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in rings]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": list(colour)}},
    }


def _closed(ring: Ring) -> list[list[float]]:
    points: list[list[float]] = (np.vstack([ring, ring[:1]]) + CENTRE).tolist()
    return points
