"""Results on their way into a folder: read, written image by image, and told of at the end."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock

from medsegdiff.config.spec import DataSpec
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.intensity import check_channels
from medsegdiff.errors import MedSegDiffError, memory_worded, some
from medsegdiff.inference.ahead import ahead
from medsegdiff.inference.attempt import CHANGED, Attempt
from medsegdiff.inference.case_record import CaseRecord, Failure, InputFile, made_here
from medsegdiff.inference.collect import collect
from medsegdiff.inference.dicom_writer import DICOM_PARTS, is_dicom
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import check_files, read_case
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.record import ImageRecord, Record, Settings
from medsegdiff.inference.remaining import Remaining, unrecorded
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.tally import Tally
from medsegdiff.inference.team import Team
from medsegdiff.inference.telling import told_of
from medsegdiff.inference.writer import findings_of, write_result
from medsegdiff.io.names import case_name
from medsegdiff.types import Case

log = logging.getLogger(__name__)

CLOSE = "Close other programs, or make the image smaller."
OF_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What a system says of names that it does not take."""


@dataclass
class Finished:
    """What became of images."""

    root: Path
    tally: Tally
    """Of the folder, if it was collected, else of what was done here."""
    made: int = 0
    """Images that were segmented here."""
    seconds: float = 0.0
    """That it took here."""
    rest: str = ""
    """What others are to do, where they are not done; then the folder was not collected."""

    @property
    def failed(self) -> dict[str, str]:
        """Path → why."""
        return self.tally.failed

    @property
    def done(self) -> list[ImageRecord]:
        """What is told of each image of the folder; of many that takes memory."""
        record = SegmentationFolder(self.root).read() if self.tally.count else None
        return [] if record is None else list(record.images)


@dataclass(frozen=True)
class _Read:
    """A case as it was read, or why it was not."""

    file: CaseFiles
    inputs: tuple[InputFile, ...]
    case: Case | None = None
    error: Exception | None = None


