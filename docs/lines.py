"""Refresh the line numbers in `paper-to-code.md`: each link is followed by the name that stands on its line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper-to-code.md"
LINK = re.compile(r"\[(?P<file>[\w/]+\.py):\d+\]\(\.\./src/medsegdiff/(?P=file)#L\d+\) `(?P<name>\w+)`")


def line_of(file: str, name: str) -> int:
    """Find the line on which a function or class is defined."""
    lines = (ROOT / "src" / "medsegdiff" / file).read_text(encoding="utf-8").splitlines()
    found = [n for n, line in enumerate(lines, 1) if re.match(rf"\s*(def|class) {name}\b", line)]
    if not found:
        sys.exit(f"{PAGE.name}: there is no {name} in {file}")
    return found[0]


def refreshed(text: str) -> str:
    """Put the right line number into every link."""

    def link(match: re.Match[str]) -> str:
        file, name = match["file"], match["name"]
        line = line_of(file, name)
        return f"[{file}:{line}](../src/medsegdiff/{file}#L{line}) `{name}`"

    return LINK.sub(link, text)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
