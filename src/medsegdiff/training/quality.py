"""Learning when a human must look: a run segments cases with references, and sees what its scores say of its Dice."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.evaluation import Evaluation
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.judging import Looks, grid_of
from medsegdiff.inference.quality import QualityModel, StructureQuality
from medsegdiff.inference.runs import common_split
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.acceptance import least_to_choose
from medsegdiff.metrics.conformal import fit_stretch
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.metrics.likeness import Likeness, fit_likeness
from medsegdiff.metrics.predicted_dice import CONFIDENCE
from medsegdiff.training.cleaning import Gain, learn_cleaning
from medsegdiff.training.observed import FEWEST_CASES, Observed, observe, trained_on, training_looks, untold
from medsegdiff.training.scored import FEWEST, Seen, learn_structures, range_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trust:
    """What calibration has found."""

    model: QualityModel
    seen: Mapping[str, Seen]
    """By structure."""
    evaluation: Evaluation
    file: Path
    """Where it was written."""
    gains: Mapping[str, Gain] = field(default_factory=dict)
    """What cleaning brings, by structure that is cleaned."""

    @property
    def ranks_only(self) -> bool:
        """Whether there were too few patients for numbers."""
        return all(of.dice is None for of in self.model.structures.values())


def calibrate_quality(
    runs: Sequence[Path],
    data: Path,
    *,
    split: str = "val",
    good: float = 0.8,
    risk: float = 0.05,
    out: Path | None = None,
    device: str | None = None,
    track: Track = no_progress,
    noted: Callable[[str], None] = log.info,
) -> Trust:
    """Segment cases with references as a run's users will, and learn what its scores say of their Dice.

    Where cleaning helps (`medsegdiff.training.cleaning`), they are segmented again and cleaned, and all that follows is
    learned of clean masks.

    The weights were chosen by the Dice of validation cases, so that these are a little better than new ones; cases that
    training never saw (another ``split``, or ``all`` of other data) tell more.

    Args:
        runs: Folders of the runs that segment together, mostly one; the file is written into the first.
        data: Images and references, in any layout that training reads.
        split: Part of the runs' split, or ``all`` cases of the data.
        good: Dice from which a mask is good.
        risk: Share of accepted patients with a bad mask that may be promised.
        out: Folder in which the segmentations stay; ``None``: they go.
        device: Where to compute; ``None`` takes the best there is.
        track: Shows progress.
        noted: Told what is done.

    Returns:
        What was learned.

    Raises:
        ConfigError: If ``good`` or ``risk`` is no share, or ``out`` holds results.
        DataError: If there are too few cases with a reference.
    """
    if not 0 < risk < 1 or not 0 < good <= 1:
        raise ConfigError(f"good is {good:g} and risk {risk:g}; both are shares, above 0 and at most 1.")
    if out is not None and SegmentationFolder(out).exists:
        raise ConfigError(f"{out} holds results already, which are not replaced. Choose another --out, or remove them.")
    segmenter = Segmenter.from_runs(runs, device=device, calibrated=False)
    split_file = None if split == "all" else common_split(runs, split)
    files = find_inputs([data], like=segmenter.config, split_file=split_file, split=None if split == "all" else split)
    with TemporaryDirectory() as temporary:
        seen = partial(
            observe, segmenter, files, out or Path(temporary), data, split=split, split_file=split_file, track=track
        )
        found = seen(cleaning={}, again=False)
        _check_enough(found)
        called = found.called(segmenter.config.spec.labels)
        learned = learn_cleaning(found.pairing, track=track).named(called)
        if learned.cleaning:
            noted("Cleaning helps; the cases are segmented again, to be judged as they will be: clean.")
            found = seen(cleaning=learned.cleaning, again=True)
        sizes = found.true_sizes(called)
    usual = [] if split_file is None else training_looks(segmenter, data, split_file, track)
    structures = learn_structures(found, segmenter.config, good=good, risk=risk)
    model = _model(found, segmenter, structures, usual, sizes, learned.cleaning, good=good, risk=risk)
    model = model.model_copy(update={"trained": _trained(runs, found)})
    return Trust(model, structures, found.evaluation, model.save(runs[0]), learned.gains)


def _check_enough(found: Observed) -> None:
    if (count := len(found.cases)) < FEWEST_CASES:
        raise DataError(f"{count} cases have a reference; quality is learned from {FEWEST_CASES} at least.")


def _trained(runs: Sequence[Path], found: Observed) -> int | None:
    """Count the cases that training has seen; ``None`` where none is known, and the runs do not tell of all."""
    groups = found.evaluation.scores.groups
    unknown, known = untold(runs), trained_on(runs, {name: groups[name] for name in found.cases})
    return len(known) if known or not unknown else None


def _model(
    found: Observed,
    segmenter: Segmenter,
    structures: Mapping[str, Seen],
    trained: Sequence[Looks],
    sizes: Mapping[str, Mapping[str, int]],
    cleaning: Mapping[str, Cleaning],
    *,
    good: float,
    risk: float,
) -> QualityModel:
    """Put together what was learned."""
    names, stated, heard = found.cases, found.pairing.stated, found.heard
    groups = [found.evaluation.scores.groups[name] for name in names]
    own = [stated[name].name for name in names]
    looks, grids = [heard.looks[name] for name in own], [grid_of(heard.geometry[name]) for name in own]
    spacing = np.array([of.spacing for of in grids]) if grids[0].affine is not None else None
    values, config = np.array([heard.values[name] for name in own]), segmenter.config
    request = segmenter.request(cleaning=cleaning)
    return QualityModel(
        cases=len(names),
        patients=found.patients,
        good=good,
        risk=risk,
        confidence=CONFIDENCE,
        structures={name: of.quality for name, of in structures.items()},
        spacing=() if spacing is None else tuple(map(range_of, spacing.T)),
        shape=tuple(map(range_of, np.array([of.shape for of in grids]).T)),
        values=range_of(values),
        modalities=config.spec.modalities,
        likeness=_likeness(trained, looks, groups),
        volumes=len(grids[0].shape) == 3,
        plane=config.plane,
        sampling=request.sampling,
        cleaning=cleaning,
        stretch=_stretches(found, sizes, config.spec.labels.structures),
        weights=tuple(run.sha256[0] for run in segmenter.runs),
    )


def _likeness(trained: Sequence[Looks], looks: Sequence[Looks], groups: Sequence[str]) -> dict[str, Likeness]:
    """Learn by kind what is usual: of images of training, and how far from these others lie; or of the others alone."""
    found = {}
    for kind in looks[0]:
        own, others = [of[kind] for of in trained], [of[kind] for of in looks]
        enough = len(own) >= FEWEST_CASES
        found[kind] = fit_likeness(own, others) if enough else fit_likeness(others, groups=groups)
    return found


def _stretches(
    found: Observed, sizes: Mapping[str, Mapping[str, int]], structures: Sequence[str]
) -> dict[str, Stretch]:
    """Fit the intervals of each structure of which enough cases tell the size, and one at least holds it."""
    stretches = {}
    for index, structure in enumerate(structures):
        true = sizes.get(structure, {})
        cases = [name for name in found.cases if name in true]
        own = [found.pairing.stated[name].name for name in cases]
        if len(cases) < FEWEST_CASES or not any(true.values()) or len(found.heard.sizes[own[0]]) < 2:
            continue
        stretches[structure] = fit_stretch(
            np.stack([found.heard.sizes[name][:, index] for name in own]),
            np.array([true[name] for name in cases]),
            [found.evaluation.scores.groups[name] for name in cases],
            pixels=np.array([math.prod(found.heard.geometry[name].shape) for name in own]),
        )
    return stretches


def promise(model: QualityModel, structure: StructureQuality) -> str:
    """Say in a sentence what may be promised of accepted masks, or why nothing is."""
    least = least_to_choose(model.risk, confidence=model.confidence)
    if structure.dice is None:
        known = structure.patients or model.patients
        return f"{known} patients: cases are ranked, and nothing is predicted; numbers take {FEWEST}."
    if structure.acceptance is None:
        return (
            f"Nothing is promised of accepted masks: that at most {100 * model.risk:g} % of patients have one with a "
            f"Dice below {model.good:g} takes {least} patients at least, of whom those with the best scores have none."
        )
    found = structure.acceptance
    return (
        f"With {100 * model.confidence:g} % confidence, of patients like these whose mask is accepted (a score from "
        f"{found.threshold:.3f} on: {100 * found.share:.0f} % of the cases) at most {100 * model.risk:g} % have one "
        f"with a Dice below {model.good:g}: {found.failed} of {found.patients} had.{_reservation(model)}"
    )


def _reservation(model: QualityModel) -> str:
    """Say why a promise may not hold; nothing where training has seen none of its cases."""
    if model.trained is None:
        return " The model does not tell what it was trained on: if these cases are among that, this does not hold."
    if not model.trained:
        return ""
    return (
        f" {model.trained} of the {model.cases} cases have names of cases or patients that training has seen: if they "
        "are those, this does not hold."
    )
