"""LIDC-IDRI crops: lung nodules in CT, each outlined by up to four radiologists who often disagree.

The crops are those that were made for the Probabilistic U-Net and are passed on in two forms: a folder per patient
with masks in ``gt/``, and all crops in one folder with masks in ``lesions/``. The standard test for ambiguity.
"""

from __future__ import annotations

import re
from pathlib import Path

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS, SPLITS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.io.image import images_in

CODING = MaskCoding("binary", ("nodule",), ((1, 255),))
RATERS = ("rater1", "rater2", "rater3", "rater4")
"""Of the files ``…_l0.png`` to ``…_l3.png``. A number is no person: other radiologists drew in other patients."""
MASK_FOLDERS = ("gt", "lesions")
FILES = (
    "{train,val,test}/images/LIDC-IDRI-0001/z-105.0_c0.png, gt/LIDC-IDRI-0001/z-105.0_c0_l0.png … _l3.png; "
    "or images/LIDC-IDRI-0001_z-105.0_c0.png, lesions/LIDC-IDRI-0001_z-105.0_c0_l0.png … _l3.png"
)
PATIENT = re.compile(r"LIDC-IDRI-\d+")


def looks_like_lidc(root: Path) -> bool:
    """Tell whether a folder holds LIDC-IDRI crops."""
    return any(True for part in SPLITS for _ in (root / part / "images").glob("LIDC-IDRI-*"))


def list_lidc(root: Path, config: DataConfig) -> Listing:
    """List the crops, by patient."""
    images = {part: _pictures(root / part / "images") for part in SPLITS}
    if not any(images.values()):
        raise expected(FILES, root)
    found = [_case(name, path, part) for part in SPLITS for name, path in images[part].items()]
    drawn = {name: path for part in SPLITS for name, path in _masks(root / part, wanted=bool(images[part])).items()}
    by_rater = {
        rater: {case.name: drawn[mask] for case in found if (mask := f"{case.name}_l{number}") in drawn}
        for number, rater in enumerate(RATERS)
    }
    cases = assign(indexed(found, root), root / "split.csv")
    return Listing(
        root,
        "lidc",
        cases,
        Masks(by_rater, kind="raters", where=root, declared=CODING),
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=(
            "rater1 … rater4 are numbers within a crop, not persons: agreement of one of them with a model has no "
            "meaning over several patients; a mask is empty where its rater saw no nodule",
        ),
    )


def _masks(folder: Path, *, wanted: bool) -> dict[str, Path]:
    """Find the masks of a part by name."""
    drawn = {name: path for inner in MASK_FOLDERS for name, path in _pictures(folder / inner).items()}
    if wanted and not drawn:
        raise expected("masks …_l0.png to …_l3.png in gt/ or lesions/", folder)
    return drawn


def _pictures(folder: Path) -> dict[str, Path]:
    """Find the pictures of a folder and of the folders of patients in it, named with the patient."""
    if not folder.is_dir():
        return {}
    patients = sorted(path for path in folder.iterdir() if path.is_dir() and PATIENT.fullmatch(path.name))
    nested = {f"{patient.name}_{path.stem}": path for patient in patients for path in images_in(patient)}
    return nested | {path.stem: path for path in images_in(folder) if PATIENT.match(path.name)}


def _case(name: str, path: Path, part: str) -> CaseFiles:
    patient = PATIENT.match(name)
    return CaseFiles(name, (path,), part, group=patient[0] if patient else "")


DATASETS.register(
    "lidc",
    kind="benchmark",
    task="binary",
    classes=CODING.classes,
    raters=len(RATERS),
    licence="CC-BY-3.0",
    home="https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
    paper="",
    layout=FILES,
)(Layout(looks_like_lidc, list_lidc))
