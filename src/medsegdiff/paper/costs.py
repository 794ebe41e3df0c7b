"""What networks and ensembles cost: the columns of table 5 that are not scores, of runs and of presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.config.load import load_preset, preset_names
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.errors import ShapeError
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import Record
from medsegdiff.models.base import MODELS, budget
from medsegdiff.models.checkpoint import CONFIG, load_config
from medsegdiff.paper.results import Ours, Result, Score, fill, gather
from medsegdiff.paper.systems import published
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
    "MSD-Trans": Published("msd-transunet"),
    "bone + U-SA": Published("v2-paper", ("model.semantic_condition=none",)),
    "bone + SS-Former": Published("v2-paper", ("model.anchor_condition=none",)),
    "MedSegDiff-V2": Published("v2-paper"),
}
"""By method of table 5."""


def costs(folders: Sequence[Path]) -> dict[str, Score]:
    """Tell what a run and its segmentations cost, as far as the folders know it.

    Parameters and operations are those of the run's configuration; members and steps those of ``segment.json``, or
    without it the configuration's own. The run is one of the folders, or the one that ``segment.json`` names; of
    several that segmented together what they cost is added up.
    """
    made = next((told for folder in folders if (told := SegmentationFolder(folder).read()) is not None), None)
    configs = _configs(made, folders)
    return _ensemble(made, configs) | _network(made, configs) | ({} if made is None else _measured(made))


def _configs(made: Record | None, folders: Sequence[Path]) -> list[ResolvedConfig]:
    """Find the configurations of all runs, or of none."""
    named = () if made is None else made.folders
    given = [folder for folder in folders if (folder / CONFIG).is_file()][:1]
    runs = given if given and len(named) < 2 else named
    return [load_config(run) for run in runs] if all((run / CONFIG).is_file() for run in runs) else []


def _ensemble(made: Record | None, configs: Sequence[ResolvedConfig]) -> dict[str, Score]:
    """Count members, on average over the images, and calls of the denoiser: one per step of each."""
    own = configs[0].sampling if configs else None
    sampling = made.sampling or own if made is not None else own
    if sampling is None:
        return {}
    images = [image for image in made.images if image.members is not None] if made is not None else []
    kept = _mean([image.members or 0 for image in images], sampling.members)
    drawn = _mean([image.chosen_of or image.members or 0 for image in images], sampling.drawn)
    each = [run.calls for run in made.runs] if made is not None else []
    most = sum(each) if each else sampling.drawn * sampling.steps
    return {"members": Score(kept), "calls": Score(drawn / sampling.drawn * most)}


def _mean(counts: Sequence[int], otherwise: int) -> float:
    return sum(counts) / len(counts) if counts else float(otherwise)


def _network(made: Record | None, configs: Sequence[ResolvedConfig]) -> dict[str, Score]:
    """Add up parameters and operations of the networks; a forward is one of each, on average."""
    if not configs:
        return {}
    prices, calls = [budget(config) for config in configs], _ensemble(made, configs)["calls"].mean
    runs = made.runs if made is not None and len(made.runs) == len(prices) else None
    looks = [run.looks for run in runs] if runs else [1] * len(prices)
    shares = _shares([run.calls for run in runs] if runs else [1] * len(prices))
    costs = zip(prices, looks, shares, strict=True)
    return {
        "parameters": Score(float(sum(price.parameters for price in prices))),
        "gmac_forward": Score(sum(price.condition_gmac + price.denoiser_gmac for price in prices) / len(prices)),
        "gmac_all": Score(
            sum(look * price.condition_gmac + share * calls * price.denoiser_gmac for price, look, share in costs)
        ),
    }


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / sum(counts) for count in counts]


def _measured(made: Record) -> dict[str, Score]:
    """Average over the images: the time, and how much the members agree, if there are two at least."""
    found = {}
    alone = made.sampling is not None and made.sampling.members == 1
    agreements = [image.agreement for image in made.images if image.agreement is not None and not alone]
    if agreements:
        found["agreement"] = Score(sum(agreements) / len(agreements))
    if made.images and made.seconds is not None:
        found["seconds"] = Score(made.seconds / len(made.images))
    return found


def count_costs(
    *, size: int | None = None, members: int | None = None, steps: int | None = None
) -> tuple[PaperTable, list[Ours]]:
    """Count parameters and operations of all rows whose preset there is, on the meta device.

    Below them come the systems without noise that tables 1 to 3 compare with, which table 5 leaves out.
    """
    wanted = {"data.image_size": size, "sampling.members": members, "sampling.steps": steps}
    asked = [f"{key}={value}" for key, value in wanted.items() if value is not None]
    table, known = load_table("table5"), preset_names()
    rivals = {row: Published(preset) for row, preset in published().items() if row not in ROWS and _single(preset)}
    lacking = [method for method, row in ROWS.items() if row.preset not in known]
    about = ", ".join(["Ours: the presets, 3 image channels and one structure", *asked])
    rows, notes = list[Ours](), [f"{about}."]
    for method, row in {**ROWS, **rivals}.items():
        try:
            rows += [_counted(table, method, row, asked)] if row.preset in known else []
        except ShapeError as error:  # of a size that was asked for
            notes.append(f"{method}: preset {row.preset} is left out. {error}")
    notes += [f"There is no preset for {', '.join(lacking)}."] if lacking else []
    return replace(table, notes=(*table.notes, *notes)), rows


def _single(preset: str) -> bool:
    """Tell whether a preset draws no members: one forward is all that it costs."""
    return MODELS[load_preset(preset).model.name].facts.kind == "deterministic"


def _counted(table: PaperTable, method: str, row: Published, asked: Sequence[str]) -> Ours:
    config = assumed(load_preset(row.preset, [*row.changes, *asked]))
    known = _ensemble(None, [config]) | _network(None, [config])
    changed = f" with {', '.join(row.changes)}" if row.changes else ""
    sampling = config.sampling
    one = f"{sampling.members} members of {sampling.steps} steps"
    made = f"{'one forward' if _single(row.preset) else one} at {config.data.image_size} px"
    return Ours(method, fill(table, known), (f"{method}: preset {row.preset}{changed}, {made}",))


def with_scores(table: PaperTable, rows: Sequence[Ours], results: Sequence[Result]) -> list[Ours]:
    """Add scores of segmentations to the rows of the same name; others come last."""
    scored = gather(table, results)
    of_row = {row.name: [mine for mine in scored if _same(table, row.name, mine.name)] for row in rows}
    taken = [mine for found in of_row.values() for mine in found]
    return [_joined(row, of_row[row.name]) for row in rows] + [mine for mine in scored if mine not in taken]


def _same(table: PaperTable, method: str, name: str) -> bool:
    row = table.row(method)
    return row is not None and row.is_called(name)


def _joined(row: Ours, others: Sequence[Ours]) -> Ours:
    scores, remarks = dict(row.scores), list(row.remarks)
    for other in others:
        scores |= other.scores
        remarks += other.remarks
    return Ours(row.name, scores, tuple(remarks))
