"""The cost columns of table 5, which need no training: the networks of its rows, as their presets describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.spec import assumed
from medsegdiff.paper.costs import costs_of
from medsegdiff.paper.results import Ours, Result, gather
from medsegdiff.paper.tables import PaperTable, load_table


@dataclass(frozen=True)
class Published:
    """Which preset stands for a row."""

    preset: str
    changes: tuple[str, ...] = ()


ROWS: Mapping[str, Published] = {
    "EnsemDiff": Published("ensdiff"),
    "SegDiff": Published("segdiff"),
    "MedSegDiff": Published("v1"),
    "MSD-Trans": Published("transunet"),
    "bone + U-SA": Published("v2-paper", ("model.semantic_condition=none",)),
    "bone + SS-Former": Published("v2-paper", ("model.anchor_condition=none",)),
    "MedSegDiff-V2": Published("v2-paper"),
}
"""By method of table 5."""


def count_costs(
    *, size: int | None = None, members: int | None = None, steps: int | None = None
) -> tuple[PaperTable, list[Ours]]:
    """Count parameters and operations of all rows whose preset there is, on the meta device."""
    wanted = {"data.image_size": size, "sampling.members": members, "sampling.steps": steps}
    asked = [f"{key}={value}" for key, value in wanted.items() if value is not None]
    table, known = load_table("table5"), preset_names()
    lacking = [method for method, row in ROWS.items() if row.preset not in known]
    rows = [_counted(table, method, row, asked) for method, row in ROWS.items() if row.preset in known]
    notes = [f"Ours: the presets, 3 image channels and one structure{', ' if asked else ''}{', '.join(asked)}."]
    notes += [f"There is no preset for {', '.join(lacking)}."] if lacking else []
    return replace(table, notes=(*table.notes, *notes)), rows


def _counted(table: PaperTable, method: str, row: Published, asked: Sequence[str]) -> Ours:
    config = assumed(load_preset(row.preset, [*row.changes, *asked]))
    known = costs_of(config)
    columns = [column for column in table.columns if column.whose != "paper" and column.metric in known]
    scores = {column.title: known[column.metric].times(column.scale) for column in columns}
    changed = f" with {', '.join(row.changes)}" if row.changes else ""
    sampling = config.sampling
    made = f"{sampling.members} members of {sampling.steps} steps at {config.data.image_size} px"
    return Ours(method, scores, (f"{method}: preset {row.preset}{changed}, {made}",))


def with_scores(table: PaperTable, rows: Sequence[Ours], results: Sequence[Result]) -> list[Ours]:
    """Add scores of segmentations to the rows of the same name."""
    scored = gather(table, results)
    others = {row.name: row for row in scored}
    both = [_joined(row, [o for o in scored if _same(table, row.name, o.name)]) for row in rows]
    taken = {o.name for row in rows for o in scored if _same(table, row.name, o.name)}
    return both + [row for name, row in others.items() if name not in taken]


def _same(table: PaperTable, method: str, name: str) -> bool:
    row = table.row(method)
    return row is not None and row.is_called(name)


def _joined(row: Ours, others: Sequence[Ours]) -> Ours:
    scores, remarks = dict(row.scores), list(row.remarks)
    for other in others:
        scores |= other.scores
        remarks += other.remarks
    return Ours(row.name, scores, tuple(remarks))
