"""The data sets of the paper in their official layouts: one file each. Nothing is downloaded here."""

from medsegdiff.data.catalog import amos2022, brats, brats_slices, btcv  # noqa: F401  (they register themselves)
