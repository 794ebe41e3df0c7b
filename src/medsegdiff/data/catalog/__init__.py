"""The data sets of the paper in their official layouts: one file each. Nothing is downloaded here."""

from medsegdiff.data.catalog import isic, lidc, refuge2  # noqa: F401  (they register themselves)
