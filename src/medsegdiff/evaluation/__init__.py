"""Scoring predicted masks, probabilities and members against references of one or several raters."""

from medsegdiff.evaluation.evaluate import Evaluation, evaluate
from medsegdiff.evaluation.scores import Measure, Results, Score, Scores, Setup

__all__ = ["Evaluation", "Measure", "Results", "Score", "Scores", "Setup", "evaluate"]
