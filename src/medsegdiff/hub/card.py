"""Cards of models: a README with a head in YAML, as the Hugging Face hub reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medsegdiff.errors import DataError

FILE = "README.md"
FENCE = "---\n"


@dataclass(frozen=True)
class Card:
    """What a card tells."""

    head: dict[str, Any]
    """For programs: licence, tags, numbers."""
    text: str
    """For people, in Markdown."""

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read the card of a model; one without a card has an empty one."""
        file = folder / FILE
        if not file.is_file():
            return cls({}, "")
        try:
            whole = file.read_text(encoding="utf-8")
            first, _, rest = whole.removeprefix(FENCE).partition(f"\n{FENCE}")
            head = yaml.safe_load(first) if whole.startswith(FENCE) else {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{file}: can't be read ({error}). Mend the lines between '---', or remove it.") from error
        if not isinstance(head, dict):
            raise DataError(f"{file}: between the lines '---' stands no list of keys. Mend it, or remove it.")
        return cls(head, rest.lstrip() if whole.startswith(FENCE) else whole)

    def written(self) -> str:
        """Give the content of the file."""
        head = yaml.safe_dump(self.head, sort_keys=False, allow_unicode=True, width=1000)
        return f"{FENCE}{head}{FENCE}\n{self.text.strip()}\n"

    @property
    def summary(self) -> str:
        """The first sentence of the text below its title."""
        lines = [line for line in self.text.split("\n\n") if line.strip() and not line.startswith(("#", "!", "|", "<"))]
        return " ".join(lines[0].split()) if lines else ""
