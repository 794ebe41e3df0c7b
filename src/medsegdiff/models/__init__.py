"""Whole networks, one file each, found by name in the registry `MODELS`, and imported when they are asked for."""

from medsegdiff.models.base import MODELS, SUPERVISIONS

for module, names in {
    "bat": ("bat",),
    "beal": ("beal",),
    "condition_unet": ("anchor",),
    "ensdiff": ("ensdiff",),
    "fatnet": ("fatnet",),
    "medsegdiff_v1": ("medsegdiff-v1",),
    "medsegdiff_v2": ("medsegdiff-v2",),
    "msd_transunet": ("medsegdiff-transunet",),
    "mtseg": ("mtseg",),
    "nnunet": ("nnunet",),
    "release": ("release",),
    "resunet": ("resunet",),
    "segdiff": ("segdiff",),
    "swinbts": ("swinbts",),
    "transbts": ("transbts",),
    "transunet": ("transunet",),
    "ultraunet": ("ultraunet",),
    "unetr": ("unetr", "swinunetr"),
}.items():
    MODELS.expect(f"medsegdiff.models.{module}", *names)

for module in ("bat", "beal", "mtseg", "transbts", "transunet"):
    SUPERVISIONS.expect(f"medsegdiff.models.{module}", module)
