"""Learning what to clean: components and holes that references do not have, where removing and filling them helps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.evaluation.case import structures_of
from medsegdiff.evaluation.pairing import Pairing, common_grid
from medsegdiff.inference.cleaning import clean
from medsegdiff.labels import Labels
from medsegdiff.metrics.measures import numbered
from medsegdiff.metrics.overlap import dice
from medsegdiff.metrics.paired import holm, signed_rank
from medsegdiff.metrics.units import MM3_PER_ML, unit_of
from medsegdiff.types import Geometry

LEVEL = 0.05
"""Of the test that a step has to pass."""
SHARES = (0.5, 0.9, 1.0)
"""Of the components that no reference touches: sizes are tried below which so many lie."""


@dataclass(frozen=True)
class Gain:
    """What cleaning makes of the Dice of a structure: means over patients."""

    before: float
    after: float
    better: int
    """Patients whose Dice rose with the last step."""
    worse: int
    p: float
    """Of that step, corrected for all that were tried with it."""

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"Dice over patients {self.before:.4f} → {self.after:.4f}; higher in {self.better}, lower in {self.worse} "
            f"(p = {self.p:.2g})."
        )


@dataclass(frozen=True)
class Learned:
    """What is to be cleaned, and what it brings; nothing of structures that nothing helps."""

    cleaning: Mapping[str, Cleaning] = field(default_factory=dict)
    gains: Mapping[str, Gain] = field(default_factory=dict)

    def named(self, called: Mapping[str, str]) -> Learned:
        """Call structures otherwise; those that have no name then are left out."""
        cleaning = {called[name]: of for name, of in self.cleaning.items() if name in called}
        return Learned(cleaning, {called[name]: of for name, of in self.gains.items() if name in called})


def learn_cleaning(pairing: Pairing, *, track: Track = no_progress) -> Learned:
    """Find the steps of cleaning that the masks of cases with references ask for.

    Steps are: the largest component is kept; components below a size are removed, of which a few sizes are tried; holes
    are filled. Of those that help, the one with the largest mean Dice over patients is taken, and then further steps
    are tried beside it. A step helps if that mean rises, and if the differences of patients do not lie around 0:
    Wilcoxon's signed-rank test, two-sided, at 5 % after Holm's correction for all steps that were tried together.

    Args:
        pairing: Masks that were not cleaned, and their references.
        track: Shows progress.

    Returns:
        What is to be cleaned, by structure.
    """
    sizes, found = _false_sizes(pairing, track), Learned()
    untried = {name: _steps(Cleaning(), sizes[name]) for name in pairing.structures.names}
    while untried := {name: steps for name, steps in untried.items() if steps}:
        tried = {name: (found.cleaning.get(name, Cleaning()), *steps) for name, steps in untried.items()}
        taken = {name: best for name, of in _dice(tried, pairing, track).items() if (best := _best(of)) is not None}
        cleaning = {name: tried[name][place] for name, (place, _) in taken.items()}
        gains = {
            name: replace(gain, before=found.gains[name].before) if name in found.gains else gain
            for name, (_, gain) in taken.items()
        }
        found = Learned({**found.cleaning, **cleaning}, {**found.gains, **gains})
        untried = {name: _steps(how, sizes[name]) for name, how in cleaning.items()}
    return found


def _steps(taken: Cleaning, sizes: Sequence[str]) -> list[Cleaning]:
    """List what can be tried beside what was taken."""
    changes: list[dict[str, Any]] = [{"remove_below": size} for size in sizes if not taken.remove_below]
    changes += [{"keep": "largest"}] if taken.keep == "all" else []
    changes += [] if taken.fill_holes else [{"fill_holes": True}]
    return [Cleaning.model_validate(taken.model_dump() | change) for change in changes]


def _best(dice: Float[np.ndarray, "s p"]) -> tuple[int, Gain] | None:
    """Find the step that helps most, by patient; the first row is without one."""
    more = dice[1:] - dice[0]
    p = holm([signed_rank(of) for of in more])
    helping = [place for place, of in enumerate(more) if of.mean() > 0 and p[place] < LEVEL]
    if not helping:
        return None
    best = max(helping, key=lambda place: more[place].mean())
    better, worse = int((more[best] > 0).sum()), int((more[best] < 0).sum())
    return best + 1, Gain(float(dice[0].mean()), float(dice[best + 1].mean()), better, worse, p[best])


@dataclass(frozen=True)
class _Case:
    """What was predicted of a case, and the references of its structures."""

    patient: str
    label_map: UInt8[np.ndarray, "..."]
    references: dict[str, Bool[np.ndarray, "*s"]]
    counted: Bool[np.ndarray, "*s"] | None
    geometry: Geometry


def _cases(pairing: Pairing, labels: Labels, track: Track, what: str) -> Iterator[_Case]:
    """Read the cases that have a reference, one after the other."""
    regions = labels.task == "regions"
    for number, name in enumerate(track(pairing.names, what)):
        geometry, counted, references = common_grid(name, pairing), None, {}
        label_map = np.zeros((*(len(labels.structures),) * regions, *geometry.shape), np.uint8)
        for structure in structures_of(name, pairing):
            index = labels.structures.index(structure.name)
            (label_map[index] if regions else label_map)[structure.predicted] = 1 if regions else index + 1
            (references[structure.name],), counted = structure.references(), structure.counted
        if counted is None or counted.any():
            yield _Case(pairing.groups.get(name) or f"\0{number}", label_map, references, counted, geometry)


def _dice(
    tried: Mapping[str, Sequence[Cleaning]], pairing: Pairing, track: Track
) -> dict[str, Float[np.ndarray, "s p"]]:
    """Compute the Dice of each structure cleaned in some ways, by patient."""
    labels, patients = pairing.labels, list[str]()
    found: dict[str, list[list[float]]] = {name: [] for name in tried}
    for case in _cases(pairing, labels, track, "Cleaning"):
        patients.append(case.patient)
        for name, ways in tried.items():
            index, reference = labels.structures.index(name), case.references[name]
            found[name].append([_dice_of(case, labels, index, how, reference) for how in ways])
    _, patient = np.unique(patients, return_inverse=True)
    count = np.bincount(patient)
    return {
        name: np.stack([np.bincount(patient, weights=of) / count for of in np.array(rows).T])
        for name, rows in found.items()
    }


def _dice_of(case: _Case, labels: Labels, index: int, how: Cleaning, reference: Bool[np.ndarray, "*s"]) -> float:
    cleaned = case.label_map.copy()
    clean(cleaned, labels, {labels.structures[index]: how}, case.geometry)
    mask = labels.mask(cleaned, index) > 0
    return dice(mask if case.counted is None else mask & case.counted, reference)


def _false_sizes(pairing: Pairing, track: Track) -> dict[str, list[str]]:
    """Find sizes to try, by structure: such that some of the components that no reference touches are smaller."""
    labels, amounts = pairing.labels, dict[str, list[float]]()
    unit, scale = "px", 1.0
    for case in _cases(pairing, labels, track, "Components"):
        per, own = unit_of(case.geometry)
        unit, scale = ("mm3", per * MM3_PER_ML) if own == "mL" else (own, per)
        for name, reference in case.references.items():
            mask = labels.mask(case.label_map, labels.structures.index(name)) > 0
            amounts.setdefault(name, []).extend((scale * _false_components(mask, reference)).tolist())
    return {
        name: list(dict.fromkeys(f"{_rounded_up(np.quantile(of, share))}{unit}" for share in SHARES)) if of else []
        for name, of in amounts.items()
    }


def _false_components(mask: Bool[np.ndarray, "*s"], reference: Bool[np.ndarray, "*s"]) -> Float[np.ndarray, " n"]:
    """Count the voxels of the components that touch no reference."""
    numbers = numbered(mask)
    count = int(numbers.max(initial=0)) + 1
    sizes = np.bincount(numbers.ravel(), minlength=count)
    hits = np.bincount(numbers[reference], minlength=count)
    return sizes[1:][hits[1:] == 0].astype(float)


def _rounded_up(size: float) -> str:
    """Take the next larger number of two digits, so that what is so large is removed too."""
    digit = 10.0 ** (math.floor(math.log10(size)) - 1) if size >= 10 else 1.0
    return f"{(math.floor(size / digit) + 1) * digit:.15g}"
