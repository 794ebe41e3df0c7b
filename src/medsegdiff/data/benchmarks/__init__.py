"""Published data sets in their official layouts: a spec each, and one reader. Nothing is downloaded here."""

from medsegdiff.data.benchmarks import (  # noqa: F401  (they register themselves)
    amos2022,
    brats,
    btcv,
    ddti,
    drishti,
    isic,
    lidc,
    refuge2,
    tn3k,
)
