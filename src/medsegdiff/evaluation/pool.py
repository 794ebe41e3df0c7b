"""Sums over the pixels of all cases, from which curves are drawn: reliability, and risk by coverage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medsegdiff.metrics.calibration import Calibration
from medsegdiff.metrics.selective import Curve, Selection, aurc, excess_aurc

POINTS = 100
"""Of a curve as it is written."""


@dataclass(frozen=True)
class Pool:
    """Calibration over all pixels and near the masks, and errors by uncertainty. ``a + b`` pools."""

    calibration: Calibration
    near: Calibration
    selection: Selection

    def __add__(self, other: Pool) -> Pool:
        return Pool(self.calibration + other.calibration, self.near + other.near, self.selection + other.selection)

    def to_dict(self) -> dict[str, Any]:
        """Give numbers and curves as plain values."""
        risk = self.selection.risk_coverage()
        return {
            "ece": self.calibration.ece(),
            "ece_near": self.near.ece(),
            "brier": self.calibration.brier(),
            "aurc": aurc(risk),
            "excess_aurc": excess_aurc(risk),
            "reliability": _bins(self.calibration),
            "reliability_near": _bins(self.near),
            "risk_coverage": _points(risk),
            "dice_coverage": _points(self.selection.dice_coverage(referred=True)),
        }


def _bins(calibration: Calibration) -> dict[str, list[float]]:
    curve = calibration.curve()
    return {
        "edges": curve.edges.tolist(),
        "predicted": curve.predicted.tolist(),
        "observed": curve.observed.tolist(),
        "weight": curve.weight.tolist(),
    }


def _points(curve: Curve) -> dict[str, list[float]]:
    """Thin a curve out, its ends kept."""
    chosen = np.unique(np.linspace(0, len(curve.coverage) - 1, min(POINTS, len(curve.coverage))).round().astype(int))
    return {"coverage": curve.coverage[chosen].tolist(), "value": curve.value[chosen].tolist()}
