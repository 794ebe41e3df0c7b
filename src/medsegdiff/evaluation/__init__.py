"""Scoring predicted masks, probabilities and members against references of one or several raters.

The names below are imported when they are first used: what reads scores alone does without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsegdiff.evaluation.evaluation import Evaluation as Evaluation
    from medsegdiff.evaluation.results import Setup as Setup
    from medsegdiff.evaluation.scores import Measure as Measure
    from medsegdiff.evaluation.scores import Scores as Scores
    from medsegdiff.evaluation.scoring import evaluate as evaluate

_PUBLIC = {
    "Evaluation": "medsegdiff.evaluation.evaluation",
    "evaluate": "medsegdiff.evaluation.scoring",
    "Measure": "medsegdiff.evaluation.scores",
    "Scores": "medsegdiff.evaluation.scores",
    "Setup": "medsegdiff.evaluation.results",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medsegdiff.evaluation' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
