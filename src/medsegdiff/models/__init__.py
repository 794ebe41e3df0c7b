"""Whole networks, one file each, found by name in the registry `MODELS`."""

from medsegdiff.models import condition_unet, medsegdiff_v1, medsegdiff_v2, release  # noqa: F401  (they register themselves)
from medsegdiff.models.baselines import ensdiff, segdiff, transunet  # noqa: F401
