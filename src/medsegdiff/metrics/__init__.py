"""Numbers that compare masks, each with its convention for empty masks said aloud."""

from medsegdiff.metrics import overlap, surface  # noqa: F401  (they register the metrics)
