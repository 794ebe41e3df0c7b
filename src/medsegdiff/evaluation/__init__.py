"""Scoring predicted masks, probabilities and members against references of one or several raters."""

from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.result import CONVENTIONS, Evaluation, interval, summarise

__all__ = ["CONVENTIONS", "Evaluation", "evaluate", "interval", "summarise"]
