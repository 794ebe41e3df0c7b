"""AMOS 2022: fifteen organs of the abdomen in CT, and in MR."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from medsegdiff.config.run import DataConfig, Modality
from medsegdiff.data.benchmarks.files import named
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.io.image import image_name

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gall bladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",  # "arota" in dataset.json
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
"""Labels 1 … 15."""
NAME = re.compile(r"amos_\d{4}\.nii(\.gz)?")
FIRST_MR = 500
"""Numbers from here on are MR scans, those below CT."""
PARTS = {"Tr": "train", "Va": "val", "Ts": "test"}
"""Endings of the folders of images and labels."""
NAMES: dict[Modality, str] = {"ct": "amos2022", "mr": "amos2022-mr"}
LICENCE = "CC BY 4.0"
HOME = "https://amos22.grand-challenge.org"
FILES = "imagesTr|Va|Ts/amos_0001.nii.gz, labelsTr|Va/amos_0001.nii.gz, dataset.json, all maybe in amos22/"


def looks_like_amos(root: Path) -> bool:
    """Tell whether a folder holds AMOS scans."""
    return _home(root) is not None


def list_amos(root: Path, config: DataConfig, *, modality: Modality) -> Listing:
    """List the scans of one modality.

    The parts are those of the challenge: scans of ``imagesVa`` validate where ``labelsVa`` is there; without it they
    are for testing, as those of ``imagesTs`` are, whose labels may be secret.
    """
    home = _home(root)
    if home is None:
        raise expected(FILES, root)
    labels = {end: _scans(home / f"labels{end}", modality) for end in PARTS}
    parts = PARTS if labels["Va"] else PARTS | {"Va": "test"}
    found = [
        CaseFiles(image_name(path), (path,), parts[end])
        for end in PARTS
        for path in _scans(home / f"images{end}", modality)
    ]
    cases = assign(indexed(found, home), root / "split.csv")
    files = by_name(path for paths in labels.values() for path in paths)
    coding = MaskCoding("exclusive", ("background", *ORGANS))
    return Listing(
        root,
        NAMES[modality],
        cases,
        Masks({"": files}, kind="flat", where=home, declared=coding),
        channels=(modality.upper(),),
        modalities=(modality,),
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=_others(home, modality),
    )


def _home(root: Path) -> Path | None:
    """Find the folder that holds ``imagesTr`` and its like."""
    for folder in (root, root / "amos22"):
        if any(named(folder / f"images{end}", NAME) for end in PARTS):
            return folder
    return None


def _scans(folder: Path, modality: Modality) -> list[Path]:
    return [path for path in named(folder, NAME) if _modality(path) == modality]


def _modality(path: Path) -> Modality:
    return "mr" if int(image_name(path).removeprefix("amos_")) >= FIRST_MR else "ct"


def _others(home: Path, modality: Modality) -> tuple[str, ...]:
    """Say how many scans of the other modality are left out."""
    other: Modality = "ct" if modality == "mr" else "mr"
    count = sum(len(_scans(home / f"images{end}", other)) for end in PARTS)
    left_out = f"{count} {other.upper()} scans are left out; data.layout={NAMES[other]} takes them instead"
    return (left_out,) if count else ()


DATASETS.register(
    "amos2022",
    kind="benchmark",
    task="exclusive",
    classes=ORGANS,
    licence=LICENCE,
    home=HOME,
    paper="table 2, AMOS of table 4, figure 3",
    layout=FILES,
)(Layout(looks_like_amos, partial(list_amos, modality="ct")))
DATASETS.register(
    "amos2022-mr",
    kind="benchmark",
    variant_of="amos2022",
    task="exclusive",
    classes=ORGANS,
    licence=LICENCE,
    home=HOME,
    paper="",
    layout=f"{FILES}; asked for with data.layout=amos2022-mr",
)(Layout(lambda root: False, partial(list_amos, modality="mr")))
