"""Scoring one case: each structure against its references, members against raters, probabilities against both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.evaluation.consensus import Consensus, references_of
from medsegdiff.evaluation.lesions import drawn_lesions, lesions_of, unit_of_lesions
from medsegdiff.evaluation.pairing import Pairing, common_grid
from medsegdiff.evaluation.pool import Pool, areas_under_risk
from medsegdiff.evaluation.scores import Measure
from medsegdiff.evaluation.stated import size_scores
from medsegdiff.metrics.calibration import near
from medsegdiff.metrics.distribution import agreement, distribution_scores, rater_dice
from medsegdiff.metrics.lesions import Lesions
from medsegdiff.metrics.paired import all_scores
from medsegdiff.metrics.plausibility import Appearance, appearance_of
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.metrics.selective import Selection
from medsegdiff.metrics.units import sheared_axes
from medsegdiff.types import Geometry

EMPTY = {
    (True, False): "no_reference",
    (False, True): "no_prediction",
    (False, False): "both",
    (True, True): "none",
}
"""Whether prediction and reference hold anything → which is empty."""


@dataclass(frozen=True)
class CaseScores:
    """What is kept of a case."""

    name: str
    group: str
    numbers: Mapping[Measure, float]
    empty: tuple[str, ...]
    """Which of prediction and reference is empty, by structure and reference."""
    held: frozenset[str]
    """Structures that a reference holds."""
    pools: dict[str, Pool]
    """Sums over pixels by structure; none without probabilities."""
    lesions: dict[str, Lesions]
    """Counted by structure, where that was asked for."""
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
    consensus: Consensus = "majority"

    @property
    def labelled(self) -> bool:
        """Whether there is anything to score: two masks of which no pixel counts agree about nothing."""
        return self.counted is None or bool(self.counted.any())

    @property
    def drawn(self) -> Bool[np.ndarray, "r *s"]:
        """The masks of all raters."""
        return np.stack(list(self.raters.values()))

    def references(self) -> Bool[np.ndarray, "n *s"]:
        """Make what metrics compare with: one mask, or each rater's."""
        return references_of(self.drawn, self.consensus)


def score_case(name: str, pairing: Pairing, *, tolerance: float) -> CaseScores:
    """Score a case."""
    geometry = common_grid(name, pairing)
    numbers, empty, held, pools, seen = [], [], set(), {}, []
    lesions: dict[str, Lesions] = {}
    for structure in structures_of(name, pairing):  # one by one: of a volume with many, all would not fit into memory
        truths, predicted = structure.references(), structure.predicted
        found = [_scores(structure, truth, geometry, tolerance=tolerance) for truth in truths]
        values = _measures(_averaged(found)) | _ensemble_scores(structure)
        if structure.probability is not None:
            pools[structure.name], of_pixels = _of_pixels(structure, structure.probability, truths)
            values |= _measures(of_pixels)
        values |= _measures(_sizes(name, structure, truths, pairing, geometry))
        if pairing.lesions is not None:
            counted = _lesions(name, structure, truths, pairing, geometry)
            lesions |= {structure.name: sum(counted[1:], counted[0])} if structure.labelled else {}
            values |= _measures(_averaged([of.numbers() for of in counted]))
        numbers.append(values if structure.labelled else dict.fromkeys(values, float("nan")))
        held |= {structure.name} if truths.any() else set()
        empty += [EMPTY[bool(predicted.any()), bool(truth.any())] for truth in truths if structure.labelled]
        seen.append(_appearance(structure, values.get(Measure("agreement"))))
    largest = max(seen, key=lambda of: of.foreground)
    return CaseScores(
        name,
        pairing.groups.get(name, ""),
        _over_structures(numbers, pairing.structures.names),
        tuple(empty),
        frozenset(held),
        pools,
        lesions,
        largest,
    )


def _scores(
    structure: Structure, truth: Bool[np.ndarray, "*s"], geometry: Geometry, *, tolerance: float
) -> dict[str, float]:
    """Score the mask against a reference; pixels that nobody labelled are not even background."""
    total = None if structure.counted is None else int(np.count_nonzero(structure.counted))
    axes = sheared_axes(geometry)
    return all_scores(structure.predicted, truth, spacing=geometry.spacing, axes=axes, tolerance=tolerance, total=total)


