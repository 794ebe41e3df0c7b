"""BraTS cut into slices, as the authors' own loader takes them: each sequence of a slice is a file of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import islice
from pathlib import Path

from medsegdiff.config.run import DataConfig
from medsegdiff.data.benchmarks.brats import LEVELS, LOOKED_AT
from medsegdiff.data.benchmarks.brats_release import (
    CHANNELS,
    HOME,
    LICENCE,
    REGIONS,
    UNTIL_2021,
    channels_of,
    listed,
    unique,
)
from medsegdiff.data.benchmarks.files import walk
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected
from medsegdiff.data.split import SPLIT_WORDS
from medsegdiff.io.nifti import volume_name

NAME = re.compile(r"(?P<patient>[^_]+_[^_]+_[^_]+)_(?P<word>t1|t1ce|t2|flair|seg)_(?P<slice>\d+)(?P<end>_\w+)?")
"""Of a file, without ``.nii.gz``: between underscores, the fourth word is the sequence and the fifth the slice."""
PARTS = SPLIT_WORDS | {"testing": "test"}
"""Names of folders that tell of the part."""
FILES = "[training|testing/]FOLDER/brats_train_001_t1|t1ce|t2|flair|seg_123_w.nii.gz, FOLDER of a patient or of a slice"


def looks_like_slices(root: Path) -> bool:
    """Tell whether a folder holds BraTS slices."""
    looked_at = islice(walk(root, levels=LEVELS), LOOKED_AT)
    return any(NAME.fullmatch(volume_name(path)) for _, paths in looked_at for path in paths)


def list_slices(root: Path, config: DataConfig) -> Listing:
    """List the slices, each a case, grouped by patient; those without labels are for testing where others have them."""
    found: dict[tuple[Path, str, str], list[tuple[str, Path]]] = defaultdict(list)
    for folder, paths in walk(root, levels=LEVELS):
        for path in paths:
            if match := NAME.fullmatch(volume_name(path)):
                found[folder, match["patient"], match["slice"]].append((match["word"], path))
    if not found:
        raise expected(FILES, root)
    cases: list[CaseFiles] = []
    labels: dict[str, Path] = {}
    for (folder, patient, number), words in found.items():
        files, name = unique(words), f"{patient}_{number}"
        images = channels_of(files, CHANNELS, folder=folder, pattern=f"{patient}_*_{number}[_w].nii.gz or .nii")
        cases.append(CaseFiles(name, images, _part(folder, root), group=patient))
        if "seg" in files:
            labels[name] = files["seg"]
    return listed(root, "brats-slices", cases, labels=labels, release=UNTIL_2021)


def _part(folder: Path, root: Path) -> str:
    """Take the part from a folder on the way, ``training`` say."""
    return next((PARTS[name.lower()] for name in folder.relative_to(root).parts if name.lower() in PARTS), "")


DATASETS.register(
    "brats-slices",
    kind="benchmark",
    task="regions",
    classes=REGIONS,
    licence=LICENCE,
    home=HOME,
    paper="table 1, column BraTs, in the layout of the authors' loader",
    layout=FILES,
)(Layout(looks_like_slices, list_slices))
