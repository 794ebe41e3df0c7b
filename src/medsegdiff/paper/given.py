"""Data sets that are given for columns of a table: which columns are theirs, and how their structures fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.errors import ConfigError, nearest, some
from medsegdiff.paper.given_data import label_of
from medsegdiff.paper.results import addressed
from medsegdiff.paper.tables import Column, PaperTable

OTHER = "other:"
"""Before the name of data that the paper does not have."""
STEPS, SECONDS = "steps", "seconds"
"""Columns of our own: what a trial took, its segmentation and scores included."""


@dataclass(frozen=True)
class Given:
    """A data set, and the columns of the paper that it is to fill."""

    name: str
    """As the table heads it, or as the columns' data sets are called."""
    where: str
    """A folder, or the name of one that is built in."""
    columns: tuple[Column, ...]
    over: str = ""
    """Heads the columns of our own; empty where the table is of one data set."""

    @property
    def of_paper(self) -> bool:
        """Whether the paper has numbers for it."""
        return any(column.whose != "ours" for column in self.columns)


def parse_given(texts: Sequence[str], table: PaperTable) -> tuple[Given, ...]:
    """Understand ``NAME=FOLDER``, or ``FOLDER`` alone where the table is of one data set; ``other:NAME=FOLDER``."""
    found = tuple(_parsed(text, table) for text in texts)
    for i, given in enumerate(found):
        for other in found[:i]:
            if twice := [column.title for column in given.columns if column in other.columns]:
                raise ConfigError(f"{some(twice)}: given are {other.where} and {given.where}. Leave one of them out.")
    of_paper = sorted((of for of in found if of.of_paper), key=lambda given: table.columns.index(given.columns[0]))
    return (*of_paper, *(given for given in found if not given.of_paper))


def _parsed(text: str, table: PaperTable) -> Given:
    name, equals, where = text.partition("=")
    if name.startswith(OTHER):
        return _other(name.removeprefix(OTHER), where, text)
    if not table.data and (not equals or Path(text).exists()):
        columns = tuple(column for column in table.columns if addressed(column, ""))
        return Given(label_of(text, DataConfig()), text, columns)
    known = list(dict.fromkeys(known for column in table.columns for known in column.data))
    if not (equals and name and where):
        raise ConfigError(f"'{text}' is not of the form NAME=FOLDER, NAME being one of {some(known, most=20)}.")
    columns = tuple(column for column in table.columns if addressed(column, name))
    if not columns:
        close = nearest(name.casefold(), map(str.casefold, known))
        raise ConfigError(
            f"{table.name} has no column for '{name}'. Known: {some(known, most=20)}; data that the paper has not are "
            f"given as {OTHER}{name}={where}.{close}"
        )
    called = next(known for known in columns[0].data if known.casefold() == name.casefold())
    return Given(called, where, columns, called if table.data else "")


def _other(name: str, where: str, text: str) -> Given:
    """Make columns of our own for data that the paper does not have."""
    if not (name and where):
        raise ConfigError(f"'{text}' is not of the form {OTHER}NAME=FOLDER.")
    dice = Column("Dice", over=name, metric="dice", data=(name,), scale=100.0, digits=1, whose="ours")
    iou, hd95 = replace(dice, name="IoU", metric="iou"), replace(dice, name="HD95", metric="hd95", scale=1.0, digits=2)
    return Given(name, where, (dice, iou, hd95), name)


@dataclass(frozen=True)
class Fitted:
    """The columns of a data set once its structures are known, and what there is to say of them."""

    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def fitted(given: Given, structures: Sequence[str], table: PaperTable) -> Fitted:
    """Keep the columns whose structures the data have; structures without one get columns of our own.

    Of a table of several data sets, whose columns somebody has named, they do so only if none of its columns is left.
    """
    alone = bool(table.data) and len(structures) == 1  # somebody said where it belongs
    of_structures = [column for column in given.columns if column.classes]
    held = [c for c in of_structures if alone or any(map(c.is_of, structures))]
    lacking = [column for column in of_structures if column not in held]
    kept = [column for column in given.columns if column not in lacking]
    without = [name for name in structures if not any(column.is_of(name) for column in held)]
    own = _own(given, without) if of_structures and not (held and table.data) else []
    own += _mean(given, structures, kept) if not table.data and len(structures) > 1 else []
    own += [_cost(given, STEPS), _cost(given, SECONDS)]
    hidden = without if table.data and held and not alone else []
    return Fitted((*kept, *own), tuple(_told(given, structures, held, lacking, hidden, alone=alone)))


def _own(given: Given, structures: Sequence[str]) -> list[Column]:
    """Make a column of Dice for each structure."""
    like = next(column for column in given.columns if column.metric == "dice")
    return [
        replace(like, name=f"Dice {name}" if given.over else name, over=given.over, classes=(name,), whose="ours")
        for name in structures
    ]


def _mean(given: Given, structures: Sequence[str], kept: Sequence[Column]) -> list[Column]:
    """Make a column of their mean, if it is not over as many as the table's."""
    if any(column.structures == len(structures) for column in kept):
        return []
    like = next(column for column in given.columns if column.metric == "dice")
    return [replace(like, name=f"mean of {len(structures)}", classes=(), structures=None, whose="ours")]


def _cost(given: Given, name: str) -> Column:
    return Column(name, over=given.over, digits=0, whose="ours")


def _told(
    given: Given,
    structures: Sequence[str],
    held: Sequence[Column],
    lacking: Sequence[Column],
    hidden: Sequence[str],
    *,
    alone: bool,
) -> list[str]:
    """Say which columns are left out, and which structures have none."""
    said = []
    names = list(dict.fromkeys(column.over or column.name for column in lacking))
    if lacking:
        what = some(structures, most=20)
        said.append(f"{given.name}: left out are {some(names, most=20)}; the structures of the data are {what}.")
    if hidden:
        said.append(f"{given.name}: scored but not shown: {some(hidden, most=20)}.")
    shared = list(dict.fromkeys(column.over for column in held))
    if alone and len(shared) > 1:
        said.append(f"{given.name}: the data have one structure, {structures[0]}; it stands for {some(shared)}.")
    return said
