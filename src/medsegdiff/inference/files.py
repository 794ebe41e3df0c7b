"""Segmenting files: their results go into a folder, and those that can't be read are passed over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.spec import DataSpec
from medsegdiff.data.dataset import CaseFiles, Track, no_progress
from medsegdiff.data.transforms import check_channels
from medsegdiff.errors import DataError, GeometryError, MedSegDiffError
from medsegdiff.inference.certainty import Certainty
from medsegdiff.inference.folder import ImageRecord, Record, SegmentationFolder
from medsegdiff.inference.inputs import check_files, read_case
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.writer import USUAL, check_parts, rates_of
from medsegdiff.metrics.plausibility import Appearance, appearance_of, warning_of
from medsegdiff.models.checkpoint import plugins_of
from medsegdiff.types import Case

log = logging.getLogger(__name__)


@dataclass
class Finished:
    """What became of the files."""

    done: list[ImageRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Path → why."""
    seconds: float = 0.0
    seen: list[Appearance] = field(default_factory=list)
    """By image: what its mask looks like."""
    rates: list[dict[str, str]] = field(default_factory=list)
    """Rows of what STAPLE says of the members."""

    def members(self) -> str:
        """Say how many members the images have."""
        counts = [image.members or 0 for image in self.done] or [0]
        if self.chosen_of:
            return f"{max(counts)} chosen of {self.chosen_of} candidates, which all serve mask, probability and sizes"
        return f"mean {np.mean(counts):.1f} ({min(counts)}–{max(counts)})"

    @property
    def chosen_of(self) -> int:
        """Among how many candidates members were chosen; 0 where all that were drawn are members."""
        return max((image.chosen_of or 0 for image in self.done), default=0)

    def warning(self) -> str:
        """Say so if the results look like those of a model that has not been trained long enough."""
        return warning_of(self.seen)

    def add(self, result: Segmentation) -> None:
        """Look at a result that was saved."""
        image = _recorded(result)
        self.done.append(image)
        self.seen.append(_appearance(result, image))
        self.rates += rates_of(result.name, result, result.labels)


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
    folder, request = SegmentationFolder(out), Request.of(segmenter.config, **options)
    folder.check_room(overwrite=overwrite)
    finished, record, start = Finished(), _record(segmenter, request), time.monotonic()
    readable = _readable(track(files, "Segmenting"), finished, segmenter.config.spec)
    paths = {file.name: str(file.images[0]) for file in files}

    def refused(case: Case | Segmentation, error: MedSegDiffError) -> None:
        log.warning("%s", error)
        finished.failed[paths[case.name]] = str(error)

    for result in segmenter.results(readable, request, refused=refused, noted=noted):
        if not finished.done:  # results of an earlier time stay until there are new ones
            folder.begin(record, split_file)
        try:
            result.save(out, members=save_members, parts=parts)
            finished.add(result)
        except (DataError, GeometryError) as error:
            refused(result, error)
        del result  # a volume is large, and the next one is made before this name would be taken again
    finished.seconds = time.monotonic() - start
    if finished.done:
        ended = {"seconds": finished.seconds, "images": tuple(finished.done), "failed": finished.failed}
        folder.finish(record.model_copy(update=ended), finished.rates)
    return finished


def _record(segmenter: Segmenter, request: Request) -> Record:
    spec, calibration = segmenter.config.spec, segmenter.calibration.as_for(request.sampling)
    return Record(
        task=spec.labels.task,
        classes=spec.labels.classes,
        model=segmenter.origin,
        layout=spec.layout,
        members=request.members,
        sampling=request.sampling,
        seed=request.seed,
        probability=calibration.mixture,
        calibrated_on=calibration.cases,
        plugins=tuple(plugins_of(segmenter.config)),
    )


def _readable(files: Iterable[CaseFiles], finished: Finished, spec: DataSpec) -> Iterator[Case]:
    for file in files:
        try:
            check_files(file, spec)
            case = read_case(file)
            check_channels(case, spec.channels)
            yield case
        except (DataError, GeometryError) as error:
            log.warning("%s", error)
            finished.failed[str(file.images[0])] = str(error)


def _recorded(result: Segmentation) -> ImageRecord:
    labels, anchor = result.labels, result.anchor_certainty
    shares = {name: float(labels.mask(result.mask, index).mean()) for index, name in enumerate(labels.structures)}
    return ImageRecord(
        name=result.name,
        foreground=shares,
        members=len(result.members),
        chosen_of=result.chosen_of,
        mean_entropy=float(result.uncertainty.entropy.mean()),
        agreement=result.agreement(),
        confidence=Certainty.of_array(result.probability, labels).confidence,
        anchor_confidence=None if anchor is None else anchor.confidence,
        anchor_entropy=None if anchor is None else anchor.entropy,
        sizes=result.sizes(),
    )


def _appearance(result: Segmentation, image: ImageRecord) -> Appearance:
    """Look at the structure that members draw largest."""
    labels = result.labels
    shares = [
        np.mean([labels.mask(member, index).mean() for member in result.members])
        for index in range(len(labels.structures))
    ]
    largest = int(np.argmax(shares))
    mask = labels.mask(result.mask, largest)
    return appearance_of(mask, agreement=image.agreement or 0.0, members=float(shares[largest]))
