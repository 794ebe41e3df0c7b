"""Write the house into `CONTRIBUTING.md`: the floors that the linter checks, and the first line of each room."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "medsegdiff"
PAGE = ROOT / "CONTRIBUTING.md"
MARKS = ("<!-- house -->", "<!-- end -->")


def floors() -> list[list[str]]:
    """List the rooms by floor, from the top, as `pyproject.toml` has them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in told if contract["type"] == "layers")
    return [[room.strip() for room in layer.replace(":", "|").split("|")] for layer in layers]


def first_line(file: Path) -> str:
    """Give the first sentence of a module's docstring, on one line."""
    words = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return words.split(". ")[0].rstrip(".")


def rooms() -> Iterator[str]:
    """Draw the house: a block by floor, a line by room, and the rooms within `data`."""
    for floor in floors():
        for room in floor:
            folder = PACKAGE / room
            if not folder.is_dir():
                yield f"{room + '.py':<16}{first_line(folder.with_suffix('.py'))}"
                continue
            yield f"{room + '/':<16}{first_line(folder / '__init__.py')}"
            for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
                yield f"  {inner.name + '/':<14}{first_line(inner / '__init__.py')}"
        yield ""


def refreshed(text: str) -> str:
    """Put the house where the page marks its place."""
    first, end = MARKS
    drawn = "\n".join(rooms()).rstrip()
    return f"{text.split(first)[0]}{first}\n\n```\n{drawn}\n```\n\n{end}{text.split(end)[1]}"


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
