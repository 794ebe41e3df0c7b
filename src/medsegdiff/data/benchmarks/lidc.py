"""LIDC-IDRI crops: lung nodules in CT, each outlined by up to four radiologists who often disagree.

The crops are those that were made for the Probabilistic U-Net and are passed on in two forms: a folder per patient
with masks in ``gt/``, and all crops in one folder with masks in ``lesions/``. The standard test for ambiguity.
"""

from __future__ import annotations

from pathlib import Path

from medsegdiff.data.benchmarks.spec import Benchmark, Part, register
from medsegdiff.data.dataset import SPLITS
from medsegdiff.io.names import image_name
from medsegdiff.labels import Labels

CROPS = "LIDC-IDRI-*"


def _name(path: Path) -> str:
    patient = path.parent.name
    return f"{patient}_{image_name(path)}" if path.parent.match(CROPS) else image_name(path)


register(
    Benchmark(
        name="lidc",
        labels=Labels("binary", ("nodule",), ((1, 255),)),
        files=(
            "{train,val,test}/images/LIDC-IDRI-0001/z-105.0_c0.png, gt/LIDC-IDRI-0001/z-105.0_c0_l0.png … _l3.png; "
            "or images/LIDC-IDRI-0001_z-105.0_c0.png, lesions/LIDC-IDRI-0001_z-105.0_c0_l0.png … _l3.png"
        ),
        licence="CC-BY-3.0",
        home="https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        parts=tuple(
            Part(
                part,
                f"{part}/images/{CROPS}/*|{part}/images/{CROPS}",
                "|".join(f"{part}/{masks}/{CROPS}{below}" for masks in ("gt", "lesions") for below in ("/*", "")),
            )
            for part in SPLITS
        ),
        name_of=_name,
        patient=r"LIDC-IDRI-\d+",
        raters=4,
        mask_endings={f"rater{number + 1}": f"_l{number}" for number in range(4)},
        masks_named="…_l0.png to …_l3.png",
        unlabelled=(),
        remarks=(  # other radiologists drew in other patients
            "rater1 … rater4 are numbers within a crop, not persons: agreement of one of them with a model has no "
            "meaning over several patients; a mask is empty where its rater saw no nodule",
        ),
    )
)
