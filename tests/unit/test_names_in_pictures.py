"""Whatever cases, structures and runs are called: pictures show it and pages hold it, and neither fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import list_cases
from medsegdiff.evaluation import Measure, evaluate
from medsegdiff.evaluation.pool import Pool
from medsegdiff.fusion.curve import Curve
from medsegdiff.io.picture import header_of
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.metrics.selective import Selection
from medsegdiff.pictures.cases import CaseRow, case_grid, preview
from medsegdiff.pictures.curves import Gain, differences, members_curves, save
from medsegdiff.report.evaluation import write_page
from medsegdiff.report.plots import distributions, reliability, selective
from tests.makers import disc, write_png
from tests.scored import made

NAMES = ["a$_$b", "$\\frac$", "a\\$b", "50$", "_begins_low", "[red]x[/b]", "<b>&amp;", "Müller", "e\u0301", "w" * 240]


def drawn(text: Text) -> str:
    """What a text is drawn as: raises where it is no valid formula, and tells formulas apart."""
    shown, formula = text._preprocess_math(text.get_text())
    assert not formula
    return str(shown)


def test_letters_that_the_font_lacks_disturb_nobody(tmp_path: Path) -> None:
    mask = disc((12, 12), (6, 6), 4)[None]
    save(case_grid([CaseRow("\u80ba", None, [mask], mask)]), tmp_path / "p.png")  # a warning would be an error here
    assert (tmp_path / "p.png").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(name: str) -> None:
    mask = disc((12, 12), (6, 6), 4)[None]
    figure = case_grid([CaseRow(name, None, [mask], mask)])
    assert name[:18] in {drawn(text) for text in figure.axes[0].texts}
    curve = Curve(np.array([1, 2]), np.array([0.5, 0.6]), np.array([0.1, 0.0]), 2)
    figure = members_curves({name: curve, "b": curve})
    legend = figure.axes[0].get_legend()
    assert legend is not None
    first, second = (drawn(text) for text in legend.get_texts())
    assert (first[:20], first[-20:], second) == (name[:20], name[-20:], "b")
    figure = differences({f"dice/{name}": {name: Gain((0.1, 0.2), 0.15, (0.1, 0.2), True)}}, against=name)
    assert drawn(figure.axes[0].title)[:20] == f"dice/{name}"[:20]
    assert drawn(figure.axes[0].get_yticklabels()[0])[-10:] == name[-10:]


def test_long_names_leave_room_for_the_plot() -> None:
    long = "w" * 240
    gains = {f"dice/{long}": {long: Gain((0.1, 0.2), 0.15, (0.1, 0.2), True)}}
    figure = differences(gains, against=long)
    figure.draw_without_rendering()  # lays it out
    axis = figure.axes[0]
    assert min(axis.get_position().size) > 0.4
    (name,) = axis.get_yticklabels()
    assert name.get_window_extent().x0 >= 0  # and the name is not cut


def test_a_name_that_is_no_text_is_drawn_too(tmp_path: Path) -> None:
    """Of files whose names are not UTF-8."""
    mask = disc((12, 12), (6, 6), 4)[None]
    figure = case_grid([CaseRow("a\udce9b", None, [mask], mask)])
    assert "a?b" in {drawn(text) for text in figure.axes[0].texts}
    save(figure, tmp_path / "grid.png")
    assert min(header_of(tmp_path / "grid.png")[0]) > 100  # pixels


def test_plots_of_a_structure_of_any_name_are_drawn() -> None:
    name, truth = "a$_$b" + "w" * 240, disc((20, 20), (10, 10), 5)
    cases = [{"name": case, "dice": 0.5, Measure("dice", name): 0.5, Measure("dice", "b"): 0.5} for case in "cd"]
    evaluation = made(cases, structures=(name, "b"))
    calibration = Calibration.of(np.where(truth, 0.8, 0.1).astype(np.float32), truth)
    pool = Pool(calibration, calibration, Selection.empty().add(np.where(truth, 0.4, 0.1), truth, truth))
    evaluation = replace(evaluation, pools={name: pool, "b": pool})
    assert distributions(evaluation)
    assert reliability(evaluation)
    assert selective(evaluation)


def test_cases_of_any_name_are_previewed_scored_and_reported(tmp_path: Path) -> None:
    names = [name.replace("/", "-") for name in NAMES]
    for number, name in enumerate(names):
        mask = disc((16, 16), (8, 8), 3 + number % 3).astype(np.uint8) * np.uint8(255)
        write_png(tmp_path / "data" / "images" / f"{name}.png", mask // 2)
        write_png(tmp_path / "data" / "masks" / f"{name}.png", mask)
        write_png(tmp_path / "pred" / f"{name}.png", mask)
    listing = list_cases(tmp_path / "data", DataConfig())
    preview(list(listing.cases.values()), listing.masks, tmp_path / "preview.png")
    evaluation = evaluate(tmp_path / "pred", tmp_path / "data")
    write_page(evaluation, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>&amp;" not in page
    for shown in ("&lt;b&gt;&amp;amp;", "[red]x[", "Müller", "é", "w" * 240, "a$_$b"):
        assert shown.replace("/", "-") in page


def test_panels_of_noise_are_packed(tmp_path: Path) -> None:
    """A JPEG of noise is larger than Pillow's buffer: the reports of untrained models are full of it."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        noise = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        write_png(tmp_path / "data" / "images" / f"{name}.png", noise)
        write_png(tmp_path / "data" / "masks" / f"{name}.png", disc((300, 300), (150, 150), 90).astype(np.uint8))
        write_png(tmp_path / "pred" / f"{name}.png", (rng.random((300, 300)) < 0.5).astype(np.uint8))
    write_page(evaluate(tmp_path / "pred", tmp_path / "data"), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 2 * 65536
