"""A table of cases: ``cases.csv`` or ``cases.json``, whose paths may lead anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig, MaskFolders
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, expected
from medsegdiff.data.instances import united
from medsegdiff.data.layouts.msd import read_json
from medsegdiff.data.mask_folder import kind_of
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import SPLIT_WORDS, columns_of, open_table
from medsegdiff.errors import DataError, nearest, some
from medsegdiff.io.listing import SUFFIXES, foreign
from medsegdiff.io.names import case_name, file_name

NAMES = ("manifest.csv", "manifest.json")
"""What a manifest is called where a folder is given."""
ID_COLUMNS = ("id", "name", "case")


@dataclass(frozen=True)
class Row:
    """A case, as it stands in the table."""

    where: str
    """File and row, named in errors."""
    name: str
    images: Mapping[str, str]
    """Channel → path; one channel without a name where there is one file."""
    masks: Mapping[str, str]
    """Rater or structure → path; one without a name where there is one mask."""
    group: str
    part: str


def _match(root: Path) -> bool:
    """Tell whether a path leads to a manifest."""
    return _file(root) is not None


def _list(root: Path, config: DataConfig) -> Listing:
    """List the cases of a manifest."""
    file = _file(root)
    if file is None:
        raise expected("a .csv or .json file, or a folder with manifest.csv or manifest.json", root)
    rows = list(_rows_of_json(file) if file.suffix.lower() == ".json" else _rows_of_csv(file))
    if not rows:
        raise DataError(f"{file}: names no case. Add a row for each.")
    _check(rows, file)
    cases, masks = {}, defaultdict[str, dict[str, Path]](dict)
    for row in sorted(rows, key=lambda row: row.name):
        paths = tuple(_there(path, file, row) for path in row.images.values())
        part = SPLIT_WORDS.get(row.part.lower(), "")
        cases[row.name] = CaseFiles(row.name, paths, part=part, group=row.group)
        for folder, path in row.masks.items():
            masks[folder][row.name] = _there(path, file, row)
    channels = tuple(rows[0].images) if "" not in rows[0].images else ()
    return Listing(root, "manifest", cases, _masks(masks, config.mask_folders, where=file), channels)


def _masks(files: Mapping[str, Mapping[str, Path]], asked: MaskFolders, *, where: Path) -> Masks:
    if set(files) <= {""}:
        return Masks(files, kind="flat", where=where)
    if asked == "instances":
        return united(files, where=where)
    return Masks(files, kind=kind_of(files, where, asked=asked), where=where)


def _file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".json") else None
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def _rows_of_csv(file: Path) -> Iterator[Row]:
    reader = open_table(file)
    columns = [str(column) for column in reader.fieldnames or []]
    lines = [(reader.line_num, entry) for entry in reader]
    told = columns_of({column: [entry[column] for _, entry in lines] for column in columns}, ID_COLUMNS, file)
    images, masks = _columns(columns, "image"), _columns(columns, "mask")
    if not told.name or not images:
        raise DataError(
            f"{file}: expected the columns id, image (or image_0, image_1, …), mask (or mask_NAME, …) and maybe group "
            f"and split, separated by commas; found: {some(columns, most=12)}."
            f"{nearest('image', columns) if told.name else ''}"
        )
    if not masks:
        _check_columns(columns, file)
    for number, entry in lines:
        where = f"{file}, row {number}"
        if "beyond" in entry:
            raise DataError(
                f"{where}: has more cells than the {len(columns)} columns. Quote cells that hold what separates them."
            )
        cells = {column: value.strip() for column, value in entry.items()}
        case = told.read(cells)
        yield Row(
            where,
            file_name(case.name),
            {channel: cells[column] for channel, column in images.items()},
            {folder: cells[column] for folder, column in masks.items() if cells[column]},
            case.group,
            case.part,
        )


def _columns(columns: Sequence[str], word: str) -> dict[str, str]:
    """Find the columns ``image`` or ``image_NAME`` by name, in their order."""
    spelt = {column: column.strip().casefold() for column in columns}
    chosen = [column for column, plain in spelt.items() if plain == word or plain.startswith(f"{word}_")]
    found = {column.strip()[len(word) + 1 :]: column for column in chosen}
    if len(found) > 1 and "" in found:
        raise DataError(f"The columns {some(list(found.values()))} contradict each other: keep {word}, or {word}_NAME.")
    return found


def _check_columns(columns: Iterable[str], where: object) -> None:
    """Refuse columns that look as if they held the masks, where no other does: they are not read."""
    spelt = {column.strip().casefold(): column for column in columns}
    if wrong := sorted({"masks", "label", "labels", "segmentation"} & {*spelt}):
        raise DataError(
            f"{where}: the column {spelt[wrong[0]]} has no meaning; masks are in mask, or mask_NAME for several."
        )


def _rows_of_json(file: Path) -> Iterator[Row]:
    entries = read_json(file)
    if not isinstance(entries, list):
        raise DataError(
            f'{file}: expected a list of {{"id": name, "image": path or list, "mask": path or {{name: path}}}}; found '
            f"{type(entries).__name__}. If it describes a folder, give the folder. {foreign([file])}"
        )
    told = [_told(entry) for entry in entries]
    spelt_so = [{key.strip().casefold(): value for key, value in entry.items()} for entry in told]
    masked = any("mask" in spelt for spelt in spelt_so)
    for number, (entry, spelt) in enumerate(zip(told, spelt_so, strict=True), start=1):
        where = f"{file}, entry {number}"
        if "image" not in spelt:
            raise DataError(f'{where}: is {entries[number - 1]}; expected {{"id": name, "image": path, "mask": path}}.')
        if not masked:
            _check_columns(entry, where)
        case = columns_of({key: [value] for key, value in entry.items()}, ID_COLUMNS, where).read(entry)
        yield Row(
            where,
            file_name(case.name),
            _named(spelt["image"], where, "image"),
            {folder: path for folder, path in _named(spelt.get("mask"), where, "mask").items() if path},
            case.group,
            case.part,
        )


def _told(entry: Any) -> dict[str, Any]:
    """Keep what an entry says; what is ``null`` is not said."""
    return {key: value for key, value in entry.items() if value is not None} if isinstance(entry, dict) else {}


def _named(value: Any, where: str, key: str) -> dict[str, str]:
    """Bring a path, a list of paths, or paths by name to paths by name."""
    if isinstance(value, list) and key == "image":
        value = value[0] if len(value) == 1 else {str(number): path for number, path in enumerate(value)}
    found = value if isinstance(value, dict) else {"": value or ""}
    if not all(path is None or isinstance(path, str) for path in found.values()):
        raise DataError(f"{where}: {key} is {value}; expected a path, a list of paths or {{name: path}}.")
    return {str(name): path or "" for name, path in found.items()}


def _check(rows: Sequence[Row], file: Path) -> None:
    """Make sure that the rows fit together."""
    seen: dict[str, Row] = {}
    told = any(row.part for row in rows)
    flat = {folder == "" for row in rows for folder in row.masks}
    if len(flat) > 1:
        raise DataError(f"{file}: some cases have one mask and others masks by name. Give all of them names.")
    for row in rows:
        if not row.name:
            raise DataError(f"{row.where}: has no id. Give each case a name of its own.")
        case_name(row.name, where=row.where)
        if row.name in seen:
            raise DataError(f"{row.where}: '{row.name}' stands in {seen[row.name].where} already. Keep one of them.")
        if tuple(row.images) != tuple(rows[0].images):
            raise DataError(
                f"{row.where}: has the images {some(list(row.images))}, {rows[0].where} {some(list(rows[0].images))}. "
                "Give each case the same channels in the same order."
            )
        if told and row.part.lower() not in SPLIT_WORDS:
            raise DataError(f"{row.where}: unknown split '{row.part}'; allowed are train, val and test.")
        seen[row.name] = row


def _there(path: str, file: Path, row: Row) -> Path:
    found = file.parent / path
    if not path:
        raise DataError(f"{row.where}: the image of '{row.name}' is missing. Give every channel, or remove the row.")
    if not found.exists():
        raise DataError(f"{row.where}: there is no file {found}. Paths are relative to {file.parent}; correct it.")
    if found.is_file() and not found.name.lower().endswith(SUFFIXES):
        raise DataError(f"{row.where}: {path} can't be read; allowed are {', '.join(SUFFIXES)} and DICOM folders.")
    return found


DATASETS.register(
    "manifest",
    kind="layout",
    layout="manifest.csv (or any .csv given itself) with id, image or image_NAME …, mask or mask_NAME …, group, split; "
    "or .json",
)(Layout(_match, _list))
