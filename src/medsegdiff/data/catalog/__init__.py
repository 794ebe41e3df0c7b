"""The data sets of the paper in their official layouts: one file each. Nothing is downloaded here."""
