"""The page as a browser shows it: every control changes what is seen, and nobody else is asked."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from medsegdiff.inference.inputs import find_inputs
from medsegdiff.io.image import read_map, read_mask
from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.jobs import JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.local import LocalServer
from medsegdiff.server.results import Results
from medsegdiff.server.tokens import Tokens
from tests import stub_worker
from tests.shown import EYE, segmentation, shown

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHOUT_GPU = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
)
READY = "#stage[aria-busy=false]"
INK = """() => {
  const canvas = document.getElementById("picture"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum = (sum * 31 + data[i]) % 4294967291;
  return sum;
}"""
"""A number that changes with any pixel of the picture."""
SIZE = (48, 60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed; looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(WITHOUT_GPU))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A picture with two structures, one without any, and a volume."""
    eyes = [segmentation("left eye", SIZE, EYE), segmentation("nothing & <b>", SIZE, EYE, empty=True)]
    out, images = shown(tmp_path_factory.mktemp("shown"), *eyes, segmentation("scan", (12, 10, 8), EYE))
    results = Results(out, {case.name: case for case in find_inputs([images])})
    with LocalServer(results) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def page(browser: Browser, served: LocalServer) -> Iterator[tuple[Page, list[str]]]:
    """The page, and what goes wrong in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened, wrong = context.new_page(), []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )

    def asked(url: str) -> None:
        if not url.startswith((served.address, "blob:", "data:")):
            wrong.append(f"asks {url}")

    opened.on("request", lambda request: asked(request.url))
    yield opened, wrong
    context.close()


def test_every_control_changes_what_is_seen_of_a_picture(
    page: tuple[Page, list[str]], served: LocalServer, tmp_path: Path
) -> None:
    opened, wrong = page
    opened.goto(served.address)
    opened.wait_for_selector(READY)
    expect(opened.locator("#case")).to_have_text("left eye")
    seen = [opened.evaluate(INK)]

    def changes(what: str) -> None:
        now = opened.evaluate(INK)
        assert now != seen[-1], what
        seen.append(now)

    for mode in ("anchor", "members"):
        opened.locator(f"#mode [value={mode}]").check(force=True)
        changes(mode)
    opened.locator("#member").fill("4")
    changes("member")
    expect(opened.locator("#member-of")).to_have_text("Member 4 of 5")
    opened.locator("#others").uncheck()
    changes("the other members")
    opened.locator("#mode [value=fused]").check(force=True)
    fused = opened.evaluate(INK)
    sizes = opened.locator("#structures .size").all_inner_texts()
    opened.locator("#threshold-at").fill("0.15")
    expect(opened.locator("#structures .size").first).not_to_have_text(sizes[0])
    changes("threshold")
    now = opened.locator("#structures .size").all_inner_texts()
    shares = read_map(served.results.places.probability("left eye")["disc"])
    assert (now[0], now[1]) != tuple(sizes)
    assert int(now[0].split()[0].replace(" ", "")) == int((shares >= 0.15).sum())
    opened.locator("#threshold-reset").click()
    assert opened.evaluate(INK) == fused
    seen.append(fused)
    for box in ("#uncertainty-on", "#fill"):
        opened.locator(box).check()
        changes(box)
    for slider, value in (("#uncertainty-opacity", "0.2"), ("#width", "0.5"), ("#level", "0.3")):
        opened.locator(slider).fill(value)
        changes(slider)
    opened.locator("#structures input").first.uncheck()
    changes("structure")
    opened.mouse.move(500, 400)
    expect(opened.locator("#readout")).to_contain_text("of 5 members")
    opened.locator("#picture").focus()
    opened.keyboard.press("2")
    changes("structure, by a key")
    assert opened.locator("#quality .verdict").all_inner_texts() == ["May pass", "A human must look"]
    with opened.expect_download() as got:
        opened.get_by_text("All of this case").click()
    assert got.value.suggested_filename == "left eye.zip"
    assert wrong == []


def test_a_mask_is_corrected_and_saved_as_a_reference(page: tuple[Page, list[str]], served: LocalServer) -> None:
    opened, wrong = page
    opened.goto(f"{served.address}#{'nothing & <b>'}")
    opened.wait_for_selector(READY)
    expect(opened.locator("#case")).to_have_text("nothing & <b>")
    assert opened.locator("#mode [value=reference]").is_hidden()
    before = opened.evaluate(INK)
    opened.locator("#brush-on").check()
    opened.locator("#brush-of").select_option("1")
    box = opened.locator("#picture").bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.mouse.move(*middle)
    opened.mouse.down()
    opened.mouse.move(middle[0] + 40, middle[1])
    opened.mouse.up()
    assert opened.evaluate(INK) != before
    opened.locator("#save").click()
    expect(opened.locator("#saved")).to_contain_text("Saved")
    saved = {
        of: read_mask(served.results.root / "references/masks" / of / "nothing & <b>.png") for of in ("disc", "cup")
    }
    assert saved["cup"].shape == SIZE
    assert saved["cup"][SIZE[0] // 2, SIZE[1] // 2] == 255
    assert (saved["cup"] > 0).sum() > 50
    assert not saved["disc"].any()
    opened.reload()
    opened.wait_for_selector(READY)
    opened.locator("#mode [value=reference]").check(force=True)
    assert opened.locator("#structures .size").all_inner_texts() == ["0 px", f"{(saved['cup'] > 0).sum()} px"]
    assert wrong == []


def test_a_volume_has_three_planes_and_members(page: tuple[Page, list[str]], served: LocalServer) -> None:
    opened, wrong = page
    opened.set_viewport_size({"width": 390, "height": 700})
    opened.goto(f"{served.address}#scan")
    opened.wait_for_selector(READY)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    view = opened.locator("#volume")
    seen = [view.screenshot()]
    for what in ("#mode [value=members]", "#planes [value=coronal]", "#uncertainty-on"):
        opened.locator(what).check(force=True)
        opened.wait_for_timeout(60)
        seen.append(view.screenshot())
    assert len(set(seen)) == len(seen)
    assert "mL" in opened.locator("#structures .size").first.inner_text()
    view.click(position={"x": 180, "y": 180})
    expect(opened.locator("#readout")).to_contain_text("of 5 members")
    assert [line for line in wrong if "GPU stall" not in line and "GL Driver" not in line] == []


@pytest.fixture(scope="module")
def serving(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of jobs, whose worker has its results from before."""
    base = tmp_path_factory.mktemp("serving")
    made, _ = shown(base, segmentation("left eye", SIZE, EYE))
    program = (sys.executable, "-S", stub_worker.__file__, str(made))
    model = Model("eyes", (str(trained[0]),))
    dispatch = Dispatch(JobFolder(base / "jobs"), [model], ["cpu"], Limits(), program=program)
    server = uvicorn.Server(uvicorn.Config(make_app(dispatch, Tokens()), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def test_an_image_is_dropped_and_its_result_appears(browser: Browser, serving: str, tmp_path: Path) -> None:
    image = tmp_path / "left eye.png"
    Image.linear_gradient("L").resize(SIZE[::-1]).save(image)
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        opened, wrong = context.new_page(), []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.goto(serving)
        expect(opened.locator("#model-card")).to_contain_text("medsegdiff-v2")
        opened.locator("#files").set_input_files(image)
        opened.wait_for_selector(READY)
        expect(opened.locator("#case")).to_have_text("left eye")
        before = opened.evaluate(INK)
        opened.locator("#mode [value=members]").check(force=True)
        assert opened.evaluate(INK) != before
        opened.reload()
        opened.wait_for_selector(READY)
        opened.locator("#files").set_input_files([{"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"}])
        expect(opened.locator("#toast")).to_contain_text("no image in what was sent")
        opened.get_by_label("Remove left eye.png").click()
        expect(opened.locator("#jobs li")).to_have_count(0)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        assert [line for line in wrong if "415" not in line] == []


def test_the_page_has_no_barriers_that_axe_finds(browser: Browser, served: LocalServer) -> None:
    """Of a picture and of a volume, in light and dark colours, by the rules of WCAG 2.1 A and AA."""
    for scheme in ("light", "dark"):
        with browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme) as context:
            opened = context.new_page()
            for case in ("left eye", "scan") if scheme == "light" else ("left eye",):
                opened.goto(f"{served.address}#{case}")
                opened.wait_for_selector(READY)
                rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
                found = Axe().run(opened, options=rules)
                assert found.violations_count == 0, found.generate_report()
