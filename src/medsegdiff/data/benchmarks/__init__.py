"""The data sets of the paper in their official layouts: one file each. Nothing is downloaded here."""

from medsegdiff.data.benchmarks import (  # noqa: F401  (they register themselves)
    amos2022,
    brats,
    brats_slices,
    btcv,
    ddti,
    drishti,
    isic,
    lidc,
    refuge2,
    tn3k,
    tnmix,
)
