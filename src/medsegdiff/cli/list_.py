"""``medsegdiff list``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli import options
from medsegdiff.cli.console import out, result
from medsegdiff.config.load import load_preset, make_config, preset_names

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
    rows = entries(kind)
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
        table.add_row(row["name"], escape(facts))
    return table


def models_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Lay out what models are and what they cost."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for heading in ("name", "paper", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("params", "GMAC"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("condition", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            escape(short(row)),
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
        table.add_row(row["name"], escape(f"{row.get('paper', '')}, {row.get('year', '')}"))
    return table


def short(row: dict[str, Any]) -> str:
    """Shorten a reference."""
    author = re.search(r"(\S+) et al\.", str(row.get("paper", "")))
    return f"{author[1] if author else ''} {row.get('year', '')}".strip()


def shown(value: Any) -> str:
    """Write a fact."""
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def entries(kind: Kind) -> list[dict[str, Any]]:
    """Collect what is registered."""
    if kind is Kind.PRESETS:
        presets = [(name, load_preset(name)) for name in preset_names()]
        return [{"name": name, "for": c.description, "reproduces": c.reproduces} for name, c in presets]
    from medsegdiff.data.dataset import DATASETS
    from medsegdiff.diffusion.samplers import SAMPLERS
    from medsegdiff.fusion.fusers import FUSERS
    from medsegdiff.metrics.base import METRICS
    from medsegdiff.models.base import MODELS

    if kind is Kind.MODELS:
        return [{**entry.described(), **cost(entry.name)} for entry in MODELS]
    registries = {"datasets": DATASETS, "samplers": SAMPLERS, "fusers": FUSERS, "metrics": METRICS}
    return [entry.described() for entry in registries[kind.value]]  # type: ignore[attr-defined]


def cost(name: str) -> dict[str, Any]:
    """Count what a model costs with its own defaults, which are the published settings."""
    from medsegdiff.config.spec import assumed
    from medsegdiff.models.budget import budget

    costs = budget(assumed(make_config({"model": {"name": name}})))
    gmac = {"condition": round(costs.condition_gmac, 3), "denoiser": round(costs.denoiser_gmac, 3)}
    return {"parameters": costs.parameters, "gmac": gmac}
