"""The data sets of the paper in their official layouts: one file each. Nothing is downloaded here."""

from medsegdiff.data.catalog import ddti, isic, lidc, refuge2, tn3k, tnmix  # noqa: F401  (they register themselves)
