"""ISIC 2016, 2017 and 2018: the outline of a skin lesion in dermoscopy, as the archives of the challenges unpack."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, files_in, in_parts, register
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import DataError, some
from medsegdiff.labels import Labels


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the parts of a release that are there.

    Where the tables of the paper's authors lie beside the folders (``…_GroundTruth.csv``), they say which images and
    masks belong together, as they do for the authors' loader.
    """
    tables = {part: table for part in spec.parts if (table := _table(spec, root, part))}
    found = in_parts(replace(spec, parts=tuple(part for part in spec.parts if part not in tables)), root, config)
    cases, masks = list(found.cases), dict(found.masks[""])
    for part, table in tables.items():
        pairs = _read_table(table)
        cases += [CaseFiles(name, (image,), part.name) for name, (image, _) in pairs.items()]
        masks |= {name: mask for name, (_, mask) in pairs.items()}
    beside = [path.stem for part in tables for path in files_in(spec, root, part.images)]
    return Found(cases, {"": masks}, passed_over=beside)


def _table(spec: Benchmark, root: Path, part: Part) -> Path | None:
    images = next(files_in(spec, root, part.images), None)
    table = images.parent.with_name(f"{Path(part.masks).parent.name}.csv") if images else root
    return table if table.is_file() else None


def _read_table(table: Path) -> dict[str, tuple[Path, Path]]:
    """Read which image and which mask belong together: the second and the third column, after a row of headings."""
    try:
        rows = [row for row in csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig"))) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: can't be read as a table ({error}). Save it as 'CSV UTF-8'.") from error
    short = next((row for row in rows if len(row) < 3), None)
    if not rows or short is not None:
        raise DataError(f"{table}: expected the columns number, image and mask; found {short or 'nothing'}.")
    pairs = [(table.parent / row[1].strip(), table.parent / row[2].strip()) for row in rows[1:]]
    lacking = [f"{path.parent.name}/{path.name}" for pair in pairs for path in pair if not path.is_file()]
    if lacking:
        raise DataError(
            f"{table}: expected the files that it names; found all but {len(lacking)}: {some(lacking)}. "
            "Unpack the archives beside it, or remove the table."
        )
    return {image.stem: (image, mask) for image, mask in pairs}


def _register(name: str, *, licence: str = "CC0-1.0", paper: str = "", **parts: tuple[str, str]) -> None:
    """Register a year's challenge, of which a part is a folder of images and one of masks."""
    shown = [f"{images}/ISIC_0000000.jpg, {masks}/ISIC_0000000_Segmentation.png" for images, masks in parts.values()]
    register(
        Benchmark(
            name=name,
            labels=Labels("binary", ("lesion",), ((1, 255),)),  # the releases have 255; some programs make it 1
            files="; ".join(shown),
            licence=licence,
            home="https://challenge.isic-archive.com/data/",
            paper=paper,
            parts=tuple(Part(part, f"{images}/*.jp*g", f"{masks}/*") for part, (images, masks) in parts.items()),
            around=("Train", "Test"),  # as in the data folder of the paper's authors
            masks_named="ISIC_0000000_Segmentation.png",
            find=_find,
        )
    )


_register(
    "isic2016",
    train=("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
    test=("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    paper="table 1, column ISIC: the release that the authors' loader reads",
)
_register(
    "isic2017",
    train=("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    val=("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    test=("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
)
_register(
    "isic2018",
    train=("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    val=("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    test=("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    licence="CC-BY-NC-4.0",
    paper="table 1, column ISIC: the year of the work that the paper cites",
)
