"""What an evaluation has found: scores by case and over all cases, and what is known beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medsegdiff.evaluation.consensus import in_words
from medsegdiff.evaluation.conventions import CONVENTIONS, FAILURE, of_setup
from medsegdiff.evaluation.pairing import Pairing
from medsegdiff.evaluation.pool import Pool
from medsegdiff.evaluation.results import Results
from medsegdiff.evaluation.stated import Predicted
from medsegdiff.fusion.curve import Curve
from medsegdiff.metrics.base import METRICS, definition
from medsegdiff.metrics.lesions import Lesions


@dataclass(frozen=True)
class Evaluation(Results):
    """Scores by case and over all cases, and what is known beside them."""

    empty: Mapping[str, int] = field(default_factory=dict)
    """How many masks were empty: ``no_reference``, ``no_prediction``, ``both``."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """By structure: sums over the pixels of all cases; without probabilities there are none."""
    lesions: Mapping[str, Lesions] = field(default_factory=dict)
    """By structure: lesions of all cases, where they were counted."""
    correlation: Mapping[str, float] = field(default_factory=dict)
    """Over cases, rank correlation of predicted disagreement with 1 − Dice."""
    failure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What is known of a case without its reference → how well it tells, over cases, where Dice is low."""
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    """By structure: the Dice that was predicted of each case, where the run was calibrated, and the true one."""
    warnings: tuple[str, ...] = ()
    """What looks wrong with the masks."""
    curve: Curve | None = None
    """Dice against the number of members, of saved ones."""
    pairing: Pairing | None = field(default=None, repr=False, compare=False)
    """The files, from which pictures of cases can be drawn."""

    @property
    def conventions(self) -> dict[str, str]:
        """How the numbers of this evaluation are defined."""
        others = dict.fromkeys(measure.metric for measure in self.summary if measure.metric not in METRICS)
        defined = {metric: definition(metric) for metric in (*(entry.name for entry in METRICS), *others)}
        reference = {"reference": self.reference_is} if self.reference_is else {}
        return {**CONVENTIONS, **reference, **defined, **of_setup(self.setup), **(FAILURE if self.failure else {})}

    @property
    def reference_is(self) -> str:
        """What several raters were taken for, in words; empty where there is one."""
        return in_words(self.setup.reference, self.setup.raters or (1, 1))

    @property
    def pooled(self) -> Pool | None:
        """Sums over all pixels of all structures."""
        pools = list(self.pools.values())
        return sum(pools[1:], pools[0]) if pools else None

    @property
    def all_lesions(self) -> dict[str, Lesions]:
        """Lesions of all cases by structure, and before them those of ``all`` structures."""
        counted = list(self.lesions.values())
        if not counted:
            return {}
        return {"all": sum(counted[1:], counted[0]), **(self.lesions if len(counted) > 1 else {})}

    def to_dict(self) -> dict[str, Any]:
        """Give the content of ``metrics.json``."""
        pools = {"all": self.pooled, **self.pools} if len(self.pools) > 1 else {"all": self.pooled}
        return {
            **super().to_dict(),
            "empty": self.empty,
            "pooled": {name: pool.to_dict() for name, pool in pools.items() if pool is not None},
            "lesions": {name: counted.to_dict() for name, counted in self.all_lesions.items()},
            "correlation": self.correlation,
            "failure": self.failure,
            "predicted": {name: of.to_dict() for name, of in self.predicted.items()},
            "ensemble_curve": None if self.curve is None else self.curve.to_dict(),
            "doubts": self.warnings,
            "conventions": self.conventions,
        }
