"""``medsegdiff list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from medsegdiff.cli.console import give, out
from medsegdiff.presets import load_preset, preset_names


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
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List presets, models, data sets, samplers, fusions or metrics.

    Example: `medsegdiff list samplers`
    """
    rows = entries(kind)
    if as_json:
        from medsegdiff.io.atomic import to_json

        give(to_json(rows))
        return
    table = Table("name", "facts", title=kind.value)
    for row in rows:
        facts = "\n".join(f"{k}: {shown(v)}" for k, v in row.items() if k != "name" and v not in ("", None))
        table.add_row(row["name"], escape(facts))
    out.print(table)


def shown(value: Any) -> str:
    """Write a fact.

    Args:
        value: Text, a number or several.

    Returns:
        Several separated by commas.
    """
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def entries(kind: Kind) -> list[dict[str, Any]]:
    """Collect what is registered.

    Args:
        kind: Which registry.

    Returns:
        Name and facts of each entry.
    """
    if kind is Kind.PRESETS:
        presets = [(name, load_preset(name)) for name in preset_names()]
        return [{"name": name, "for": c.description, "reproduces": c.reproduces} for name, c in presets]
    from medsegdiff.data.dataset import DATASETS
    from medsegdiff.diffusion.samplers import SAMPLERS
    from medsegdiff.fusion import FUSERS
    from medsegdiff.metrics.base import METRICS
    from medsegdiff.models.base import MODELS

    registries = {"models": MODELS, "datasets": DATASETS, "samplers": SAMPLERS, "fusers": FUSERS, "metrics": METRICS}
    return [{"name": entry.name, **entry.facts} for entry in registries[kind.value]]  # type: ignore[attr-defined]
