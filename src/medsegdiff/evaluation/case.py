"""Scoring one case: each structure against its references, members against raters, probabilities against both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.evaluation.matching import Pairing, common_grid
from medsegdiff.evaluation.pool import Pool
from medsegdiff.metrics.calibration import Calibration, near
from medsegdiff.metrics.distribution import agreement, distribution_scores, rater_dice
from medsegdiff.metrics.plausibility import Appearance, look
from medsegdiff.metrics.scoring import all_scores
from medsegdiff.metrics.selective import Selection, aurc, excess_aurc

EMPTY = {
    (True, False): "no_reference",
    (False, True): "no_prediction",
    (False, False): "both",
    (True, True): "none",
}
"""Whether prediction and reference hold anything → which is empty."""
UNCERTAIN = ("ece", "ece_near", "brier", "aurc", "excess_aurc")
"""Numbers of probabilities."""
COUNTS = ("num_samples", "num_raters")
"""What `distribution_scores` tells beside scores."""


@dataclass(frozen=True)
class CaseScores:
    """What is kept of a case."""

    row: dict[str, Any]
    """``name``, ``group``, metrics, ``metric/structure``."""
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
    scores, empty, pools, seen = [], [], {}, []
    for structure in structures_of(name, pairing):  # one by one: of a volume with many, all would not fit into memory
        truth = structure.reference
        values = all_scores(structure.predicted, truth, spacing=geometry.spacing, tolerance=tolerance)
        values |= ensemble_scores(structure)
        if structure.probability is not None:
            pool, found = uncertainty_scores(structure, truth)
            pools[structure.name] = pool
            values |= found
        scores.append(values)
        empty.append(EMPTY[bool(structure.predicted.any()), bool(truth.any())])
        seen.append(_look(structure, values.get("agreement")))
    group = pairing.groups.get(name, "")
    row = {"name": name} | ({"group": group} if group else {}) | _over_structures(scores, pairing.structures)
    return CaseScores(row, tuple(empty), pools, max(seen, key=lambda of: of.foreground))


def ensemble_scores(structure: Structure) -> dict[str, float]:
    """Score members against raters; a single mask counts as an ensemble of one."""
    several = len(structure.raters) > 1
    members = structure.predicted[None] if structure.members is None else structure.members
    alone = len(members) < 2
    if not several:
        return {} if alone else {"agreement": agreement(members)}
    raters = np.stack(list(structure.raters.values()))
    found = distribution_scores(members, raters)
    single = rater_dice(structure.predicted[None], raters)[0].tolist()
    kept = {key: value for key, value in found.items() if key not in COUNTS}
    if alone:
        del kept["agreement"]  # of a mask with itself
    return kept | {f"dice@{rater}": dice for rater, dice in zip(structure.raters, single, strict=True)}


def uncertainty_scores(structure: Structure, truth: Bool[np.ndarray, "*s"]) -> tuple[Pool, dict[str, float]]:
    """Score probabilities and the uncertainty that follows from them."""
    p, counted = structure.probability, structure.counted
    assert p is not None
    share = np.stack(list(structure.raters.values())).mean(axis=0, dtype=np.float32)
    around = near(structure.predicted, *structure.raters.values())
    whole = Calibration.of(p, share, where=counted)
    close = Calibration.of(p, share, where=around if counted is None else around & counted)
    doubt = entropy(p) if structure.uncertainty is None else structure.uncertainty
    chosen = [a if counted is None else a[counted] for a in (doubt, structure.predicted, truth)]
    selection = Selection.empty().add(*chosen)
    if not selection.pixels.any():  # nobody labelled anything
        return Pool(whole, close, selection), dict.fromkeys(UNCERTAIN, float("nan"))
    risk = selection.risk_coverage()
    return Pool(whole, close, selection), {
        "ece": whole.ece(),
        "ece_near": close.ece(),
        "brier": whole.brier(),
        "aurc": aurc(risk),
        "excess_aurc": excess_aurc(risk),
    }


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
    ignored = pairing.reference.ignored(drawn, pairing.coding)
    counted = None if ignored is None else np.asarray(~ignored.any(axis=0))
    predictions, maps = pairing.predictions.reader(name), pairing.predictions.uncertainty
    doubt = None if maps is None else maps.read(name, 0)
    for number, index in enumerate(pairing.channels):
        raters = pairing.reference.channel(drawn, pairing.coding, index).astype(bool)
        predicted, members, p = predictions(index)
        if counted is not None:
            raters, predicted = raters & counted, predicted & counted
            members = None if members is None else members & counted
        masks = dict(zip(who, raters, strict=True))
        yield Structure(pairing.structures[number], masks, predicted, members, p, doubt, counted)


def _look(structure: Structure, agreement: float | None) -> Appearance:
    share = None if structure.members is None else float(structure.members.mean())
    return look(structure.predicted, agreement=agreement if structure.members is not None else None, members=share)


def _over_structures(scores: list[dict[str, float]], structures: tuple[str, ...]) -> dict[str, float]:
    """Average over structures, and keep each where there are several."""
    row: dict[str, float] = {}
    for key in scores[0]:
        values = [of[key] for of in scores]
        finite = [value for value in values if not np.isnan(value)]
        row[key] = float(np.mean(finite)) if finite else float("nan")
        if len(structures) > 1 and "@" not in key:
            row |= {f"{key}/{name}": value for name, value in zip(structures, values, strict=True)}
    return row
