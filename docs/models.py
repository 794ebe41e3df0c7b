"""Write `models.md`: what each network is, and what its presets cost, counted without computing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import MODELS, budget

PAGE = Path(__file__).with_name("models.md")
MARKS = ("<!-- networks -->", "<!-- presets -->", "<!-- end -->")


def networks() -> Iterator[str]:
    """Give a table of the registered networks."""
    yield "| network | paper | year | kind | anchor of its own | image looked at |"
    yield "|---|---|---|---|---|---|"
    for entry in MODELS:
        facts = entry.facts
        yield (
            f"| `{entry.name}` | {facts.paper} | {facts.year} | {facts.kind} | {'yes' if facts.has_anchor else 'no'} | "
            f"{'once' if facts.condition_cached else 'at each step'} |"
        )


def presets() -> Iterator[str]:
    """Give a table of the presets with their costs."""
    yield "| preset | network | side | parameters, M | GFLOP, condition | GFLOP, one step | stands for |"
    yield "|---|---|---|---|---|---|---|"
    for name in preset_names():
        config = load_preset(name)
        costs = budget(assumed(config))
        condition, step = 2 * costs.condition_gmac, 2 * costs.denoiser_gmac
        yield (
            f"| `{name}` | `{config.model.name}` | {config.data.image_size} | {costs.parameters / 1e6:.1f} | "
            f"{condition:.4g} | {step:.4g} | {config.reproduces or '–'} |"
        )


def refreshed(text: str) -> str:
    """Put the tables where the page marks their places."""
    first, second, end = MARKS
    before, after = text.split(first)[0], text.split(end)[1]
    parts = [before + first, "", *networks(), "", second, "", *presets(), "", end + after]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
