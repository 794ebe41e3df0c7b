"""Figure 3 for runs of one's own: segment cases with a large ensemble once, and score its subsets."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from medsegdiff.config.data import DataConfig
from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.data.dataset import DataSource, Track, no_progress
from medsegdiff.data.open import ListedSource, list_cases, open_source
from medsegdiff.data.split import evenly, names_in, resolve
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.fusion.curve import Curve, Scores, convergence, draw_subsets, pool, score_subsets, sizes
from medsegdiff.fusion.vote_table import VoteTable, tabulate
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.io.names import folder_name
from medsegdiff.pictures.curves import members_curves, save
from medsegdiff.types import Case

log = logging.getLogger(__name__)

SHOWN = (1, 10, 25)
"""Sizes that are printed, beside the full ensemble: one member, and those of MedSegDiff-V2 and of MedSegDiff."""
CONVENTIONS = {
    "dice": "Of the fused mask, on the native grid: the mean over structures, then over cases, then over draws.",
    "reference": "Several raters: the majority of them, a tie is foreground. Cases of which nobody labelled a pixel "
    "are left out.",
    "draws": "Subsets of the members drawn, without replacement, the same for all cases; of all members there is one.",
    "spread": "Standard deviation over draws. They share members: near the full ensemble it understates.",
    "convergence": "The smallest number of members with which the mean Dice changed by less than 0.1 % (0.001) over "
    "the last ten; between sizes that were not scored the curve is a straight line.",
}
"""How the numbers are defined; written with every result."""


@dataclass(frozen=True)
class EnsemblePlan:
    """What is measured."""

    members: int = 100
    """Size of the full ensemble."""
    fusion: str = "staple"
    """``staple``, ``majority`` or ``mean``; members count as masks."""
    repeats: int = 20
    """Subsets of each size."""
    steps: int | None = None
    """Of the sampler; ``None``: the model's, here and below."""
    sampler: str | None = None
    split: str = "test"
    """Part of the data, as the run has split them."""
    cases: int | None = None
    """Take so many, evenly spread over their sorted names; ``None``: all."""
    seed: int = 0
    """Members and subsets follow from it."""

    def subsets(self) -> Mapping[int, np.ndarray]:
        """Draw the subsets."""
        return draw_subsets(self.members, sizes(self.members, self.fusion), repeats=self.repeats, seed=self.seed)


