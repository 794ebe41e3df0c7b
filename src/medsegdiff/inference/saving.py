"""Results on their way into a folder: read, written image by image, and told of at the end."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medsegdiff.config.spec import DataSpec
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.intensity import check_channels
from medsegdiff.errors import MedSegDiffError, memory_worded
from medsegdiff.inference.folder import MEASURES, SegmentationFolder
from medsegdiff.inference.inputs import check_files, read_case
from medsegdiff.inference.judging import Judged, judge
from medsegdiff.inference.quality import QualityModel, Review, reviewed
from medsegdiff.inference.record import ImageRecord, Record
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.writer import measures_rows, rates_of
from medsegdiff.metrics.plausibility import Appearance, appearance_of, warning_of
from medsegdiff.types import Case

log = logging.getLogger(__name__)

CLOSE = "Close other programs, or make the image smaller."
OF_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What a system says of names that it does not take."""


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
    measures: list[dict[str, str]] = field(default_factory=list)
    """Rows of what is measured of the masks."""
    model: QualityModel | None = None
    """What calibration has taught of masks."""

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

    def cut(self) -> str:
        """Say so if sizes are of what is seen of structures that the border of the image cuts."""
        count = sum(1 for image in self.done if image.incomplete)
        return f"In {count} of {len(self.done)} images a structure reaches the border; see {MEASURES}." if count else ""

    def warning(self) -> str:
        """Say so if the results look like those of a model that has not been trained long enough."""
        return warning_of(self.seen)

    def add(self, result: Segmentation) -> None:
        """Look at a result that was saved."""
        measures = result.measures()
        incomplete = tuple(name for name, of in measures.items() if of.incomplete)
        image = _recorded(result, judge(result, self.model, incomplete=incomplete), incomplete=incomplete)
        self.done.append(image)
        self.seen.append(_appearance(result, image))
        self.rates += rates_of(result.name, result, result.labels)
        self.measures += measures_rows(result.name, measures, image.sizes)


class Saving:
    """Reads files and writes results, and lists those with which it did not succeed: the others go on."""

    def __init__(
        self,
        folder: SegmentationFolder,
        record: Record,
        files: Sequence[CaseFiles],
        *,
        parts: Collection[str],
        split_file: Path | None,
        model: QualityModel | None = None,
        review: Review = Review(),  # noqa: B008 - it can't be changed
    ) -> None:
        self.folder, self.record, self.parts, self.split_file = folder, record, parts, split_file
        self.finished, self.review = Finished(model=model), review
        self._paths = {file.name: str(file.images[0]) for file in files}

    def readable(self, files: Iterable[CaseFiles], spec: DataSpec) -> Iterator[Case]:
        """Read cases, and pass over those that can't be read."""
        for file in files:
            try:
                check_files(file, spec)
                with memory_worded(str(file.images[0]), way_out=CLOSE):
                    case = read_case(file)
                check_channels(case, spec.channels)
            except Exception as error:  # noqa: BLE001 - whatever a library makes of a file, the others are read
                self.refused(file, error)
                continue
            yield case
            del case

    def write(self, result: Segmentation) -> None:
        """Write a result, whole or not at all; those of an earlier time stay until there is a new one."""
        first = not self.finished.done
        try:
            with (
                self.folder.renewed(self.record, self.split_file) if first else nullcontext(),
                memory_worded(result.name, way_out=CLOSE),
            ):
                result.save(self.folder.root, parts=self.parts)
                self.finished.add(result)
        except Exception as error:
            self.folder.forget(result.name)
            if isinstance(error, OSError) and error.errno not in OF_NAME:  # a full disk, say: so it is for all
                raise
            self.refused(result, error)

    def refused(self, case: Case | CaseFiles | Segmentation, error: Exception) -> None:
        """Note why an image was passed over."""
        ours = isinstance(error, MedSegDiffError)
        told = str(error) if ours else f"{self._paths[case.name]}: {type(error).__name__}: {error}"
        log.warning("%s", told)
        log.debug("%s", case.name, exc_info=error)
        self.finished.failed[self._paths[case.name]] = told

    def finish(self, *, seconds: float) -> Finished:
        """Tell in the folder what became of the images."""
        finished = self.finished
        finished.seconds = seconds
        if finished.done:
            flagged = reviewed([image.quality for image in finished.done], self.review)
            finished.done = [
                image.model_copy(update={"quality": quality})
                for image, quality in zip(finished.done, flagged, strict=True)
            ]
            ended = {"seconds": seconds, "images": tuple(finished.done), "failed": finished.failed}
            record = self.record.model_copy(update=ended)
            self.folder.finish(record, rates=finished.rates, measures=finished.measures)
        return finished


def _recorded(result: Segmentation, judged: Judged, *, incomplete: tuple[str, ...]) -> ImageRecord:
    labels, anchor = result.labels, result.anchor_certainty
    shares = {name: float(labels.mask(result.mask, index).mean()) for index, name in enumerate(labels.structures)}
    agreement, confidence = (_over_structures(judged.scores, name) for name in ("agreement", "confidence"))
    return ImageRecord(
        name=result.name,
        foreground=shares,
        members=len(result.members),
        chosen_of=result.chosen_of,
        mean_entropy=float(result.uncertainty.entropy.mean()),
        agreement=1.0 if agreement is None else agreement,  # of a single member with itself
        confidence=confidence,
        anchor_confidence=None if anchor is None else anchor.confidence,
        anchor_entropy=None if anchor is None else anchor.entropy,
        sizes=result.sizes(),
        incomplete=incomplete,
        scores=judged.scores,
        quality=judged.quality,
    )


def _over_structures(scores: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    values = [of[name] for of in scores.values() if name in of]
    return float(np.mean(values)) if values else None


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
