"""The demonstration, shortened; the report; the pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from medsegdiff import demo
from medsegdiff.errors import ConfigError
from medsegdiff.io.picture import header_of
from medsegdiff.pictures.cases import CaseRow, case_grid, painted
from medsegdiff.pictures.curves import save
from medsegdiff.pictures.overlay import COLOURS, contour, overlay
from medsegdiff.report.html import Cell, Section, Table, write_report
from tests.makers import PLAIN, SMALL, disc


@pytest.mark.slow
def test_the_demonstration_leads_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECIPE", (*PLAIN, *SMALL, "train.max_steps=3", "train.val_every=3"))
    monkeypatch.setattr(demo, "installed_models", list)  # trained ones are shown first
    source = demo.PhantomSource
    monkeypatch.setattr(demo, "PhantomSource", lambda config: source(config, counts=(8, 2, 3)))
    result = demo.run_demo(tmp_path / "demo")
    page = result.report.read_text(encoding="utf-8")
    assert 0 <= result.fused <= 1
    assert "fused mask (largest expected Dice of 10 members)" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is fetched
    again = demo.run_demo(tmp_path / "demo", steps=2)  # replaces what it made itself
    assert again.report == result.report


def test_the_demonstration_does_not_empty_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ConfigError, match="holds something that is not a demonstration"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_report_escapes_what_it_is_given(tmp_path: Path) -> None:
    table = Table([Cell("name"), Cell("Dice")], [[Cell("<script>"), Cell("0.9")]])
    sections = [Section("A <b>", tables=[table], code="a < b")]
    write_report(tmp_path / "r.html", "T & U", sections)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "T &amp; U" in page


def test_contours_are_drawn_on_the_border_and_nowhere_else() -> None:
    inside = disc((64, 64), (30, 30), 12)
    edge = contour(inside.astype(np.uint8))
    assert edge.any()
    assert not (edge & ~inside).any()
    assert not edge[30, 30]
    rgb = overlay(np.random.default_rng(0).random((1, 64, 64)).astype("f"), inside[None].astype(np.uint8))
    assert (rgb[edge] == COLOURS[0].astype(np.uint8)).all()
    assert not (rgb[~edge] == COLOURS[0].astype(np.uint8)).all(axis=-1).any()


def test_a_contour_at_the_rim_of_the_picture_stays_open() -> None:
    whole = np.ones((16, 16), np.uint8)
    assert not contour(whole).any()
    assert not contour(np.zeros_like(whole)).any()


@pytest.mark.parametrize("centre", [(300, 300), (0, 20), (599, 300), (320, 599)])
def test_a_contour_is_as_thick_as_the_picture_asks_for(centre: tuple[int, int]) -> None:
    """What the background reaches in so many steps, seen in all of the picture."""
    inside = disc((600, 600), centre, 40)
    reached = binary_dilation(~inside, iterations=2)
    assert np.array_equal(contour(inside.astype(np.uint8)), reached & inside)


def test_uncertainty_glows() -> None:
    image, heat = np.random.default_rng(0).random((3, 16, 16)).astype("f"), np.zeros((16, 16), np.float32)
    heat[4, 4] = 1
    plain, glowing = (
        overlay(image, np.zeros((0, 16, 16), np.uint8)),
        overlay(image, np.zeros((0, 16, 16), np.uint8), heat),
    )
    different = (plain != glowing).any(axis=-1)
    assert different[4, 4]
    assert different.sum() == 1


def test_several_structures_have_colours_of_their_own() -> None:
    masks = np.stack([disc((20, 20), (10, 10), 8), disc((20, 20), (10, 10), 3)])
    picture = painted(masks)
    assert len({tuple(p) for p in picture.reshape(-1, 3).tolist()}) == 3


def test_a_grid_shows_every_case(tmp_path: Path) -> None:
    mask = disc((20, 20), (10, 10), 5)[None]
    doubt = mask[0].astype("f")
    row = CaseRow("a", np.random.rand(3, 20, 20).astype("f"), [], mask, doubt, members=[mask, mask], anchor=mask)
    save(case_grid([row, row, row]), tmp_path / "grid.png")
    h, w = header_of(tmp_path / "grid.png")[0]
    assert w > h > 300
