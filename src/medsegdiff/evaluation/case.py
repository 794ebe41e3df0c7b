"""Scoring one case: each structure against its references, members against raters, probabilities against both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.data.split import evenly
from medsegdiff.evaluation.pairing import Pairing, common_grid
from medsegdiff.evaluation.scores import Measure
from medsegdiff.metrics.calibration import Calibration, near
from medsegdiff.metrics.distribution import agreement, distribution_scores, rater_dice
from medsegdiff.metrics.paired import all_scores
from medsegdiff.metrics.plausibility import Appearance, appearance_of
from medsegdiff.metrics.selective import Curve, Selection, aurc, excess_aurc

EMPTY = {
    (True, False): "no_reference",
    (False, True): "no_prediction",
    (False, False): "both",
    (True, True): "none",
}
"""Whether prediction and reference hold anything → which is empty."""
POINTS = 100
"""Of a curve as it is written."""


@dataclass(frozen=True)
class Pool:
    """Sums over pixels: calibration over all and near the masks, and errors by uncertainty. ``a + b`` pools."""

    calibration: Calibration
    near: Calibration
    selection: Selection

    def __add__(self, other: Pool) -> Pool:
        return Pool(self.calibration + other.calibration, self.near + other.near, self.selection + other.selection)

    def numbers(self) -> dict[str, float]:
        """Give calibration errors and areas under risk; NaN where nobody labelled anything."""
        found = {"ece": self.calibration.ece(), "ece_near": self.near.ece(), "brier": self.calibration.brier()}
        if not self.selection.pixels.any():
            return dict.fromkeys((*found, "aurc", "excess_aurc"), float("nan"))
        risk = self.selection.risk_coverage()
        return found | {"aurc": aurc(risk), "excess_aurc": excess_aurc(risk)}

    def to_dict(self) -> dict[str, Any]:
        """Give numbers and curves as plain values."""
        return self.numbers() | {
            "reliability": _bins(self.calibration),
            "reliability_near": _bins(self.near),
            "risk_coverage": _points(self.selection.risk_coverage()),
            "dice_coverage": _points(self.selection.dice_coverage(referred=True)),
        }


def _bins(calibration: Calibration) -> dict[str, list[float]]:
    curve = calibration.curve()
    return {name: getattr(curve, name).tolist() for name in ("edges", "predicted", "observed", "weight")}


def _points(curve: Curve) -> dict[str, list[float]]:
    """Thin a curve out, its ends kept."""
    chosen = evenly(range(len(curve.coverage)), POINTS)
    return {"coverage": curve.coverage[chosen].tolist(), "value": curve.value[chosen].tolist()}


@dataclass(frozen=True)
class CaseScores:
    """What is kept of a case."""

    name: str
    group: str
    numbers: Mapping[Measure, float]
    empty: tuple[str, ...]
    """Which of prediction and reference is empty, by structure."""
    pools: dict[str, Pool]
    """Sums over pixels by structure; none without probabilities."""
    seen: Appearance
    """What the largest predicted structure looks like."""


@dataclass(frozen=True)
class Structure:
    """All masks of one structure of a case."""

    name: str
    raters: dict[str, Bool[np.ndarray, "*s"]]
    predicted: Bool[np.ndarray, "*s"]
    members: Bool[np.ndarray, "m *s"] | None
    probability: Float[np.ndarray, "*s"] | None
    uncertainty: Float[np.ndarray, "*s"] | None
    """Of all structures together; ``None`` where no map was saved."""
    counted: Bool[np.ndarray, "*s"] | None
    """Pixels that are scored; ``None``: all."""

    @property
    def reference(self) -> Bool[np.ndarray, "*s"]:
        """The majority of raters; a tie is foreground."""
        votes = sum(mask.astype(np.uint16) for mask in self.raters.values())
        return np.asarray(2 * votes >= len(self.raters))


def score_case(name: str, pairing: Pairing, *, tolerance: float) -> CaseScores:
    """Score a case."""
    geometry = common_grid(name, pairing)
    numbers, empty, pools, seen = [], [], {}, []
    for structure in structures_of(name, pairing):  # one by one: of a volume with many, all would not fit into memory
        truth = structure.reference
        found = all_scores(structure.predicted, truth, spacing=geometry.spacing, tolerance=tolerance)
        values = _measures(found) | _ensemble_scores(structure)
        if structure.probability is not None:
            pools[structure.name] = _pool_of(structure, structure.probability, truth)
            values |= _measures(pools[structure.name].numbers())
        numbers.append(values)
        empty.append(EMPTY[bool(structure.predicted.any()), bool(truth.any())])
        seen.append(_appearance(structure, values.get(Measure("agreement"))))
    largest = max(seen, key=lambda of: of.foreground)
    return CaseScores(
        name,
        pairing.groups.get(name, ""),
        _over_structures(numbers, pairing.labels.structures),
        tuple(empty),
        pools,
        largest,
    )


def _ensemble_scores(structure: Structure) -> dict[Measure, float]:
    """Score members against raters; a single mask counts as an ensemble of one."""
    several = len(structure.raters) > 1
    members = structure.predicted[None] if structure.members is None else structure.members
    alone = len(members) < 2
    if not several:
        return {} if alone else {Measure("agreement"): agreement(members)}
    raters = np.stack(list(structure.raters.values()))
    found = distribution_scores(members, raters)
    single = rater_dice(structure.predicted[None], raters)[0].tolist()
    if alone:
        del found["agreement"]  # of a mask with itself
    return _measures(found) | {
        Measure("dice", rater=rater): dice for rater, dice in zip(structure.raters, single, strict=True)
    }


def _pool_of(structure: Structure, p: Float[np.ndarray, "*s"], truth: Bool[np.ndarray, "*s"]) -> Pool:
    """Sum up what probabilities and the uncertainty that follows from them are worth."""
    counted = structure.counted
    share = np.stack(list(structure.raters.values())).mean(axis=0, dtype=np.float32)
    around = near(structure.predicted, *structure.raters.values())
    whole = Calibration.of(p, share, where=counted)
    close = Calibration.of(p, share, where=around if counted is None else around & counted)
    doubt = entropy(p) if structure.uncertainty is None else structure.uncertainty
    chosen = [a if counted is None else a[counted] for a in (doubt, structure.predicted, truth)]
    return Pool(whole, close, Selection.empty().add(*chosen))


def entropy(p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Compute the entropy of a foreground's probability."""
    p = p.astype(np.float32)
    q = 1 - p
    bits = -(p * np.log2(np.maximum(p, 1e-12)) + q * np.log2(np.maximum(q, 1e-12)))
    return np.clip(bits, 0, 1)


