"""The wheel without PyTorch holds the modules that the runtime imports, these and no others."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LEAN = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())


def file_of(module: str) -> Path | None:
    place = SOURCE / module.replace(".", "/")
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def imported_by(file: Path) -> Iterator[str]:
    """List the modules of the package that a module imports, within functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medsegdiff"):
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if file_of(name) else str(node.module) for name in inner)


def test_it_holds_what_the_runtime_imports() -> None:
    files = (SOURCE / "medsegdiff" / "runtime").glob("*.py")
    waiting = [f"medsegdiff.runtime.{file.stem}".removesuffix(".__init__") for file in files]
    found = {"medsegdiff"}  # which imports nothing before it is asked for
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [*imported_by(file_of(module)), module.rpartition(".")[0]]
    expected = [name + ".__init__" * (file_of(name).stem == "__init__") for name in sorted(found)]
    assert sorted(LEAN["tool"]["setuptools"]["py-modules"]) == sorted(expected)


@pytest.mark.parametrize("key", ["version", "license", "requires-python", "authors"])
def test_it_is_told_as_the_whole_is(key: str) -> None:
    assert LEAN["project"][key] == WHOLE["project"][key]


def test_its_libraries_are_those_of_the_whole_in_the_same_ranges() -> None:
    whole, extras = WHOLE["project"]["dependencies"], WHOLE["project"]["optional-dependencies"]
    known = {*whole, *extras["onnx"], *extras["dicom"]}
    asked = LEAN["project"]["optional-dependencies"]
    assert {*LEAN["project"]["dependencies"], *asked["files"], *asked["dicom"]} <= known