@dataclass(frozen=True)
class EnsembleBenchmark:
    """The curves of several runs."""

    plan: EnsemblePlan
    curves: Mapping[str, Curve]
    """By run."""

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``curve.json``."""
        runs = {
            name: {
                "num_members": curve.num_members.tolist(),
                "dice": curve.mean.tolist(),
                "spread": curve.spread.tolist(),
                "convergence": convergence(curve),
                "cases": curve.num_cases,
            }
            for name, curve in self.curves.items()
        }
        return {"plan": dataclasses.asdict(self.plan), "runs": runs, "conventions": CONVENTIONS}

    def rows(self) -> list[dict[str, Any]]:
        """Summarise."""
        shown = sorted({size for size in (*SHOWN, self.plan.members) if size <= self.plan.members})
        return [
            {"run": name, "cases": curve.num_cases}
            | {f"Dice, {size}": curve.at(size) for size in shown}
            | {"convergence": convergence(curve)}
            for name, curve in self.curves.items()
        ]

    def save(self, out: Path) -> None:
        """Write ``curve.json``, ``curve.csv`` and ``curve.png``."""
        write_json(out / "curve.json", self.to_dict())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("run", "members", "dice", "spread"))
        for name, curve in self.curves.items():
            columns = (curve.num_members.tolist(), curve.mean.tolist(), curve.spread.tolist())
            writer.writerows((name, *row) for row in zip(*columns, strict=True))
        write_text(out / "curve.csv", text.getvalue())
        save(members_curves(self.curves), out / "curve.png")


def benchmark_ensemble(
    runs: Sequence[Path], data: Path, plan: EnsemblePlan, *, device: str | None = None, track: Track = no_progress
) -> EnsembleBenchmark:
    """Measure Dice against the number of members.

    Source: Wu et al. (2024), figure 3.
    """
    if not runs:
        raise ConfigError("There is no run. Give one or several folders of runs, then the data.")
    plan.subsets()  # a fusion that is not known shows before the work
    names: list[str] = []
    curves: dict[str, Curve] = {}
    for run, title in zip(runs, titles(runs), strict=True):
        segmenter = Segmenter.from_pretrained(run, device=device)
        source = source_of(data, segmenter.config.data, track=track)
        own = _cases_of(source, run / "split.csv", plan)
        if names and own != names:
            strange = some(sorted(set(names) ^ set(own)))
            raise DataError(f"{run} holds out other cases than {runs[0]}: {strange}. Compare runs with one split.csv.")
        names = own
        curves[title] = pool(list(scores_of(segmenter, source, track(names, title), plan)))
    return EnsembleBenchmark(plan, curves)


def titles(runs: Sequence[Path]) -> list[str]:
    """Name runs by their folders, or by their whole paths where folders have the same name."""
    if len(set(runs)) < len(runs):
        raise ConfigError(f"A run is given twice: {some([str(run) for run in runs])}. Give each once.")
    found = Counter(folder_name(run) for run in runs)
    return [folder_name(run) if found[folder_name(run)] == 1 else str(run) for run in runs]


def source_of(data: Path, config: DataConfig, *, track: Track = no_progress) -> DataSource:
    """Open data whose cases are whole: of volumes not the slices."""
    if not data.exists():
        return open_source(str(data), config)
    return ListedSource(list_cases(data, config), config, track=track)


def _cases_of(source: DataSource, split_file: Path, plan: EnsemblePlan) -> list[str]:
    """List the cases that are segmented."""
    known = set(source.info.names("all"))
    listed = names_in(split_file, plan.split) if split_file.is_file() else set(source.info.names(plan.split))
    names = sorted({resolve(name, known) for name in listed} & known)
    if not names:
        raise DataError(f"The data hold none of the {len(listed)} cases of part '{plan.split}' of {split_file}.")
    return evenly(names, plan.cases or len(names))


def scores_of(segmenter: Segmenter, source: DataSource, names: Iterable[str], plan: EnsemblePlan) -> Iterator[Scores]:
    """Segment cases one after the other, and score subsets of their members; what nobody labelled is left out."""
    waiting: dict[str, Case] = {}
    unlabelled: list[str] = []

    def images() -> Iterator[Case]:
        for name in names:
            case = source.load(name)
            if (known := _known(case)) is not None and not known.any():
                unlabelled.append(name)
                continue
            waiting[name] = case
            yield dataclasses.replace(case, mask=None, ignored=None)

    subsets = plan.subsets()
    asked: SamplingOptions = {"members": plan.members, "steps": plan.steps, "sampler": plan.sampler, "seed": plan.seed}
    asked["fusion"], asked["candidates"] = "majority", plan.members  # members alone are of interest, none are chosen
    for result in segmenter.stream(images(), **asked):
        yield score_subsets(tables(result, waiting.pop(result.name)), subsets, fusion=plan.fusion)
    if unlabelled:
        log.warning("Cases of which nobody labelled a pixel are left out: %d (%s).", len(unlabelled), some(unlabelled))


def tables(result: Segmentation, case: Case) -> list[VoteTable]:
    """Make tables of members and reference."""
    if case.mask is None:
        raise DataError(f"{case.name}: has no reference mask. Choose a part of the data that has, with --split.")
    truth = 2 * case.mask.sum(axis=0, dtype=np.uint16) >= len(case.mask)
    known = _known(case)
    if result.labels.task == "regions":
        pairs = zip(np.moveaxis(result.members, 1, 0), truth[:, None], strict=True)
        return [tabulate(members, reference, known=known, exclusive=False) for members, reference in pairs]
    return [tabulate(result.members, truth[result.labels.foreground], known=known, exclusive=result.labels.exclusive)]


def _known(case: Case) -> Bool[np.ndarray, "*s"] | None:
    """Find the pixels that all raters labelled; ``None``: all of them."""
    return None if case.ignored is None else np.logical_not(case.ignored.any(axis=0))
