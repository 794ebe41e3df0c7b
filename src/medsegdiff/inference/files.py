"""Segmenting files: their results go into a folder, and those that can't be read are passed over."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.errors import ConfigError
from medsegdiff.inference.background import Background
from medsegdiff.inference.calibration import dependence_of
from medsegdiff.inference.case_record import VERSION
from medsegdiff.inference.ensemble import num_looks
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.record import Record, RunRecord, Settings
from medsegdiff.inference.remaining import Remaining, remaining, unrecorded
from medsegdiff.inference.request import Request
from medsegdiff.inference.review import Review
from medsegdiff.inference.runs import Trained, calibrated_for
from medsegdiff.inference.saving import Finished, Saving
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.sweeping import sweep
from medsegdiff.inference.team import Alone, Team
from medsegdiff.inference.writer import USUAL, check_parts
from medsegdiff.models.checkpoint import hash_of, plugins_of
from medsegdiff.models.packed import called

log = logging.getLogger(__name__)


def segment_files(
    segmenter: Segmenter,
    files: Sequence[CaseFiles],
    out: Path,
    *,
    save_members: bool = False,
    parts: Collection[str] = USUAL,
    split_file: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    retry_failed: bool = False,
    review: Review = Review(),  # noqa: B008 - it can't be changed
    team: Team = Alone(),  # noqa: B008 - the same
    track: Track = no_progress,
    noted: Callable[[str], None] = log.info,
    heard: Callable[[Segmentation], None] | None = None,
    codes: Mapping[str, str] | None = None,
    **options: Unpack[SamplingOptions],
) -> Finished:
    """Segment files and write the results; files that can't be read are listed and passed over.

    Args:
        segmenter: The model.
        files: What it segments.
        out: Folder of the results, each of which has a record: see `medsegdiff.inference.case_record`.
        save_members: Whether members are among the parts.
        parts: Which parts of a result are written.
        split_file: Put beside the results.
        overwrite: Whether results of an earlier time are replaced, all of them.
        resume: Whether those stay that are of these images, weights and options, and only the others are made.
        retry_failed: Whether images that failed are tried again then.
        review: What a human shall see; of results that are gone on with, by default what was asked before.
        team: Who shares the work; then valid results stay in any case.
        track: Shows progress.
        noted: Told in sentences what a user should know.
        heard: Given each result once it is written, as long as it is in memory.
        codes: What DICOM calls structures; ``None``: as the configuration of the run says.
        **options: See `Segmenter.stream`.

    Returns:
        What became of the files.

    Raises:
        ConfigError: If what is asked makes no sense, or the folder is not one to write such results into.
    """
    check_parts(parts)
    joins = resume or not team.alone
    if overwrite and joins:
        why = "resume keeps those that are valid" if resume else "other processes write there too"
        raise ConfigError(f"overwrite replaces all results, but {why}. Leave it out, or give a new folder.")
    request, folder, start = segmenter.request(**options), SegmentationFolder(out), time.monotonic()
    inputs = (path for file in files for path in file.images)
    if team.leads:
        sweep(out)
    folder.check_room(overwrite=overwrite, resume=joins, inputs=[*inputs, *filter(None, [split_file])])
    for structure, how in request.cleaning.items():
        why = "" if request.cleaned == "all" else " As calibration found; '--no-cleaning' leaves it."
        noted(f"Cleaned, {structure}: {how}; in masks, anchor and members, not in the probability.{why}")
    parts = {*parts, "members"} if save_members else parts
    model, own = _quality(segmenter, request), team.own(files)
    settings = settings_of(segmenter, request, parts=parts, quality=model, codes=codes)
    looks = joins and team.leads
    left = _left(out, own, files, settings, retry_failed=retry_failed) if looks else Remaining(list(own))
    if looks:
        noted(str(left))
    review = folder.review if joins and review == Review() else review
    told = {"settings": settings, "review": review, "asked": len(files) + left.others, "version": VERSION}
    record = _record(segmenter, request, model).model_copy(update=told)
    with Saving(
        folder, record, left, parts=parts, split_file=split_file, model=model, joins=joins, heard=heard, codes=codes
    ) as saving:

        def work(some: Iterable[CaseFiles], steps: Iterable[object]) -> None:
            cases, before = saving.readable(some, segmenter.config.spec, steps=steps), time.monotonic()
            with Background(saving.write) as writing:
                results = segmenter.results(cases, request, refused=saving.refused, noted=noted, entropy_alone=True)
                for result in results:
                    before, since = time.monotonic(), before
                    writing.put((result, before - since), size=result.nbytes)
                    del result  # a volume is large, and the next one is made before this name would be taken again

        if not team.alone:
            saving.prepare(team)
        todo = team.agreed(left.files, settings.key)
        steps = itertools.repeat(None) if team.together else track(todo, "Segmenting")
        work(team.pulled(todo, track), steps)
        team.over()
        if team.together and team.leads and (lost := unrecorded(out, todo)):  # of processes that are dead
            work(lost, itertools.repeat(None))
        finished = saving.finish(files, team, seconds=time.monotonic() - start)
    if not finished.rest and (said := finished.tally.cut()):
        noted(said)
    return finished


def _left(
    out: Path, own: Sequence[CaseFiles], files: Sequence[CaseFiles], settings: Settings, *, retry_failed: bool
) -> Remaining:
    known = [] if own is files else [case.name for case in files]
    return remaining(out, own, settings, retry_failed=retry_failed, known=known)


def settings_of(
    segmenter: Segmenter,
    request: Request,
    *,
    parts: Collection[str],
    quality: QualityModel | None,
    codes: Mapping[str, str] | None = None,
) -> Settings:
    """Tell what results follow from beside the images: batches, device and number of processes change but rounding."""
    sampling, *others = [
        of.model_dump(mode="json", exclude={"batch_size"}) for of in (request.sampling, *request.by_run)
    ]
    options = {
        **sampling,
        "members": request.members,
        "seed": request.seed,
        "raters": request.raters,
        "cleaning": {name: of.model_dump(mode="json") for name, of in sorted(request.cleaning.items())},
        "precision": segmenter.precision,
        "write": sorted(parts),
        **({"by_run": others} if len(others) > 1 else {}),
        **({"codes": dict(codes)} if codes else {}),
    }
    weights = [sha for run in segmenter.runs for sha in run.sha256 or (hash_of(run.model),)]
    learned = [run.calibration.model_dump(mode="json") for run in segmenter.runs]
    reads = {"data", "spec", "model", "diffusion"}
    configured = [run.config.model_dump(mode="json", include=reads) for run in segmenter.runs]
    later = {"plane"} - (set() if quality is None else quality.model_fields_set)  # earlier versions did not tell it
    judged = quality and quality.model_dump(mode="json", exclude=later)
    return Settings.of(weights, [learned, judged], configured, options)


def _quality(segmenter: Segmenter, request: Request) -> QualityModel | None:
    """Take what calibration has taught, and say so if it does not hold of these masks."""
    known, found = segmenter.quality, segmenter.quality_for(request)
    if known is not None and found is None:
        log.warning(
            "Calibration was of other masks (%d members, fusion %s, %s): of these nothing is predicted. Segment as "
            "the run does by default, or calibrate it anew.",
            known.sampling.members,
            known.sampling.fusion,
            "; ".join(f"{name}: {how}" for name, how in known.cleaning.items()) or "not cleaned",
        )
    return found


def _record(segmenter: Segmenter, request: Request, model: QualityModel | None) -> Record:
    spec, runs = segmenter.config.spec, calibrated_for(request.by_run, segmenter.runs)
    alone = runs[0] if len(runs) == 1 else None
    plugins = [plugin for run in runs for plugin in plugins_of(run.config)]
    return Record(
        task=spec.labels.task,
        classes=spec.labels.classes,
        values=spec.labels.values,
        model=alone.origin if alone else None,
        runs=tuple(_run(run, request, number) for number, run in enumerate(runs)),
        layout=spec.layout,
        members=request.members,
        sampling=request.sampling,
        seed=request.seed,
        raters=request.raters,
        cleaning=request.cleaning,
        cleaning_learned=bool(request.cleaning) and request.cleaned != "all",
        quality_learned_on=0 if model is None else model.cases,
        dependence=dependence_of([run.calibration for run in runs]),
        probability=alone.calibration.mixture if alone else None,
        calibrated_on=min(run.calibration.cases for run in runs),
        plugins=tuple(plugin for place, plugin in enumerate(plugins) if plugin not in plugins[:place]),
    )


def _run(run: Trained, request: Request, number: int) -> RunRecord:
    sampling = request.by_run[number]
    drawn = len(request.turn(number).own(range(sampling.drawn), sampling))
    return RunRecord(
        folder=run.origin.folder if run.origin else "",
        name=called(Path(run.origin.folder)) if run.origin else "",
        weights=run.origin.weights if run.origin else "",
        sha256=run.sha256,
        network=run.config.model.name,
        members=1 if request.once else drawn,
        steps=sampling.steps,
        looks=min(num_looks(sampling, run.config), sampling.drawn),
        calls=drawn * sampling.steps,
        probability=run.calibration.mixture,
        calibrated_on=run.calibration.cases,
    )
