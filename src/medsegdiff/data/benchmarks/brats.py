"""BraTS 2018 … 2023: tumours of the brain in four MR sequences, and the slices that the authors' own loader takes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Found, register
from medsegdiff.data.dataset import CaseFiles, expected
from medsegdiff.data.split import SPLIT_WORDS
from medsegdiff.errors import DataError
from medsegdiff.io.listing import is_hidden
from medsegdiff.io.names import VOLUMES, folder_name, volume_name
from medsegdiff.labels import Labels
from medsegdiff.types import Task

LEVELS = 3
"""How far below the root cases lie at most: ``BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData/CASE``."""
LOOKED_AT = 200
"""Folders that are looked at, the outer ones first, before it is said that there is no BraTS case."""
CASE = re.compile(r"brats.*[_-]\d+", re.IGNORECASE)
"""Name of a folder; what is not called so may hold cases."""
TIME_POINT = re.compile(r"(BraTS-[A-Z]+-\d+)-\d+")
"""Name of a case since 2023: a patient may come several times."""
MISNAMED = "_segm"
"""The labels of BraTS20_Training_355 were published as ``W39_1998.09.19_Segm.nii``."""
SLICE = re.compile(r"([^_]+_[^_]+_[^_]+)_(t1|t1ce|t2|flair|seg)_(\d+)(_\w+)?")
"""Of a file, without ``.nii.gz``: between underscores, the fourth word is the sequence and the fifth the slice."""
PARTS = SPLIT_WORDS | {"testing": "test"}
"""Names of folders that tell of the part of the slices in them."""
Word = tuple[str, Path]
"""Which sequence a file is, or ``seg``."""


@dataclass(frozen=True)
class Release:
    """How sequences and labels are called."""

    words: tuple[str, ...]
    """Of the sequences in file names, in the order of the channels."""
    separator: str
    """Between the name of the case and the word."""
    enhancing: int
    """The label of enhancing tumour; 1 is the necrotic core and 2 the oedema in all years."""

    def labels(self, task: Task) -> Labels:
        """Word the regions that the challenge scores, each of which holds the next, or the classes that were drawn."""
        if task == "regions":
            values = ((1, 2, self.enhancing), (1, self.enhancing), (self.enhancing,))
            whole_core_enhancing = ("WT", "TC", "ET")
            return Labels(task, whole_core_enhancing, values, order=(2, 1, self.enhancing))  # held beyond the next
        drawn = ("background", "necrotic core", "oedema", "enhancing tumour")
        return Labels(task, drawn, ((0,), (1,), (2,), (self.enhancing,)))


UNTIL_2021 = Release(("t1", "t1ce", "t2", "flair"), "_", 4)
SINCE_2023 = Release(("t1n", "t1c", "t2w", "t2f"), "-", 3)


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Give the volumes of a folder and of those below it, the outer ones first and those of a level by their names.

    Nothing is looked for below a folder with ``images/``: it is a data set of another kind.
    """
    level = [root]
    for _ in range(LEVELS + 1):
        deeper: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    shown = sorted((e.name, e.is_dir()) for e in entries if not is_hidden(Path(e.name)))
            except OSError:  # a file, or a folder of somebody else
                continue
            yield (
                folder,
                [folder / name for name, is_folder in shown if not is_folder and name.lower().endswith(VOLUMES)],
            )
            if ("images", True) not in shown:
                deeper += [folder / name for name, is_folder in shown if is_folder]
        level = deeper


