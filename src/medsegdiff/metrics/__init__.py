"""Numbers that compare masks, ensembles and probabilities with references, each with its empty cases said aloud."""

from medsegdiff.metrics import calibration, distribution, lesion_scores, overlap, selective, surface  # noqa: F401  (they register metrics)
