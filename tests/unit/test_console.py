"""What is printed of users' words is printed as it is: brackets are no markup, colons no emoji."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import medsegdiff
from medsegdiff.cli import compare, console, doctor, evaluate
from medsegdiff.doctor.report import Diagnosis, Finding
from medsegdiff.evaluation import Measure
from medsegdiff.evaluation.compare import Run
from medsegdiff.evaluation.compare import compare as compare_runs
from medsegdiff.progress import tracked
from tests.scored import made, table

NAMES = ["[lesion]", "out/[v2]", "[/b]", "[red]x[/red]", ":smile: \\[a]"]
CONSOLES = ("out", "err", "people")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What all consoles print."""
    text = io.StringIO()
    for name in CONSOLES:
        monkeypatch.setattr(getattr(console, name), "_file", text)
        monkeypatch.setattr(getattr(console, name), "_width", 400)
    return text


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, said: io.StringIO) -> None:
    runs = [{"name": case, "dice": dice, Measure("dice", name): dice} for case, dice in (("a", 0.5), ("b", 0.6))]
    shown = made(runs, structures=(name, "b"), predictions=name)
    evaluate.show(shown)
    scores = table(runs)
    compare.show(compare_runs([Run(name, scores), Run(f"{name}2", scores)], metrics=[f"dice/{name}"]))
    doctor.show(Diagnosis(name, (Finding("masks", name, "good", name, name),), 1.0))
    for say in (console.info, console.warn, console.result):
        say(name)
    console.fail(name, code=1)
    lines = said.getvalue()
    assert lines.count(name) >= 13
    assert "Error: " in lines


@pytest.mark.parametrize("name", NAMES)
def test_a_bar_on_a_terminal_shows_the_name_of_what_is_done(name: str) -> None:
    text = io.StringIO()
    assert list(tracked(Console(file=text, force_terminal=True, width=200, color_system=None), [1], name)) == [1]
    assert name in text.getvalue()


def test_what_is_logged_is_a_line_that_is_never_broken_or_an_event() -> None:
    """In a process of its own, whose output is no terminal: there lines of tables were 80 letters wide."""
    words = "a/path/that/is/longer/than/a/line " * 6
    for progress, expected in (
        ("auto", f"Warning: {words}x\n"),
        ("json", json.dumps({"event": "warning", "text": f"{words}x"}) + "\n"),
    ):
        code = f"""import logging
from medsegdiff.cli import console
console.configure(progress={progress!r})
logging.getLogger("medsegdiff").warning("%sx", {words!r})"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == expected


def test_no_words_are_printed_with_markup_outside_of_the_command_line() -> None:
    """There consoles are those of the caller, which may take brackets for markup."""
    root = Path(medsegdiff.__file__).parent
    for file in root.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "print"):
                continue
            plain = all(isinstance(value, ast.Constant) for value in call.args)
            told = {word.arg: ast.unparse(word.value) for word in call.keywords}
            fine = file.parent.name == "cli" or plain or told.get("markup") == "False" or file.name == "progress.py"
            assert fine, f"{file}:{call.lineno} prints with markup"
