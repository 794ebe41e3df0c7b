"""Reports as a browser shows them, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from medsegdiff import demo
from medsegdiff.evaluation import Evaluation, Scores, evaluate
from medsegdiff.report.evaluation import MOST_OPEN, write_page
from tests.makers import SMALL
from tests.raters import make_rated
from tests.scored import made

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOADED = "() => [...document.images].map(image => image.complete && image.naturalWidth > 0)"
WHOLE = "() => [...document.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth)"
WIDTH = "() => document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed; looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page without a network, and what goes wrong in it."""
    context = browser.new_context()
    context.set_offline(True)
    opened, wrong = context.new_page(), []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("requestfailed", lambda request: wrong.append(f"failed: {request.url[:80]}"))
    opened.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    yield opened, wrong
    context.close()


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate(*make_rated(tmp_path_factory.mktemp("rated"), count=9))


def seen(page: Page, wrong: list[str], report: Path) -> tuple[list[int], list[str]]:
    """Open a report on a laptop and on a phone: how many pictures it shows on each, and what is wrong."""
    shown = []
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(report.as_uri())
        loaded = page.evaluate(LOADED)
        shown.append(len(loaded))
        wrong += [f"picture {number} is not shown at {width}" for number, fine in enumerate(loaded) if not fine]
        wrong += [f"scrolls to the side at {width}"] if page.evaluate(WIDTH) > width else []
    return shown, wrong


def test_a_report_opens_from_a_file(page: tuple[Page, list[str]], evaluation: Evaluation, tmp_path: Path) -> None:
    long = ["a_name_that_does_not_end_" * 6, "x" * 200, "short"]
    scores = evaluation.scores
    cases = [*zip(long, scores.groups, strict=False), *((name, name) for name in scores.groups)]
    scores = Scores.of_cases((shown, "", scores.of(name)) for shown, name in cases)
    warnings = ("Masks look as if they were mirrored: " + "y" * 200,)
    write_page(replace(evaluation, scores=scores, warnings=warnings, pairing=None), tmp_path / "long.html")
    plots = 5 + 1 + 1 + 1
    assert seen(*page, tmp_path / "long.html") == ([plots] * 2, [])
    write_page(evaluation, tmp_path / "r.html", command="medsegdiff evaluate " + "z" * 300)
    assert seen(*page, tmp_path / "r.html") == ([plots + 9 * 4] * 2, [])


def test_the_gallery_has_four_columns_and_two_on_a_phone(
    page: tuple[Page, list[str]], evaluation: Evaluation, tmp_path: Path
) -> None:
    first = next(iter(evaluation.scores.groups))
    one = Scores.of_cases([(first, "", evaluation.scores.of(first))])
    write_page(replace(evaluation, scores=one, pools={}), tmp_path / "r.html")
    for width, columns in ((1280, 4), (360, 2)):
        page[0].set_viewport_size({"width": width, "height": 800})
        page[0].goto((tmp_path / "r.html").as_uri())
        found = page[0].eval_on_selector(".panels", "panels => getComputedStyle(panels).gridTemplateColumns")
        assert len(found.split()) == columns


def test_a_click_sorts_by_number_and_another_one_the_other_way(page: tuple[Page, list[str]], tmp_path: Path) -> None:
    by_number = {10: 0.9, 9: 0.05, 2: float("nan"), 1: 0.5}
    cases = [{"name": f"c{n}", "dice": v, "hd95": 100.0 if n == 9 else float(n)} for n, v in by_number.items()]
    write_page(made(cases), tmp_path / "r.html")
    opened, wrong = page
    opened.goto((tmp_path / "r.html").as_uri())

    def click(head: str) -> list[str]:
        opened.get_by_role("button", name=head).click()
        return [text.strip() for text in opened.locator("table.sortable tbody td:first-child").all_inner_texts()]

    assert click("Dice") == ["c9", "c1", "c10", "c2"]  # what is missing comes last
    assert click("Dice") == ["c10", "c1", "c9", "c2"]
    assert click("case") == ["c1", "c2", "c9", "c10"]
    assert click("HD95") == ["c1", "c2", "c10", "c9"]
    assert opened.get_by_role("columnheader", name="HD95").last.get_attribute("aria-sort") == "ascending"
    assert wrong == []


def test_many_cases_are_shown_after_a_click(page: tuple[Page, list[str]], tmp_path: Path) -> None:
    count = MOST_OPEN + 1
    cases = [{"name": f"c{i}", "dice": i / count} for i in range(count)]
    write_page(made(cases), tmp_path / "r.html")
    page[0].goto((tmp_path / "r.html").as_uri())
    table = page[0].locator("table.sortable")
    assert not table.is_visible()
    page[0].get_by_text(f"{count} cases").click()
    assert table.is_visible()


@pytest.mark.slow
def test_the_report_of_the_demonstration_opens_too(
    page: tuple[Page, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "RECIPE", (*SMALL, "train.max_steps=3", "train.val_every=3"))
    monkeypatch.setattr(demo, "installed_models", list)  # trained ones are shown first
    source = demo.PhantomSource
    monkeypatch.setattr(demo, "PhantomSource", lambda config: source(config, counts=(8, 2, 3)))
    assert seen(*page, demo.run_demo(tmp_path / "demo").report) == ([2, 2], [])
    page[0].set_viewport_size({"width": 1100, "height": 800})
    assert page[0].evaluate(WHOLE)
