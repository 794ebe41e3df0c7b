"""From the records of cases to what is told of a folder: ``segment.json`` and its tables, case by case."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.errors import DataError
from medsegdiff.inference import RECORD
from medsegdiff.inference.attempt import Attempt, held, is_whole
from medsegdiff.inference.case_record import CASES, RUN, CaseRecord, read_case_record, record_files
from medsegdiff.inference.folder import MEASURES, PAGE, RATES, WORKLIST
from medsegdiff.inference.record import ImageRecord, Record, Settings, json_of, read_record
from medsegdiff.inference.review import ROW, Quality, Review, described, flagged, order_of, rank_of, worst_of
from medsegdiff.inference.sizes import Size
from medsegdiff.inference.sweeping import sweep
from medsegdiff.inference.tally import Tally
from medsegdiff.io.atomic import to_json

LEFT_OUT = ("made otherwise", "with damaged records", "with missing or changed files")
"""Why cases of a folder are not collected."""


def collect(root: Path, *, track: Track = no_progress) -> Tally:
    """Write ``segment.json`` and the tables of a folder from the records of its cases, in the order of their names.

    It may be done at any time, also while others write there. Cases are read one by one, so that memory stays small.

    Args:
        root: What ``medsegdiff segment`` wrote.
        track: Shows progress.

    Returns:
        What became of the cases.

    Raises:
        DataError: If there are no records.
    """
    file = root / CASES / RUN
    if not file.is_file():
        raise DataError(f"{root}: holds no {CASES}/{RUN}, so there are no records of cases to collect.")
    run = read_record(file)
    tally = _collected(root, run, track)
    if tally.missing and _missing(run, len(list(record_files(root)))) == 0:
        tally = _collected(root, run, track)  # others have ended meanwhile and told of all: not of less now
    return tally


def _missing(run: Record, there: int) -> int:
    return max((run.asked or 0) - there, 0)


def _collected(root: Path, run: Record, track: Track) -> Tally:
    """Collect what there is now."""
    tally = Tally(working=len(sweep(root)))
    files = sorted(record_files(root), key=lambda path: path.name)
    chosen = _worst(root, files, run)
    with held(root) as attempt, _Tables(attempt, run) as tables:
        for file in track(files, "Collecting"):
            record = _whole(root, file, run.settings, tally.left_out)
            if record is not None:
                record = _flagged(record, run.review, among_worst=file in chosen)
                tally.add(record)
                tables.add(record)
        tables.end(tally)
    tally.missing = _missing(run, len(files))
    return tally


def _whole(root: Path, file: Path, settings: Settings | None, left_out: Counter[str]) -> CaseRecord | None:
    """Read a record that counts; else say why it does not."""
    record, why = read_case_record(file), ""
    if record is None:
        why = LEFT_OUT[1]
    elif record.settings != settings:
        why = LEFT_OUT[0]
    elif not is_whole(root, record):
        why = LEFT_OUT[2]
    left_out.update([why] if why else [])
    return None if why else record


def _worst(root: Path, files: Sequence[Path], run: Record) -> set[Path]:
    """Choose the share of the images that a human shall see."""
    if run.review.share is None:
        return set()
    found = ((file, _whole(root, file, run.settings, Counter())) for file in files)
    ranks = [(file, rank_of(of.image.quality)) for file, of in found if of is not None and of.image is not None]
    return {ranks[place][0] for place in worst_of([rank for _, rank in ranks], run.review)}


def _flagged(record: CaseRecord, review: Review, *, among_worst: bool) -> CaseRecord:
    if record.image is None or not record.image.quality:
        return record
    quality = flagged(record.image.quality, review, among_worst=among_worst)
    return record.model_copy(update={"image": record.image.model_copy(update={"quality": quality})})


class _Tables:
    """``segment.json``, ``staple.csv``, ``measures.csv`` and ``quality.csv`` on their way: whole at the end, or not."""

    def __init__(self, attempt: Attempt, run: Record) -> None:
        self.attempt, self.run = attempt, run
        self._open = ExitStack()
        self._csv: dict[str, csv.DictWriter[str]] = {}
        self._worklist: list[tuple[tuple[bool, float], int, str]] = []
        self._count = 0

    def __enter__(self) -> _Tables:
        self._json = self._file(RECORD)
        head = to_json(self.run.model_dump(mode="json", exclude_none=True, exclude={"images", "failed", "seconds"}))
        self._json.write(head.removesuffix("\n}") + ',\n  "images": [')
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]

    def _file(self, name: str) -> IO[str]:
        return self._open.enter_context(self.attempt.file(name))

    def add(self, record: CaseRecord) -> None:
        """Tell of a case."""
        self._rows(RATES, record.rates)
        self._rows(MEASURES, record.measures)
        if record.image is not None:
            self._json.write(("," if self._count else "") + "\n    " + json_of(record.image))
            self._count += 1
            for name, quality in record.image.quality.items():
                row = _worklist_row(record.image, name, quality)
                self._worklist.append((order_of(quality), len(self._worklist), _line(row)))

    def _rows(self, name: str, rows: Sequence[Mapping[str, str]]) -> None:
        for row in rows:
            if name not in self._csv:
                self._csv[name] = csv.DictWriter(self._file(name), fieldnames=tuple(row), lineterminator="\n")
                self._csv[name].writeheader()
            self._csv[name].writerow(row)

    def end(self, tally: Tally) -> None:
        """Tell of what is known of all cases."""
        rest = to_json({"seconds": tally.seconds, "failed": tally.failed})
        self._json.write(("\n  " if self._count else "") + "],\n" + rest.removeprefix("{\n") + "\n")
        lines = [line for _, _, line in sorted(self._worklist)]
        if lines:
            self.attempt.write(WORKLIST, _line({name: name for name in ROW}) + "".join(lines))
        else:
            (self.attempt.root / PAGE).unlink(missing_ok=True)
        for name in {RATES, MEASURES, WORKLIST} - {*self._csv} - ({WORKLIST} if lines else set()):
            (self.attempt.root / name).unlink(missing_ok=True)  # of other settings


def _worklist_row(image: ImageRecord, structure: str, quality: Quality) -> dict[str, str]:
    """Tell what is known of a mask."""
    size: Size | None = image.sizes.get(structure)
    told = {"name": image.name, "structure": structure, **described(quality)}
    if size is not None:
        told |= {"size": f"{size.mean:.6g}", "low": f"{size.low:.6g}", "high": f"{size.high:.6g}", "unit": size.unit}
    return {column: told.get(column, "") for column in ROW}


def _line(row: Mapping[str, str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row.values())
    return text.getvalue()
