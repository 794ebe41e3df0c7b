"""Whole networks, one file each, found by name in the registry `MODELS`."""

from medsegdiff.models import medsegdiff_v2  # noqa: F401  (registers itself)