def structures_of(name: str, pairing: Pairing) -> Iterator[Structure]:
    """Read the masks of a case, structure by structure."""
    drawn = pairing.reference.stored(name)
    who = list(pairing.reference.by_folder(name)) if pairing.reference.kind == "raters" else ["reference"]
    ignored = pairing.reference.ignored(drawn, pairing.labels)
    counted = None if ignored is None else np.asarray(~ignored.any(axis=0))
    predictions, maps = pairing.predictions.reader(name), pairing.predictions.uncertainty
    doubt = None if maps is None else maps.read(name, 0)
    for number, index in enumerate(pairing.channels):
        raters = pairing.reference.channel(drawn, pairing.labels, index).astype(bool)
        predicted, members, p = predictions(index)
        if counted is not None:
            raters, predicted = raters & counted, predicted & counted
            members = None if members is None else members & counted
        masks = dict(zip(who, raters, strict=True))
        yield Structure(pairing.labels.structures[number], masks, predicted, members, p, doubt, counted)


def _appearance(structure: Structure, agreement: float | None) -> Appearance:
    share = None if structure.members is None else float(structure.members.mean())
    return appearance_of(
        structure.predicted, agreement=agreement if structure.members is not None else None, members=share
    )


def _measures(numbers: Mapping[str, float]) -> dict[Measure, float]:
    return {Measure(metric): value for metric, value in numbers.items()}


def _over_structures(numbers: list[dict[Measure, float]], structures: tuple[str, ...]) -> dict[Measure, float]:
    """Average over structures, and keep each where there are several; of single raters the average alone."""
    found: dict[Measure, float] = {}
    for measure in numbers[0]:
        values = [of[measure] for of in numbers]
        finite = [value for value in values if not np.isnan(value)]
        found[measure] = float(np.mean(finite)) if finite else float("nan")
        if len(structures) > 1 and not measure.rater:
            found |= {replace(measure, structure=name): value for name, value in zip(structures, values, strict=True)}
    return found
