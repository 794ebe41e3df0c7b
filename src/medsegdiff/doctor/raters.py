"""Members against raters: do they differ as much as raters do, and where raters do?

The scores are those of `evaluate`; beside each stands that of members that were drawn as the raters draw.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Bool

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import CaseFiles, Item, Listing, Track, no_progress
from medsegdiff.data.open import detect, list_cases, matches
from medsegdiff.data.split import names_in, resolve
from medsegdiff.doctor.masks import Place
from medsegdiff.doctor.report import Finding
from medsegdiff.errors import DataError
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.evaluation.case import structures_of
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.calibration import near
from medsegdiff.metrics.distribution import agreement, expected_ged
from medsegdiff.metrics.reliability import Calibration
from medsegdiff.training.run import Run

MEMBERS = 8
SECONDS = 10.0
"""After which no further case is segmented, once there are two."""
DRAWS = 20
"""Ensembles of a perfect sampler whose calibration error is averaged."""
ECE_EXCESS, GED_RATIO, AGREEMENT_EXCESS = 0.05, 2.0, 0.1
"""How much worse than a perfect sampler is still good."""

_raters = partial(Finding, "raters")


def examine_raters(
    run: Run, segmenter: Segmenter, place: Place, *, count: int, track: Track = no_progress
) -> list[Finding]:
    """Compare an ensemble with raters, if there are several."""
    config = segmenter.config
    if place.path is None:
        found = "The data of the training can't be reached, so there are no raters to compare with."
        return [_raters("calibration", "skipped", found, "Give --data with the masks of several raters.")]
    if config.sampling.mode == "mean":
        return [_raters("calibration", "skipped", "The model draws no members to compare with raters.")]
    listing = _listed(place.path, config)
    if listing is None or not listing.masks.names:
        found = f"{place.name} holds no masks: there are no raters to compare with."
        return [_raters("calibration", "skipped", found)]
    masks = listing.masks
    held = _held_out(run, place.path, listing, config) if masks.kind == "raters" else []
    files = [case for case in held if len(masks.files(case.name)) > 1][:count]
    if not files:
        elsewhere = any(len(masks.files(name)) > 1 for name in masks.names) if held else False
        whose = f"Each test image of {place.name}" if elsewhere else place.name
        found = f"{whose} has one rater: there is no disagreement to compare with."
        return [_raters("calibration", "skipped", found)]
    if listing.volumes:
        return [_raters("calibration", "skipped", "Volumes are not compared with their raters here.")]
    with TemporaryDirectory(prefix="medsegdiff-doctor-") as folder:
        watched = _within(SECONDS, track)
        asked: SamplingOptions = {"members": MEMBERS, "candidates": MEMBERS}  # `expected_ged` is of independent ones
        segment_files(segmenter, files, Path(folder), save_members=True, track=watched, **asked)
        return _compared(evaluate(Path(folder), place.path, present_only=True, data=config.data), place.name)


def _listed(where: Path, config: ResolvedConfig) -> Listing | None:
    """List a data set in its own layout; ``None`` for images that are none."""
    layout = config.spec.layout if matches(config.spec.layout, where) else detect(where)
    return None if layout is None else list_cases(where, config.data.model_copy(update={"layout": layout}))


def _held_out(run: Run, where: Path, listing: Listing, config: ResolvedConfig) -> list[CaseFiles]:
    """Find the test cases of the run; of data that it does not know those they name, else all."""
    files = [case for case in find_inputs([where], like=config) if listing.masks.has(case.name)]
    known = {case.name for case in files}
    try:
        names = {resolve(name, known) for name in names_in(run.split, "test")} & known
    except (OSError, DataError):
        return files
    names = names or {name for name, case in listing.cases.items() if case.part == "test"} & known
    return [case for case in files if case.name in names] or files


def _within(seconds: float, track: Track) -> Track:
    """Pass items on for a while, two at least."""

    def watched(items: Sequence[Item], description: str) -> Iterator[Item]:
        start = time.monotonic()
        for number, item in enumerate(track(items, description)):
            if number >= 2 and time.monotonic() - start >= seconds:
                return
            yield item

    return watched


@dataclass(frozen=True)
class Drawn:
    """One structure of one image."""

    members: Bool[np.ndarray, "m *s"]
    raters: Bool[np.ndarray, "r *s"]

    def expected_ged(self) -> float:
        """Compute GED² of members that are drawn as raters are; pairs of a rater with itself are left out."""
        r = len(self.raters)
        value = expected_ged(self.raters, np.full(r, 1 / r), num_samples=len(self.members), num_raters=r)
        return value * r / (r - 1)

    def perfect(self, rng: np.random.Generator) -> Drawn:
        """Draw members as raters draw."""
        return Drawn(self.raters[rng.choice(len(self.raters), size=len(self.members))], self.raters)


def calibration_error(drawn: Sequence[Drawn]) -> float:
    """Compute the calibration error of the mean of members, over all images, where anybody draws.

    Elsewhere calibration is easy, and would hide the rest.
    """
    pooled = Calibration.empty(MEMBERS + 1)  # a bin for each number of members
    for one in drawn:
        where = near(*one.raters, *one.members, margin=0)
        pooled = pooled.add(one.members.mean(axis=0), one.raters.mean(axis=0), where=where)
    return pooled.ece()


def _compared(evaluation: Evaluation, where: str) -> list[Finding]:
    pairing, cases = evaluation.pairing, len(evaluation.scores)
    assert pairing is not None
    drawn = [
        Drawn(structure.members, np.stack(list(structure.raters.values())))
        for name in pairing.names
        for structure in structures_of(name, pairing)
        if structure.members is not None
    ]
    how = f"{cases} images of {where}, {len(pairing.reference.folders)} raters, {MEMBERS} members"
    if not any(one.members.any() or one.raters.any() for one in drawn):
        return [_raters("calibration", "skipped", f"Neither members nor raters drew anything ({how}).")]
    return [
        _calibration(drawn, how, cases=cases),
        _distance(evaluation.mean("ged").mean, float(np.mean([one.expected_ged() for one in drawn]))),
        _agreement(evaluation.mean("agreement").mean, float(np.mean([agreement(one.raters) for one in drawn]))),
    ]


def _calibration(drawn: Sequence[Drawn], how: str, *, cases: int) -> Finding:
    rng, measured = np.random.default_rng(0), calibration_error(drawn)
    perfect = float(np.mean([calibration_error([one.perfect(rng) for one in drawn]) for _ in range(DRAWS)]))
    found = f"ECE of the pixel mean where anybody draws {measured:.3f}; a perfect sampler has {perfect:.3f} ({how})."
    numbers = {"ece": measured, "perfect": perfect, "cases": cases, "members": MEMBERS}
    if measured <= perfect + ECE_EXCESS:
        return _raters("calibration", "good", found, numbers=numbers)
    advice = "Train longer, with masks of several raters; take more steps and members."
    return _raters("calibration", "to look at", found, advice, numbers)


def _distance(measured: float, perfect: float) -> Finding:
    found = f"GED² of members and raters {measured:.3f}; a perfect sampler has {perfect:.3f} on average."
    numbers = {"ged": measured, "perfect": perfect}
    if measured <= GED_RATIO * perfect:
        return _raters("distance", "good", found, numbers=numbers)
    advice = "Members are not drawn as raters draw: train longer, or with more raters per image."
    return _raters("distance", "to look at", found, advice, numbers)


def _agreement(members: float, raters: float) -> Finding:
    found = f"Members agree by {members:.3f}, raters by {raters:.3f} (mean Dice of pairs)."
    numbers = {"members": members, "raters": raters}
    if members > raters + AGREEMENT_EXCESS:
        advice = "The ensemble is too sure of itself: take more steps, or train longer."
        return _raters("agreement", "to look at", found, advice, numbers)
    if members < raters - AGREEMENT_EXCESS:
        return _raters("agreement", "to look at", found, "Members differ more than raters: train longer.", numbers)
    return _raters("agreement", "good", found, numbers=numbers)
