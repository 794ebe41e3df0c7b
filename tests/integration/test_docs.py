"""The documents keep their word: files, names, commands."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from medsegdiff.cli import app, load_plugin
from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.open import detect, layouts, list_cases
from tests.makers import write_png

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT = ("README.md", "CONTRIBUTING.md", "THIRD_PARTY.md", "benchmarks/README.md", "models/README.md")
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "auto_gallery" not in page.parts)


def definitions(file: Path) -> set[str]:
    """Names of classes and functions, and of rows of tables: `dice = Overlap(…)`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    named = {node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    made = [node.targets for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    return named | {target.id for targets in made for target in targets if isinstance(target, ast.Name)}


def test_paper_to_code_names_what_is_where_it_says() -> None:
    page = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    links = re.findall(r"\[([\w/]+\.py)\]\(\.\./src/medsegdiff/([\w/]+\.py)\) `(\w+)`", page)
    assert len(links) == page.count("../src/medsegdiff/") > 20, (
        "links have the form [FILE](../src/medsegdiff/FILE) `NAME`"
    )
    for shown, file, name in links:
        assert shown == file
        assert name in definitions(ROOT / "src" / "medsegdiff" / file), f"there is no {name} in {file}"


def test_the_house_in_contributing_is_the_one_that_stands() -> None:
    house = runpy.run_path(str(ROOT / "docs" / "house.py"))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {room for floor in house["floors"]() for room in floor}
    inside = ROOT / "src" / "medsegdiff"
    there = {path.stem for path in inside.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms == there - {"__init__"}
    assert house["refreshed"](page) == page, "run 'make docs'"


def test_each_place_named_in_contributing_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| you look for.*?\n\n", page, flags=re.DOTALL)
    for place in re.findall(r"`([\w/.]+)`", table):
        assert (ROOT / "src" / "medsegdiff" / place).exists(), place


def test_every_deviation_in_the_code_is_a_row_of_the_document() -> None:
    page = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    rows = page.split("## Deviations")[1]
    told = [p for p in (ROOT / "src").rglob("*.py") if "Deviation:" in p.read_text(encoding="utf-8")]
    assert told
    for path in told:
        assert str(path.relative_to(ROOT / "src" / "medsegdiff")) in rows, path


@pytest.mark.parametrize(
    "page",
    [*FRONT, *(str(page.relative_to(ROOT)) for page in PAGES)],
)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
    assert not re.findall(r"\b(?:PARAMS_|GMAC_|NUMBERS\b|TODO\b|\w+_MEASURED|[A-Z]+_(?:MB|TABLE)\b)", text)


def commands() -> list[str]:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^```bash\n(.*?)^```$", README + pages, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    told = (re.search(r"\bmedsegdiff \w.*", line.split("#")[0]) for line in lines)
    return sorted({found[0].strip() for found in told if found})


def test_commands_under_launchers_are_among_those_tried() -> None:
    assert sum(command.startswith("medsegdiff train") for command in commands()) >= 3


@pytest.mark.parametrize("command", commands())
def test_commands_of_readme_and_pages_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option in them exists; the commands themselves run in the other integration tests."""
    (tmp_path / "scans").mkdir()  # which an option asks for
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("…", ""))[1:]
    group = typer.main.get_command(app)
    context = group.make_context("medsegdiff", words, resilient_parsing=True)
    name, sub, rest = group.resolve_command(context, words)
    if hasattr(sub, "commands"):
        name, sub, rest = sub.resolve_command(context, rest)
    assert sub is not None, name
    sub.make_context(name, rest)


def test_python_of_the_readme_runs(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    run, data = trained
    monkeypatch.chdir(tmp_path)
    code = block.replace('"runs/isic"', repr(str(run))).replace(
        '"lesion.jpg"', repr(str(data / "images" / "case00.png"))
    )
    code = code.replace("steps=20", "steps=2").replace("members=10", "members=3")
    space: dict[str, object] = {}
    exec(code, space)
    assert (tmp_path / "out" / "masks" / "case00.png").exists()


def test_readme_names_the_two_commands() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_every_layout_is_in_the_document() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in layouts() if f"`{name}`" not in page] == []


def test_the_layout_in_contributing_works(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plugin = tmp_path / "clinic.py"
    plugin.write_text(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], encoding="utf-8")
    for number in range(4):
        picture = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
        write_png(tmp_path / "data" / "scans" / f"eye{number}.png", picture)
        write_png(
            tmp_path / "data" / "drawn" / f"eye{number}.png", np.tri(16, dtype=np.uint8) + np.eye(16, dtype=np.uint8)
        )
    (tmp_path / "data" / "clinic.txt").touch()
    try:
        load_plugin(plugin)
        assert detect(tmp_path / "data") == "my-clinic"
        listing = list_cases(tmp_path / "data", DataConfig())
        assert listing.masks.labels({0, 1, 2}).classes == ("background", "disc", "cup")
        assert {case.group for case in listing.cases.values()} == {"patient"}
        assert listing.masks.read("eye0", listing.masks.declared).shape == (1, 3, 16, 16)
    finally:
        DATASETS._entries.pop("my-clinic", None)


def test_the_published_data_set_in_contributing_works(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plugin = tmp_path / "polyps.py"
    plugin.write_text(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[1], encoding="utf-8")
    for part in ("Train", "Test/site"):
        for number in range(3):
            name = f"{part[:2]}{number}"
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number, 90, 20)).save(tmp_path / "data" / part / f"{name}.jpg")
            mask = np.tri(16, dtype=np.uint8)
            write_png(tmp_path / "data" / f"{part.split('/')[0]}_masks" / f"{name}_mask.png", mask)
    try:
        load_plugin(plugin)
        assert detect(tmp_path / "data") == "polyps"
        listing = list_cases(tmp_path / "data", DataConfig())
        assert [case.part for case in listing.cases.values()] == ["test"] * 3 + ["train"] * 3
        assert listing.masks.read("Te1", listing.masks.declared).sum() == np.tri(16).sum()
    finally:
        DATASETS._entries.pop("polyps", None)
