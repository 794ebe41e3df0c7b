"""What is seen of cases with references when a run segments them as its users will: before anything is learned."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.data.dataset import CaseFiles, Track
from medsegdiff.data.split import evenly
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.evaluation.case import structures_of
from medsegdiff.evaluation.naming import names_made
from medsegdiff.evaluation.pairing import Pairing
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.judging import Looks, looks_of
from medsegdiff.inference.looks import looks_of_images
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.labels import Labels
from medsegdiff.metrics.likeness import values_of
from medsegdiff.training.origin import UNTOLD
from medsegdiff.training.run import Run, seen_among
from medsegdiff.types import Geometry, Plane

log = logging.getLogger(__name__)

FEWEST_CASES = 5
"""Of which fewer give not even an order."""
IMAGES = 500
"""Images of training, evenly spread, whose looks are learned."""
PARTS = ("masks", "labels")


@dataclass
class Heard:
    """What is kept of each result while it is in memory, by image."""

    plane: Plane | Literal["auto"]
    """Along which volumes are cut."""
    looks: dict[str, Looks] = field(default_factory=dict)
    sizes: dict[str, Int[np.ndarray, "m n"]] = field(default_factory=dict)
    """Pixels by member and structure."""
    geometry: dict[str, Geometry] = field(default_factory=dict)
    values: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, result: Segmentation) -> None:
        """Keep it."""
        self.looks[result.name] = looks_of(result, self.plane)
        self.geometry[result.name] = result.geometry
        self.values[result.name] = values_of(result.image)
        self.sizes[result.name] = result.counts()


@dataclass(frozen=True)
class Observed:
    """Cases with references as they were segmented."""

    evaluation: Evaluation
    heard: Heard

    @property
    def cases(self) -> list[str]:
        """Those that have a reference."""
        scores, stated = self.evaluation.scores, self.pairing.stated
        return [name for name in scores.groups if name in stated and not math.isnan(scores.value(name, "dice"))]

    @property
    def patients(self) -> int:
        """Of whom there are cases; a case of none is one."""
        return len({self.evaluation.scores.cluster(name) for name in self.cases})

    @property
    def pairing(self) -> Pairing:
        """The files."""
        assert self.evaluation.pairing is not None
        return self.evaluation.pairing

    def called(self, made: Labels) -> dict[str, str]:
        """Give for structures of the references what the run calls them: where both have one, names may differ."""
        names, known, pairing = self.pairing.structures.names, made.structures, self.pairing
        if len(names) == len(known) == 1:
            return {names[0]: known[0]}
        told = names_made(pairing.labels, made, where=pairing.predictions.where)
        return {name: own for name in names if (own := told.get(name, name)) in known}

    def true_sizes(self, called: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """Count the pixels of references by structure and case; nothing of cases that are labelled in part."""
        found: dict[str, dict[str, int]] = {name: {} for name in called.values()}
        for case in self.pairing.names:
            for structure in structures_of(case, self.pairing):
                if structure.counted is None and structure.name in called:
                    found[called[structure.name]][case] = int(np.count_nonzero(structure.references()[0]))
        return found


def observe(
    segmenter: Segmenter,
    files: Sequence[CaseFiles],
    out: Path,
    data: Path,
    *,
    split: str,
    split_file: Path | None,
    cleaning: Mapping[str, Cleaning],
    again: bool,
    track: Track,
) -> Observed:
    """Segment files into a folder and compare with the references; ``again`` replaces what lies there."""
    heard = Heard(segmenter.config.plane)
    finished = segment_files(
        segmenter,
        files,
        out,
        parts=PARTS,
        split_file=split_file,
        overwrite=again,
        track=track,
        heard=heard,
        cleaning=cleaning,
    )
    evaluation = evaluate(
        out,
        data,
        split=None if split_file is None else split,
        present_only=split_file is None or bool(finished.failed),
        data=segmenter.config.data,
        track=track,
    )
    return Observed(evaluation, heard)


def training_looks(segmenter: Segmenter, data: Path, split_file: Path, track: Track) -> list[Looks]:
    """Look at images that the run was trained on, if they are among the data."""
    try:
        files = find_inputs([data], like=segmenter.config, split_file=split_file, split="train", noted=log.debug)
    except DataError:  # none of them is
        return []
    return list(looks_of_images(track(evenly(files, IMAGES), "Looking at training"), segmenter))


def trained_on(runs: Sequence[Path], groups: Mapping[str, str]) -> list[str]:
    """Name the cases that runs were trained on, or whose patients were, as far as names tell; say so if there are some.

    Args:
        runs: Their folders.
        groups: Case → patient; empty: each case by itself.

    Returns:
        The cases.
    """
    trained = seen_among(groups, set[str]().union(*(Run(run).trained for run in runs)))
    if trained:
        log.warning(
            "%d of %d cases have names of cases or patients that training has seen: %s. If they are those, masks of "
            "new cases are worse, and what is predicted and promised of them does not hold. Take cases that training "
            "has not seen.",
            len(trained),
            len(groups),
            some(trained),
        )
    return trained


def untold(runs: Sequence[Path]) -> list[Path]:
    """Name the runs that do not tell all that they were trained on; say so if there are some."""
    found = [run for run in runs if not Run(run).tells_trained]
    for run in found:
        log.warning(
            "%s %s. If these cases are among that, masks of new cases are worse, and what is predicted and promised "
            "of them does not hold. Take cases that it can't have seen.",
            run,
            UNTOLD,
        )
    return found
