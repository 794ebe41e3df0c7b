"""Segmenting files: their results go into a folder, and those that can't be read are passed over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Unpack

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.inference.background import Background
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.record import Record
from medsegdiff.inference.request import Request
from medsegdiff.inference.saving import Finished, Saving
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.writer import USUAL, check_parts
from medsegdiff.models.checkpoint import plugins_of

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
    track: Track = no_progress,
    noted: Callable[[str], None] = log.info,
    **options: Unpack[SamplingOptions],
) -> Finished:
    """Segment files and write the results; files that can't be read are listed and passed over."""
    check_parts(parts)
    request, folder, start = Request.of(segmenter.config, **options), SegmentationFolder(out), time.monotonic()
    inputs = [path for file in files for path in file.images]
    folder.check_room(overwrite=overwrite, inputs=[*inputs, *filter(None, [split_file])])
    parts = {*parts, "members"} if save_members else parts
    saving = Saving(folder, _record(segmenter, request), files, parts=parts, split_file=split_file)
    cases = saving.readable(track(files, "Segmenting"), segmenter.config.spec)
    with Background(saving.write) as writing:
        for result in segmenter.results(cases, request, refused=saving.refused, noted=noted):
            writing.put(result, size=result.nbytes)
            del result  # a volume is large, and the next one is made before this name would be taken again
    finished = saving.finish(seconds=time.monotonic() - start)
    if told := finished.cut():
        noted(told)
    return finished


def _record(segmenter: Segmenter, request: Request) -> Record:
    spec = segmenter.config.spec
    calibration = segmenter.calibration.as_for(request.sampling, volumes=bool(spec.plane))
    return Record(
        task=spec.labels.task,
        classes=spec.labels.classes,
        values=spec.labels.values,
        model=segmenter.origin,
        layout=spec.layout,
        members=request.members,
        sampling=request.sampling,
        seed=request.seed,
        raters=request.raters,
        dependence=calibration.dependence,
        probability=calibration.mixture,
        calibrated_on=calibration.cases,
        plugins=tuple(plugins_of(segmenter.config)),
    )