def _sizes(
    name: str, structure: Structure, truths: Bool[np.ndarray, "n *s"], pairing: Pairing, geometry: Geometry
) -> dict[str, float]:
    """Score sizes; what was stated counts pixels that nobody labelled, so where there are any it is left out."""
    image = pairing.stated.get(name)
    sizes = image.sizes if image is not None and structure.counted is None else None
    return size_scores(truths, structure.members, sizes, structure=structure.name, geometry=geometry)


def _lesions(
    name: str, structure: Structure, truths: Bool[np.ndarray, "n *s"], pairing: Pairing, geometry: Geometry
) -> list[Lesions]:
    """Count lesions, against each reference."""
    drawn = drawn_lesions(name, pairing, structure.name)
    assert pairing.lesions is not None
    return lesions_of(structure.predicted, truths, drawn, rule=pairing.lesions, pixel=unit_of_lesions(geometry)[0])


def _ensemble_scores(structure: Structure) -> dict[Measure, float]:
    """Score members against raters; a single mask counts as an ensemble of one."""
    several = len(structure.raters) > 1
    members = structure.predicted[None] if structure.members is None else structure.members
    alone = len(members) < 2
    if not several:
        return {} if alone else {Measure("agreement"): agreement(members)}
    raters = structure.drawn
    found = distribution_scores(members, raters)
    single = rater_dice(structure.predicted[None], raters)[0].tolist()
    if alone:
        del found["agreement"]  # of a mask with itself
    return _measures(found) | {
        Measure("dice", rater=rater): dice for rater, dice in zip(structure.raters, single, strict=True)
    }


def _of_pixels(
    structure: Structure, p: Float[np.ndarray, "*s"], truths: Bool[np.ndarray, "n *s"]
) -> tuple[Pool, dict[str, float]]:
    """Sum up what probabilities and the uncertainty that follows from them are worth, and give the numbers of it.

    Calibration is against the share of raters; errors against several references are pooled too, and their numbers
    averaged.
    """
    counted = structure.counted
    share = structure.drawn.mean(axis=0, dtype=np.float32)
    around = near(structure.predicted, *structure.raters.values())
    whole = Calibration.of(p, share, where=counted)
    close = Calibration.of(p, share, where=around if counted is None else around & counted)
    doubt = entropy(p) if structure.uncertainty is None else structure.uncertainty
    selections = []
    for truth in truths:
        chosen = [a if counted is None else a[counted] for a in (doubt, structure.predicted, truth)]
        selections.append(Selection.empty().add(*chosen))
    pool = Pool(whole, close, sum(selections[1:], selections[0]))
    return pool, pool.numbers() | _averaged([areas_under_risk(of) for of in selections])


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
    for structure, index in zip(pairing.structures.names, pairing.structures.scored, strict=True):
        raters = pairing.reference.channel(drawn, pairing.labels, index).astype(bool)
        predicted, members, p = predictions(index)
        if counted is not None:
            raters, predicted = raters & counted, predicted & counted
            members = None if members is None else members & counted
        masks = dict(zip(who, raters, strict=True))
        yield Structure(structure, masks, predicted, members, p, doubt, counted, pairing.consensus)


def _appearance(structure: Structure, agreement: float | None) -> Appearance:
    share = None if structure.members is None else float(structure.members.mean())
    return appearance_of(
        structure.predicted, agreement=agreement if structure.members is not None else None, members=share
    )


def _averaged(numbers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average numbers against several references; NaN where none is a number."""
    return {name: _mean([of[name] for of in numbers]) for name in numbers[0]}


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _measures(numbers: Mapping[str, float]) -> dict[Measure, float]:
    return {Measure(metric): value for metric, value in numbers.items()}


def _over_structures(numbers: list[dict[Measure, float]], structures: tuple[str, ...]) -> dict[Measure, float]:
    """Average over structures, and keep each where there are several; of single raters the average alone."""
    found: dict[Measure, float] = {}
    for measure in numbers[0]:
        values = [of[measure] for of in numbers]
        found[measure] = _mean(values)
        if len(structures) > 1 and not measure.rater:
            found |= {replace(measure, structure=name): value for name, value in zip(structures, values, strict=True)}
    return found