def _match(root: Path) -> bool:
    return any(_words(folder, paths) for folder, paths in islice(_walk(root), LOOKED_AT))


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the cases in their folders."""
    words = {folder: _words(folder, paths) for folder, paths in _walk(root) if paths and _is_case(folder)}
    release = _release_of(root, words)
    found: list[tuple[CaseFiles, tuple[Path, ...]]] = []
    for folder, files in words.items():
        name = folder_name(folder)
        several = TIME_POINT.fullmatch(name)
        paths = _in_order(files, release, folder, f"{name}{release.separator}*.nii.gz or .nii")
        found.append((CaseFiles(name, (), group=several[1] if several else ""), paths))
    return _found(found, release, spec.labels.task)


def _is_case(folder: Path) -> bool:
    return CASE.fullmatch(folder_name(folder)) is not None


def _words(folder: Path, paths: Iterable[Path]) -> list[Word]:
    """Tell what the files of a case are."""
    if not _is_case(folder):
        return []
    name = folder_name(folder).lower()
    stems = [(volume_name(path).lower(), path) for path in paths]
    words = [(stem[len(name) + 1 :] if stem.startswith((f"{name}_", f"{name}-")) else "", path) for stem, path in stems]
    known = [(word, path) for word, path in words if word in {*UNTIL_2021.words, *SINCE_2023.words, "seg"}]
    return known + [("seg", path) for stem, path in stems if known and stem.endswith(MISNAMED)]


def _release_of(root: Path, found: Mapping[Path, Sequence[Word]]) -> Release:
    """Find out how labels are called, from names alone."""
    new = [
        f for f, files in found.items() if TIME_POINT.fullmatch(folder_name(f)) or {*dict(files)} & {*SINCE_2023.words}
    ]
    if new and len(new) < len(found):
        old = next(folder for folder in found if folder not in new)
        raise DataError(
            f"{root}: expected BraTS cases of one kind; found {old.name}, of 2021 or before, and {new[0].name}, since "
            "2023, in which enhancing tumour has another label. Give each kind a folder of its own."
        )
    return SINCE_2023 if new else UNTIL_2021


def _in_order(words: Iterable[Word], release: Release, folder: Path, pattern: str) -> tuple[Path, ...]:
    """Put the files of a case into order: its sequences, and maybe its labels."""
    files: dict[str, Path] = {}
    for word, path in words:
        if word in files:
            raise DataError(f"{folder}: expected one file for {word}; found {files[word].name} and {path.name}.")
        files[word] = path
    if missing := [word for word in release.words if word not in files]:
        wanted = f"{pattern.replace('*', missing[0])}, for each case has the sequences {', '.join(release.words)}"
        raise expected(wanted, folder)
    return tuple(files[word] for word in (*release.words, "seg") if word in files)


def _found(found: Sequence[tuple[CaseFiles, tuple[Path, ...]]], release: Release, task: Task) -> Found:
    """Tell what the labels mean; cases without labels are for testing where others have them."""
    number = len(release.words)
    cases = [replace(case, images=paths[:number]) for case, paths in found]
    drawn = {case.name: paths[number] for case, paths in found if len(paths) > number}
    return Found(
        [replace(case, part="test") if drawn and case.name not in drawn else case for case in cases],
        {"": drawn},
        labels=release.labels(task),
    )


def _match_slices(root: Path) -> bool:
    return any(SLICE.fullmatch(volume_name(path)) for _, paths in islice(_walk(root), LOOKED_AT) for path in paths)


def _find_slices(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the slices, each a case, grouped by patient."""
    words: dict[tuple[Path, str, str], list[Word]] = defaultdict(list)
    for folder, paths in _walk(root):
        for path in paths:
            if match := SLICE.fullmatch(volume_name(path)):
                words[folder, match[1], match[3]].append((match[2], path))
    found: list[tuple[CaseFiles, tuple[Path, ...]]] = []
    for (folder, patient, number), files in words.items():
        parts = [PARTS[name.lower()] for name in folder.relative_to(root).parts if name.lower() in PARTS]
        case = CaseFiles(f"{patient}_{number}", (), parts[0] if parts else "", group=patient)
        found.append((case, _in_order(files, UNTIL_2021, folder, f"{patient}_*_{number}[_w].nii.gz or .nii")))
    return _found(found, UNTIL_2021, spec.labels.task)


BRATS = register(
    Benchmark(
        name="brats",
        labels=UNTIL_2021.labels("regions"),
        files=(
            "[HGG or any folder/]CASE/CASE_t1|t1ce|t2|flair|seg.nii[.gz] (since 2023 CASE-t1n|t1c|t2w|t2f|seg), CASE "
            "being BraTS2021_00000, BraTS-GLI-00000-000 and the like"
        ),
        licence="terms of the challenge, for which one registers at Synapse",
        home="https://www.synapse.org/brats",
        paper="table 1, column BraTs; BrainTumor of table 4",
        find=_find,
        match=_match,
        channels=UNTIL_2021.words,
        modalities=("mr", "mr", "mr", "mr"),
    )
)
register(replace(BRATS, name="brats-labels", variant_of="brats", labels=UNTIL_2021.labels("exclusive"), paper=""))
register(
    replace(
        BRATS,
        name="brats-slices",
        files=(
            "[training|testing/]FOLDER/brats_train_001_t1|t1ce|t2|flair|seg_123_w.nii.gz, FOLDER of a patient or of a "
            "slice"
        ),
        paper="table 1, column BraTs, in the layout of the authors' loader",
        find=_find_slices,
        match=_match_slices,
    )
)
