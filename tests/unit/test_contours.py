"""Outlines: filled again by programs that are not ours they are the mask, and a hole is a hole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outlined
from PIL import Image, ImageDraw

from medsegdiff.io.contours import Outline, keyhole, outlines
from medsegdiff.io.geojson import write_geojson


def masks() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    yield np.ones((1, 1), np.uint8)
    ring = np.ones((7, 9), np.uint8)
    ring[2:5, 3:6] = 0
    ring[3, 4] = 1  # an island in the hole
    yield ring
    saddle = np.eye(5, dtype=np.uint8)
    saddle[0, 1] = 1
    yield saddle
    yield np.kron(1 - np.eye(3), np.ones((2, 2))).astype(np.uint8)
    for share in (0.2, 0.5, 0.6, 0.8, 0.95):
        yield (rng.random((23, 31)) < share).astype(np.uint8)
    y, x = np.mgrid[:60, :50]
    away = np.hypot(x - 24, y - 31)
    yield ((away < 21) & (away > 6) & (np.hypot(x - 12, y - 31) > 3)).astype(np.uint8)


def even_odd(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Count with matplotlib around how many rings of each part a centre lies."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    closed = [np.vstack([ring, ring[:1]]) for ring in rings]
    found = sum((Outlined(ring, closed=True).contains_points(centres).astype(int) for ring in closed), np.zeros(x.size))
    return (found % 2).reshape(shape).astype(np.uint8)


@pytest.mark.parametrize("mask", list(masks()))
def test_outlines_filled_by_another_program_are_the_mask(mask: np.ndarray) -> None:
    found = list(outlines(mask))
    assert np.array_equal(even_odd([ring for of in found for ring in of.rings], mask.shape), mask)


@pytest.mark.parametrize("mask", list(masks()))
def test_a_keyhole_is_the_whole_outline_for_any_rule_of_filling(mask: np.ndarray) -> None:
    """Pillow fills by crossings, at eight times the size; turns are counted by the sum of angles."""
    drawn = Image.new("L", (8 * mask.shape[1], 8 * mask.shape[0]))
    turns = np.zeros(mask.shape)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for outline in outlines(mask):
        ring = keyhole(outline)
        assert area(ring) == pytest.approx(area(outline.outer) + sum(map(area, outline.holes)))
        corners = ring[:, 0] + 1j * ring[:, 1]
        seen = corners[:, None, None] - (x + 1j * y)
        turns += np.angle(np.roll(seen, -1, axis=0) / seen).sum(axis=0) / (2 * np.pi)
        part = Image.new("L", drawn.size)
        ImageDraw.Draw(part).polygon([(8 * a + 4, 8 * b + 4) for a, b in ring.tolist()], fill=1)
        drawn = Image.fromarray(np.maximum(np.asarray(drawn), np.asarray(part)))
    assert np.array_equal(np.round(turns), mask)
    assert np.array_equal(np.asarray(drawn)[4::8, 4::8], mask)


def area(ring: np.ndarray) -> float:
    """Area of a polygon, negative where it runs clockwise."""
    (x, y), (x_1, y_1) = ring.T, np.roll(ring, -1, axis=0).T
    return float((x * y_1 - x_1 * y).sum() / 2)


def test_outer_rings_and_holes_run_against_each_other_and_keep_no_needless_corner() -> None:
    mask = np.ones((20, 30), np.uint8)
    mask[5:15, 8:20] = 0
    (outline,) = outlines(mask)
    assert [len(ring) for ring in outline.rings] == [8, 8]  # corners are cut off
    assert area(outline.outer) == 20 * 30 - 0.5
    assert area(outline.holes[0]) == -(10 * 12 - 0.5) - 2 * 0.5 + 1


def test_an_empty_mask_has_no_outline() -> None:
    assert list(outlines(np.zeros((4, 5), np.uint8))) == []
    whole = Outline(np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]))
    assert keyhole(whole) is whole.outer


def test_geojson_is_the_mask_again(tmp_path: Path) -> None:
    """Viewers count from the corner of a picture, and further rings of a polygon are holes."""
    rng = np.random.default_rng(1)
    drawn = [(rng.random((15, 20)) < 0.6).astype(np.uint8), np.zeros((15, 20), np.uint8)]
    write_geojson(tmp_path / "a.geojson", drawn, labels=("Drüse", "none"), colours=[(1, 2, 3), (4, 5, 6)])
    told = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert told["type"] == "FeatureCollection"
    rings = [np.array(ring) for of in told["features"] for ring in of["geometry"]["coordinates"]]
    assert all(np.array_equal(ring[0], ring[-1]) for ring in rings)
    assert np.array_equal(even_odd([ring - 0.5 for ring in rings], (15, 20)), drawn[0])
    assert {of["geometry"]["type"] for of in told["features"]} == {"Polygon"}
    assert all(of["properties"]["classification"] == {"name": "Drüse", "color": [1, 2, 3]} for of in told["features"])


def test_a_cut_ends_at_the_next_hole_and_crosses_none() -> None:
    mask = np.ones((20, 9), np.uint8)
    mask[3:6, 3:6] = mask[9:12, 3:6] = mask[15:17, 3:6] = 0
    (outline,) = outlines(mask)
    around = sum(length(ring) for ring in outline.rings)
    assert length(keyhole(outline)) - around == pytest.approx(2 * (3.5 + 4 + 4))


def length(ring: np.ndarray) -> float:
    return float(np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).sum())
