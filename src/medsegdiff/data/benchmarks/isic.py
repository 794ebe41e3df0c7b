"""ISIC 2016, 2017 and 2018: the outline of a skin lesion in dermoscopy, as the archives of the challenges unpack."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.masks import Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import images_in

CODING = MaskCoding("binary", ("lesion",), ((1, 255),))
"""The releases have 255; 1 is what remains after some programs."""


@dataclass(frozen=True)
class Part:
    """Where a release keeps one part of its cases."""

    name: str
    """``train``, ``val`` or ``test``."""
    images: str
    masks: str
    around: str = ""
    """A folder that may lie around both, as in the data folder of the paper's authors."""


@dataclass(frozen=True)
class Release:
    """A year's challenge."""

    name: str
    """The entry of `DATASETS`."""
    parts: tuple[Part, ...]
    """The part for training first."""

    @property
    def files(self) -> str:
        """What lies where, in a line."""
        shown = [f"{part.images}/ISIC_0000000.jpg, {part.masks}/ISIC_0000000_Segmentation.png" for part in self.parts]
        return "; ".join(shown)


ISIC_2016 = Release(
    "isic2016",
    (
        Part("train", "ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth", "Train"),
        Part("test", "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "Test"),
    ),
)
ISIC_2017 = Release(
    "isic2017",
    (
        Part("train", "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
        Part("val", "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
        Part("test", "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    ),
)
ISIC_2018 = Release(
    "isic2018",
    (
        Part("train", "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
        Part("val", "ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
        Part("test", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
    ),
)


def looks_like_isic(root: Path, *, release: Release) -> bool:
    """Tell whether a folder holds a release."""
    return any(_home(root, part) for part in release.parts)


def list_isic(root: Path, config: DataConfig, *, release: Release) -> Listing:
    """List the parts of a release that are there.

    Where the tables of the paper's authors lie beside the folders (``…_GroundTruth.csv``), they say which images and
    masks belong together, as they do for the authors' loader.
    """
    found: list[CaseFiles] = []
    masks: dict[str, Path] = {}
    images: set[str] = set()
    for part in release.parts:
        if home := _home(root, part):
            in_folder = {path.stem: path for path in _photographs(home / part.images)}
            table = home / f"{part.masks}.csv"
            listed, drawn = _read_table(table) if table.is_file() else (in_folder, _masks(home, part, in_folder))
            found += [CaseFiles(name, (path,), part.name) for name, path in listed.items()]
            masks |= drawn
            images |= {*in_folder, *listed}
    if not found:
        raise expected(release.files, root)
    cases = assign(indexed(found, root), root / "split.csv")
    return Listing(
        root,
        release.name,
        cases,
        Masks({"": masks}, kind="flat", where=root, declared=CODING),
        unlisted=tuple(sorted(images - set(cases))),
    )


def _home(root: Path, part: Part) -> Path | None:
    """Find the folder that holds the images of a part."""
    places = (root, root / part.around)
    return next((place for place in places if (place / part.images).is_dir()), None)


def _photographs(folder: Path) -> list[Path]:
    """List the images; the release of 2017 keeps superpixels (PNG) and tables beside them."""
    return [path for path in images_in(folder) if path.suffix.lower() in (".jpg", ".jpeg")]


def _masks(home: Path, part: Part, names: Collection[str]) -> dict[str, Path]:
    """Find the masks of a part; those of a test set may be secret."""
    folder = home / part.masks
    if folder.is_dir():
        return by_name(images_in(folder), names)
    if part.name == "test":
        return {}
    raise expected(f"the masks of {part.images} in {part.masks}/ISIC_0000000_Segmentation.png", home)


def _read_table(table: Path) -> tuple[dict[str, Path], dict[str, Path]]:
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
    return {image.stem: image for image, _ in pairs}, {image.stem: mask for image, mask in pairs}


for _release, _licence, _paper in (
    (ISIC_2016, "CC0-1.0", "table 1, column ISIC: the release that the authors' loader reads"),
    (ISIC_2017, "CC0-1.0", ""),
    (ISIC_2018, "CC-BY-NC-4.0", "table 1, column ISIC: the year of the work that the paper cites"),
):
    DATASETS.register(
        _release.name,
        kind="benchmark",
        task="binary",
        classes=CODING.classes,
        licence=_licence,
        home="https://challenge.isic-archive.com/data/",
        paper=_paper,
        layout=_release.files,
    )(Layout(partial(looks_like_isic, release=_release), partial(list_isic, release=_release)))
