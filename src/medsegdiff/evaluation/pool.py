"""What is summed over the pixels of cases: calibration, and errors by uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from medsegdiff.data.split import evenly
from medsegdiff.metrics.lesions import Lesions
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.metrics.selective import Curve, Selection, aurc, excess_aurc

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
        near = {"ece_near": self.near.ece(), "nll_near": self.near.nll()}
        found = {"ece": self.calibration.ece(), **near, "brier": self.calibration.brier()}
        return found | areas_under_risk(self.selection)

    def to_dict(self) -> dict[str, Any]:
        """Give numbers and curves as plain values."""
        return self.numbers() | {
            "reliability": _bins(self.calibration),
            "reliability_near": _bins(self.near),
            "risk_coverage": _points(self.selection.risk_coverage()),
            "dice_coverage": _points(self.selection.dice_coverage(referred=True)),
        }


Sums = TypeVar("Sums", Pool, Lesions)


def added_up(cases: Iterable[Mapping[str, Sums]]) -> dict[str, Sums]:
    """Add up what was counted in each case, by structure."""
    found: dict[str, Sums] = {}
    for case in cases:
        for name, of_case in case.items():
            found[name] = found[name] + of_case if name in found else of_case
    return found


def areas_under_risk(selection: Selection) -> dict[str, float]:
    """Give ``aurc`` and ``excess_aurc``; NaN where nobody labelled anything."""
    if not selection.pixels.any():
        return dict.fromkeys(("aurc", "excess_aurc"), float("nan"))
    risk = selection.risk_coverage()
    return {"aurc": aurc(risk), "excess_aurc": excess_aurc(risk)}


def _bins(calibration: Calibration) -> dict[str, list[float]]:
    curve = calibration.curve()
    return {name: getattr(curve, name).tolist() for name in ("edges", "predicted", "observed", "weight")}


def _points(curve: Curve) -> dict[str, list[float]]:
    """Thin a curve out, its ends kept."""
    chosen = evenly(range(len(curve.coverage)), POINTS)
    return {"coverage": curve.coverage[chosen].tolist(), "value": curve.value[chosen].tolist()}
