"""Whole networks, one file each, found by name in the registry `MODELS`."""

from medsegdiff.models import (  # noqa: F401  (they register themselves)
    bat,
    beal,
    condition_unet,
    ensdiff,
    fatnet,
    medsegdiff_v1,
    medsegdiff_v2,
    msd_transunet,
    mtseg,
    nnunet,
    release,
    resunet,
    segdiff,
    swinbts,
    transbts,
    transunet,
    ultraunet,
    unetr,
)
