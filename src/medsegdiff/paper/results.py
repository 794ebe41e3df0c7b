"""Our own numbers for a table of the paper, from the folders that hold scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.evaluation.results import METRICS_FILE, read_results
from medsegdiff.evaluation.scores import Mean, Measure
from medsegdiff.inference import RECORD
from medsegdiff.paper.tables import Column, PaperTable

SOURCES = (METRICS_FILE, RECORD, "config.json")
"""What a folder of results may hold: scores, how masks were made, the run that made them."""


@dataclass(frozen=True)
class Score:
    """A number, with its 95 % interval where there is one."""

    mean: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, mean: Mean) -> Score:
        """Take a mean over cases."""
        return cls(mean.mean, mean.ci95)

    def times(self, factor: float) -> Score:
        """Change the unit."""
        low_high = self.interval and (self.interval[0] * factor, self.interval[1] * factor)
        return Score(self.mean * factor, low_high)


@dataclass(frozen=True)
class Result:
    """A folder, and where its numbers go."""

    name: str
    folder: Path
    data: str = ""
    """The data set; empty where the table is of one alone."""


@dataclass(frozen=True)
class Ours:
    """A row of our own."""

    name: str
    scores: Mapping[str, Score]
    """By title of the column, in its unit."""
    remarks: tuple[str, ...]
    """Where the numbers come from, and why some are missing."""


Costs = Callable[[Sequence[Path]], Mapping[str, Score]]
"""From the folders of one name to what a run costs, by the names of `medsegdiff.paper.tables.COSTS`."""


def parse_result(text: str, table: PaperTable) -> Result:
    """Understand ``NAME=FOLDER``, or ``NAME/DATA=FOLDER`` where the table has columns of several data sets."""
    form = "NAME/DATA=FOLDER" if table.data else "NAME=FOLDER"
    address, equals, folder = text.partition("=")
    name, slash, data = address.rpartition("/") if table.data else (address, "/", "")
    if not (equals and slash and name and folder) or (table.data and not data):
        allowed = f", DATA being one of {', '.join(table.data)}" if table.data else ""
        raise ConfigError(f"'{text}' is not of the form {form}{allowed}. For {table.name}, say {_example(table)}.")
    if table.data and not any(addressed(column, data) for column in table.columns):
        known = sorted({name for column in table.columns for name in column.data})
        shown = ", ".join(table.data)
        raise ConfigError(f"{table.name} has no column for '{data}'; it has {shown}.{nearest(data, known)}")
    if not any((Path(folder) / source).is_file() for source in SOURCES):
        raise DataError(
            f"{folder}: expected {METRICS_FILE} of 'medsegdiff evaluate --out', results of 'medsegdiff segment' or a "
            f"run; found {_found(Path(folder))}."
        )
    return Result(name, Path(folder), data)


def _example(table: PaperTable) -> str:
    return f"MedSegDiff-V2/{table.data[0]}=scores" if table.data else "MedSegDiff-V2=scores"


def _found(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return some(sorted(path.name for path in folder.iterdir())) or "an empty folder"


def gather(table: PaperTable, results: Iterable[Result], *, costs: Costs | None = None) -> list[Ours]:
    """Collect our rows of a table: one for each name, from all folders that it was given."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return [_ours(table, name, given, costs) for name, given in by_name.items()]


def fill(table: PaperTable, known: Mapping[str, Score]) -> dict[str, Score]:
    """Put what is known by a column's metric into the column."""
    columns = (column for column in table.columns if column.whose != "paper" and column.metric in known)
    return {column.title: known[column.metric].times(column.scale) for column in columns}


def _ours(table: PaperTable, name: str, given: Sequence[Result], costs: Costs | None) -> Ours:
    found: dict[str, Score] = {}
    remarks = []
    if costs is not None:
        found = fill(table, costs([result.folder for result in given]))
    filled: set[str] = set()
    for result in given:
        scores, remark = _scores(table, result)
        if twice := sorted(filled & set(scores)):
            raise ConfigError(f"'{name}' has two results for {some(twice)}, the second from {result.folder}; drop one.")
        filled |= set(scores)
        found |= scores
        remarks += [remark] if remark else []
    return Ours(name, found, tuple(remarks))


def _scores(table: PaperTable, result: Result) -> tuple[dict[str, Score], str]:
    """Fill the columns that a folder of scores is addressed to, and say of which there are none."""
    if not (result.folder / METRICS_FILE).is_file():
        return {}, ""
    results = read_results(result.folder)
    summary = results.summary
    asked = [column for column in table.columns if addressed(column, result.data)]
    structures = sorted({of.structure for of in summary if of.structure}) or list(results.setup.structures)
    found = scores_of(_named(asked, structures) if len(structures) < 2 else asked, summary)
    lacking = [c.title for c in asked if c.title not in found and Measure(c.metric) in summary]
    why = f"; no number for {some(lacking)}: the scores are of {some(structures) or 'one structure'}" if lacking else ""
    return found, f"{result.name}: {len(results.scores)} cases of {result.folder}{why}"


def _named(asked: Sequence[Column], structure: Sequence[str]) -> list[Column]:
    """Keep the columns of the one structure that was scored: those of its name, or all where they are of one."""
    meant = {column.classes for column in asked if column.classes}
    return [c for c in asked if not c.classes or len(meant) == 1 or any(map(c.is_of, structure))]


def scores_of(columns: Iterable[Column], summary: Mapping[Measure, Mean]) -> dict[str, Score]:
    """Fill columns with what was scored, by title; those that nothing was scored for are left out."""
    return {column.title: score for column in columns if (score := _of_column(column, summary)) is not None}


def addressed(column: Column, data: str) -> bool:
    """Tell whether results of a data set belong into a column."""
    if column.whose == "paper" or not column.metric:
        return False
    return not data or data.casefold() in {name.casefold() for name in column.data}


def _of_column(column: Column, summary: Mapping[Measure, Mean]) -> Score | None:
    """Find a column's number: of its structure by name, or of a folder that has but one; or the mean over all."""
    structures = {of.structure for of in summary if of.metric == column.metric and of.structure}
    measure = Measure(column.metric)
    if column.classes and structures:
        named = sorted(filter(column.is_of, structures))
        if not named:
            return None
        measure = Measure(column.metric, named[0])
    elif column.structures not in (None, len(structures)):
        return None
    return Score.of(summary[measure]).times(column.scale) if measure in summary else None
