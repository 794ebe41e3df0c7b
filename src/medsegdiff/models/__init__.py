"""Whole networks, one file each, found by name in the registry `MODELS`."""

from medsegdiff.models import (  # noqa: F401  (they register themselves)
    beal,
    condition_unet,
    ensdiff,
    medsegdiff_v1,
    medsegdiff_v2,
    msd_transunet,
    mtseg,
    nnunet,
    release,
    segdiff,
    swinbts,
    transbts,
    transunet,
    ultraunet,
    unetr,
)
