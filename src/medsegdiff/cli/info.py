"""``medsegdiff info`` and ``medsegdiff list``: what there is, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from medsegdiff.cli import complete, options
from medsegdiff.cli.console import out, result


def info(
    what: Annotated[
        str,
        typer.Argument(help="Name of a preset, a YAML file, or the folder of a run.", autocompletion=complete.presets),
    ],
    size: Annotated[
        int | None, typer.Option(min=8, help="Image side at which operations are counted.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what a model is and what it costs.

    Example: `medsegdiff info v2-paper --json`
    """
    from medsegdiff.io.atomic import to_json
    from medsegdiff.training.memory import describe

    facts = describe(what, size=size)
    if as_json:
        result(to_json(facts))
        return
    table = Table(show_header=False, title=what)
    for key, value in facts.items():
        if key != "config":
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(key, shown)
    out.print(table)


COUNTED = "Of the defaults at 256×256; GMAC: condition of an image + step of a member."
"""What the numbers of the table of models mean."""


class Kind(StrEnum):
    """What can be listed."""

    PRESETS = "presets"
    MODELS = "models"
    DATASETS = "datasets"
    SAMPLERS = "samplers"
    FUSERS = "fusers"
    METRICS = "metrics"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.PRESETS,
    as_json: options.AsJson = False,
) -> None:
    """List presets, models, data sets, samplers, fusions or metrics.

    Example: `medsegdiff list samplers`
    """
    rows = _presets() if kind is Kind.PRESETS else _registered(kind.value)
    if as_json:
        from medsegdiff.io.atomic import to_json

        result(to_json(rows))
        return
    if kind is Kind.MODELS:
        out.print(models_table(rows), "", COUNTED, "", references(rows), sep="\n")
        return
    out.print(facts_table(rows, title=kind.value))


def facts_table(rows: Sequence[dict[str, Any]], *, title: str) -> Table:
    """Lay out names and facts."""
    table = Table("name", "facts", title=title)
    for row in rows:
        facts = "\n".join(f"{k}: {shown(v)}" for k, v in row.items() if k != "name" and v not in ("", None))
        table.add_row(row["name"], facts)
    return table


def models_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Lay out what models are and what they cost."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for heading in ("name", "paper", "kind"):
        table.add_column(heading, no_wrap=heading != "paper")  # where there is little room, a year goes below its name
    for heading in ("params", "GMAC"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("condition", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            short(row),
            row.get("kind", ""),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['gmac']['condition']:.1f} + {row['gmac']['denoiser']:.1f}",
            "once" if row.get("condition_cached") else "each step",
        )
    return table


def references(rows: Sequence[dict[str, Any]]) -> Table:
    """Lay out the papers of models in full."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(row["name"], f"{row.get('paper', '')}, {row.get('year', '')}")
    return table


def short(row: dict[str, Any]) -> str:
    """Shorten a reference."""
    author = re.search(r"(\S+) et al\.", str(row.get("paper", "")))
    return f"{author[1] if author else ''} {row.get('year', '')}".strip()


def shown(value: Any) -> str:
    """Write a fact."""
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _presets() -> list[dict[str, Any]]:
    from medsegdiff.config.load import preset_facts

    return preset_facts()


def _registered(kind: str) -> list[dict[str, Any]]:
    from medsegdiff.training.memory import registered

    return registered(kind)
