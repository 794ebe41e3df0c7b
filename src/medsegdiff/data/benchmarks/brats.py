"""BraTS 2018 … 2023: tumours of the brain in four MR sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from medsegdiff.config.run import DataConfig
from medsegdiff.data.benchmarks.brats_release import (
    HOME,
    LABELS,
    LICENCE,
    REGIONS,
    SINCE_2023,
    UNTIL_2021,
    Files,
    Release,
    channels_of,
    listed,
    unique,
)
from medsegdiff.data.benchmarks.files import walk
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError
from medsegdiff.io.nifti import volume_name

LEVELS = 3
"""How far below the root cases lie at most: ``BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData/CASE``."""
LOOKED_AT = 200
"""Folders that are looked at, the outer ones first, before it is said that there is no BraTS case."""
CASE = re.compile(r"brats.*[_-]\d+", re.IGNORECASE)
"""Name of a folder; what is not called so may hold cases."""
TIME_POINT = re.compile(r"(?P<patient>BraTS-[A-Z]+-\d+)-\d+")
"""Name of a case since 2023: a patient may come several times."""
MISNAMED = "_segm"
"""The labels of BraTS20_Training_355 were published as ``W39_1998.09.19_Segm.nii``."""
FILES = (
    "[HGG or any folder/]CASE/CASE_t1|t1ce|t2|flair|seg.nii[.gz] (since 2023 CASE-t1n|t1c|t2w|t2f|seg), CASE being "
    "BraTS2021_00000, BraTS-GLI-00000-000 and the like"
)

WORDS = {*UNTIL_2021.words, *SINCE_2023.words, "seg"}


def looks_like_brats(root: Path) -> bool:
    """Tell whether a folder is a BraTS case or holds some."""
    return any(words_of(folder, paths) for folder, paths in islice(walk(root, levels=LEVELS), LOOKED_AT))


def list_brats(root: Path, config: DataConfig, *, task: Literal["regions", "exclusive"] = "regions") -> Listing:
    """List the cases; those without labels are for testing where others have them."""
    walked = walk(root, levels=LEVELS)
    found = {folder: unique(words_of(folder, paths)) for folder, paths in walked if paths and is_case(folder)}
    if not found:
        raise expected(FILES, root)
    release = release_of(root, found)
    cases = [_case(folder, files, release) for folder, files in found.items()]
    labels = {_name(folder): files["seg"] for folder, files in found.items() if "seg" in files}
    listing = listed(root, "brats", cases, labels=labels, release=release)
    if task == "regions":
        return listing
    masks = Masks({"": labels}, kind="flat", where=root, declared=release.labels)
    return replace(listing, layout="brats-labels", masks=masks, region_values=())


def is_case(folder: Path) -> bool:
    """Tell by its name whether a folder is a case."""
    return CASE.fullmatch(_name(folder)) is not None


def words_of(folder: Path, paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """Tell what the files of a case are."""
    if not is_case(folder):
        return []
    name = _name(folder).lower()
    stems = [(volume_name(path).lower(), path) for path in paths]
    words = [(stem[len(name) + 1 :] if stem.startswith((f"{name}_", f"{name}-")) else "", path) for stem, path in stems]
    known = [(word, path) for word, path in words if word in WORDS]
    return known + [("seg", path) for stem, path in stems if known and stem.endswith(MISNAMED)]


def release_of(root: Path, found: Mapping[Path, Files]) -> Release:
    """Find out how labels are called, from names alone."""
    new = [f for f, files in found.items() if TIME_POINT.fullmatch(_name(f)) or set(files) & set(SINCE_2023.words)]
    if new and len(new) < len(found):
        old = next(folder for folder in found if folder not in new)
        raise DataError(
            f"{root}: expected BraTS cases of one kind; found {old.name}, of 2021 or before, and {new[0].name}, since "
            "2023, in which enhancing tumour has another label. Give each kind a folder of its own."
        )
    return SINCE_2023 if new else UNTIL_2021


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name


def _case(folder: Path, files: Files, release: Release) -> CaseFiles:
    name = _name(folder)
    pattern = f"{name}{release.separator}*.nii.gz or .nii"
    several = TIME_POINT.fullmatch(name)
    images = channels_of(files, release.words, folder=folder, pattern=pattern)
    return CaseFiles(name, images, group=several["patient"] if several else "")


DATASETS.register(
    "brats",
    kind="benchmark",
    task="regions",
    classes=REGIONS,
    licence=LICENCE,
    home=HOME,
    paper="table 1, column BraTs; BrainTumor of table 4",
    layout=FILES,
)(Layout(looks_like_brats, list_brats))
DATASETS.register(
    "brats-labels",
    kind="benchmark",
    variant_of="brats",
    task="exclusive",
    classes=LABELS[1:],
    licence=LICENCE,
    home=HOME,
    paper="",
    layout=f"{FILES}; asked for with data.layout=brats-labels",
)(Layout(lambda root: False, partial(list_brats, task="exclusive")))