class Saving:
    """Reads files and writes results, and lists those with which it did not succeed: the others go on.

    Results are written by one thread, and failures noted by any.
    """

    def __init__(
        self,
        folder: SegmentationFolder,
        record: Record,
        left: Remaining,
        *,
        parts: Collection[str],
        split_file: Path | None,
        model: QualityModel | None = None,
        joins: bool = False,
        heard: Callable[[Segmentation], None] | None = None,
        codes: Mapping[str, str] | None = None,
    ) -> None:
        """Know what is left to do, and whether that ``joins`` results that are there or that others make."""
        self.folder, self.record, self.left, self.parts, self.split_file = folder, record, left, parts, split_file
        self.model, self.joins, self.heard, self.tally, self.made = model, joins, heard, Tally(), 0
        self.attempt = Attempt(folder.root)
        self.codes, self._warned = codes, False
        self._begun, self._kept = False, list[CaseRecord]()
        self._inputs: dict[str, tuple[InputFile, ...]] = {}
        self._one = RLock()

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.attempt.put_back()  # what was to be replaced, and was not
        finally:
            self.attempt.close()

    def prepare(self, team: Team) -> None:
        """Make room for what several processes make; where they share all cases, the leader takes out what goes."""
        if team.leads and (team.together or not self.folder.exists):
            self._set_aside(self.left.replaced if team.together else ())
            self.folder.begin(self.record, self.split_file, self.attempt)
        self._begun = team.together

    def readable(self, files: Iterable[CaseFiles], spec: DataSpec, *, steps: Iterable[object]) -> Iterator[Case]:
        """Read cases ahead of those that are segmented, step by step, and pass over those that can't be read."""
        for _, found in zip(steps, ahead(files, partial(_read, spec=spec), size=_size), strict=False):
            self._inputs[found.file.name] = found.inputs
            if found.error is not None:
                self.refused(found.file, found.error)
            elif found.case is not None:
                case = found.case
                del found
                yield case
                del case

    def write(self, timed: tuple[Segmentation, float]) -> None:
        """Write a result that took some seconds, whole or not at all; earlier ones stay until there is a new one."""
        result, seconds = timed
        del timed
        try:
            with memory_worded(result.name, way_out=CLOSE), self._one:
                self._commit(self._made(result, seconds))
        except Exception as error:
            self.attempt.discard()
            if isinstance(error, OSError) and error.errno not in OF_NAME:  # a full disk, say: so it is for all
                raise
            self.refused(result, error)
        else:
            if self.heard is not None:
                self.heard(result)

    def refused(self, case: Case | CaseFiles | Segmentation, error: Exception) -> None:
        """Note why an image was passed over."""
        inputs = self._inputs.pop(case.name)
        ours = isinstance(error, MedSegDiffError)
        told = str(error) if ours else f"{inputs[0].path}: {type(error).__name__}: {error}"
        log.warning("%s", told)
        log.debug("%s", case.name, exc_info=error)
        failure = Failure(kind=type(error).__name__, text=told)
        record = self._record_of(case.name, inputs).model_copy(update={"error": failure})
        with self._one:
            self.tally.add(record)
            if self._begun:
                self.attempt.commit(record)
            else:
                self._kept.append(record)

    def finish(self, files: Sequence[CaseFiles], team: Team, *, seconds: float) -> Finished:
        """Tell in the folder what became of all files; a folder in which nothing came about stays as it is."""
        if not self._begun and self.joins:  # nothing but failures: what was to be replaced stays
            self._kept = [record for record in self._kept if record.name not in self.left.replaced]
            told = self.folder.exists and (not self.left.replaced or self.folder.tells_of(self.record.settings))
            self.left.replaced.clear()
            self._begin() if self._kept or told else None  # who is to look at what may be asked anew
        self.attempt.put_back()
        self.attempt.close()
        rest = "" if team.alone else team.rest(len(files), len(unrecorded(self.folder.root, files)))
        whole = not rest and (self._begun or self.joins)
        return Finished(self.folder.root, collect(self.folder.root) if whole else self.tally, self.made, seconds, rest)

    def _made(self, result: Segmentation, seconds: float) -> CaseRecord:
        """Write what there is of a result, and put together what is told of it."""
        name, codes = case_name(result.name, where="A result"), self.codes or result.codes
        case, folder = Case(name, result.image, None, result.geometry), self.attempt.begin()
        measures = result.measures()
        told = told_of(result, self.model, measures)
        image: ImageRecord = told["image"]
        findings = findings_of(measures, image.sizes, image.quality)
        self._warn_of_codes(case, result.labels.structures, codes)
        write_result(
            folder,
            result,
            case,
            result.labels,
            parts=self.parts,
            tables=self.attempt.shared,
            findings=findings,
            codes=codes,
        )
        return self._record_of(name, self._inputs[name]).model_copy(
            update={"outputs": self.attempt.outputs(), "seconds": seconds, **told}
        )

    def _warn_of_codes(self, case: Case, structures: Sequence[str], codes: Mapping[str, str]) -> None:
        """Say once which structures DICOM will call tissue."""
        without = [name for name in structures if name not in codes]
        if self._warned or not without or not is_dicom(case) or not {*DICOM_PARTS} & {*self.parts}:
            return
        self._warned = True
        log.warning(
            "DICOM has no code for %s, and gets 'tissue'. Name codes with --dicom-codes, or data.codes: "
            "{liver: SCT:10200004}, say.",
            some(without),
        )

    def _record_of(self, name: str, inputs: tuple[InputFile, ...]) -> CaseRecord:
        return CaseRecord(name=name, inputs=inputs, settings=self.record.settings or Settings(), **made_here())

    def _commit(self, record: CaseRecord) -> None:
        """Put a result into the folder; before the first one, what it replaces goes, and comes back if it fails."""
        self.attempt.commit(record) if self._begun else self._begin(record)
        self._inputs.pop(record.name)
        self.tally.add(record)
        self.made += 1

    def _begin(self, *first: CaseRecord) -> None:
        """Commit the first case, and those that have failed before it."""
        with self._replacing():
            for record in (*first, *self._kept):
                self.attempt.commit(record)
        self._begun, self._kept = True, []

    def _set_aside(self, names: Iterable[str]) -> None:
        if changed := self.attempt.set_aside(names):
            log.warning(
                "%d files had been changed by somebody, and are made anew. As they were they lie in %s: %s.",
                len(changed),
                self.folder.root / CHANGED,
                some(changed),
            )

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        if not self.joins:
            with self.folder.renewed(self.record, self.split_file, self.attempt):
                yield
            return
        if not self.folder.exists:  # nothing goes: somebody else may have begun in the meantime
            self.folder.begin(self.record, self.split_file, self.attempt)
        try:
            self._set_aside(self.left.replaced)
            yield
        except BaseException:
            self.attempt.put_back()
            raise
        self.attempt.forget()
        self.folder.begin(self.record, self.split_file, self.attempt)


def _read(file: CaseFiles, *, spec: DataSpec) -> _Read:
    """Read a case."""
    inputs = tuple(map(InputFile.of, file.images))
    try:
        check_files(file, spec)
        with memory_worded(str(file.images[0]), way_out=CLOSE):
            case = read_case(file)
        check_channels(case, spec.channels)
    except Exception as error:  # noqa: BLE001 - whatever a library makes of a file, the others are read
        return _Read(file, inputs, error=error)
    return _Read(file, inputs, case)


def _size(found: _Read) -> int:
    return 0 if found.case is None else found.case.image.nbytes
