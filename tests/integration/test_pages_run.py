"""What the pages show is what happens: their blocks after `<!-- runs -->` are run, page by page, on small data."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from medsegdiff.config.networks import NETWORKS
from medsegdiff.models.base import MODELS
from tests.program import SETS, call

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"<!-- (runs|file: (?P<file>[\w.]+)) -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- runs -->" in page.read_text(encoding="utf-8")]


@pytest.fixture
def place(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out what the pages speak of: data, a run that was trained on them, photos."""
    run, data = trained
    shutil.copytree(data, tmp_path / "data" / "skin")
    shutil.copytree(run, tmp_path / "runs" / "skin")
    for number in range(2):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copyfile(data / "images" / f"case0{number}.png", tmp_path / "photos" / f"p{number}.png")
    shutil.copyfile(data / "images" / "case00.png", tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quick(words: list[str]) -> list[str]:
    """Make a training small; the preset of a page stays."""
    if "train" not in words:
        return words
    if "--minutes" in words:
        at = words.index("--minutes")
        words = [*words[:at], *words[at + 2 :]]
    small = [] if "--preset" in words else SETS
    return [*words, *small, "--set", "train.max_steps=4", "--set", "train.val_every=4", "--set", "train.val_cases=2"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page: Path, place: Path) -> None:
    space: dict[str, object] = {}
    try:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if block["file"]:
                (place / block["file"]).write_text(block["text"])
            elif block["kind"] == "python":
                exec(block["text"], space)
            else:
                for line in block["text"].splitlines():
                    words = shlex.split(line, comments=True)[1:]
                    if words[0] == "train" and (place / words[words.index("--out") + 1]).exists():
                        continue  # the run that lies there is of this command, with fewer steps
                    assert call(*quick(words)) == 0, line
    finally:
        MODELS._entries.pop("plain", None)
        NETWORKS._entries.pop("plain", None)


def test_there_are_pages_that_run() -> None:
    assert {"start", "photos", "raters", "trust", "network", "sharing", "cluster"} <= {page.stem for page in PAGES}
