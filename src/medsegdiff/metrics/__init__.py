"""Numbers that compare masks, ensembles and probabilities with references, each with its empty cases said aloud."""

from medsegdiff.metrics import overlap, surface  # noqa: F401  (they register the metrics)
