"""REFUGE2: optic disc and cup in fundus photographs, as the challenge gives them or with the masks of seven raters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import TWO_VALUES, MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import MaskReader, Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, GeometryError, size, some
from medsegdiff.io.image import read_mask
from medsegdiff.types import Geometry

CLASSES = ("disc", "cup")
"""The cup lies in the disc."""
STORED = {255: 0, 128: 1, 0: 2}
"""What the challenge stores → 0 outside, 1 the rim of the disc, 2 the cup."""
IMAGES = {
    "train": ("Training400", "REFUGE-Training400"),
    "val": ("REFUGE-Validation400", "Validation400"),
    "test": ("Test400", "REFUGE-Test400"),
}
"""Folders of the challenge by part: the archive's name, or that of the folder in it."""
MASKS = {"train": "Annotation-Training400", "val": "REFUGE-Validation400-GT", "test": "REFUGE-Test-GT"}
RATED = {"train": "Training-400", "val": "Validation-400", "test": "Test-400"}
"""Folders of the release with seven raters by part."""
RATER = re.compile(r"_seg_(?P<structure>disc|cup)_(?P<number>\d+)")
CHALLENGE_FILES = (
    "Training400/{Glaucoma,Non-Glaucoma}/*.jpg, Annotation-Training400/Disc_Cup_Masks/{Glaucoma,Non-Glaucoma}/*.bmp, "
    "REFUGE-Validation400/*.jpg, REFUGE-Validation400-GT/Disc_Cup_Masks/*.bmp, Test400/*.jpg, "
    "REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/*.bmp"
)
RATED_FILES = "{Training,Test}-400/0001/{0001.jpg, 0001_seg_disc_1.png … _7.png, 0001_seg_cup_1.png … _7.png}"


class ChallengeReader(MaskReader):
    """Reads masks of the challenge, in which the cup is 0, the rim 128 and the background 255."""

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        stored = read_mask(path)
        if strange := [str(value) for value in np.unique(stored).tolist() if value not in STORED]:
            raise DataError(
                f"{path}: expected 0 (cup), 128 (rim of the disc) and 255 (outside); found {some(strange)}. "
                "Take the file of the challenge again."
            )
        table = np.zeros(256, np.uint8)
        table[list(STORED)] = list(STORED.values())
        return table[stored]


class RaterReader(MaskReader):
    """Reads the two files of a rater as one mask. ``0001_seg_#3`` stands for the disc and the cup of the third."""

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Read disc and cup of a rater."""
        disc, cup = (_drawn(file) for file in _two_files(path))
        if disc.shape != cup.shape:
            raise GeometryError(
                f"{path}: the disc is {size(disc.shape)} but the cup is {size(cup.shape)}. They must be of one image."
            )
        return disc + 2 * cup

    def geometry(self, path: Path) -> Geometry:
        """Give the grid of the disc."""
        return super().geometry(_two_files(path)[0])


def looks_like_refuge2(root: Path) -> bool:
    """Tell whether a folder holds REFUGE2."""
    folders = [name for names in IMAGES.values() for name in names]
    return any((root / name).is_dir() for name in (*folders, *RATED.values()))


def list_refuge2(root: Path, config: DataConfig) -> Listing:
    """List the photographs of the challenge, or those with seven raters, with the official split."""
    found, masks = _challenge(root) if any(_photographs(root, part) for part in IMAGES) else _rated(root)
    if not found:
        raise expected(f"{CHALLENGE_FILES}; or {RATED_FILES}", root)
    cases = assign(indexed(found, root), root / "split.csv")
    return Listing(
        root,
        "refuge2",
        cases,
        masks,
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=("the photographs for training are of another camera than those for validation and test",),
    )


def _challenge(root: Path) -> tuple[list[CaseFiles], Masks]:
    """Find the photographs of the challenge with their masks; those of a part may not be public."""
    found: list[CaseFiles] = []
    drawn: dict[str, Path] = {}
    for part in IMAGES:
        images = _photographs(root, part)
        masks = list(_files(root / MASKS[part], ".bmp"))
        if images and not masks and part != "test":
            raise expected(f"masks *.bmp in {MASKS[part]}/Disc_Cup_Masks", root)
        found += [CaseFiles(path.stem, (path,), part) for path in images]
        drawn |= {path.stem: path for path in masks}
    coding = MaskCoding("regions", CLASSES, ((1, 2), (2,)))
    return found, Masks({"": drawn}, kind="flat", where=root, declared=coding, reader=ChallengeReader())


def _photographs(root: Path, part: str) -> list[Path]:
    return [path for name in IMAGES[part] for path in _files(root / name, ".jpg")]


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Find files however deep: the archives have folders within folders, which differ from copy to copy."""
    return (path for path in sorted(folder.rglob(f"*{suffix}")) if not path.name.startswith("."))


def _rated(root: Path) -> tuple[list[CaseFiles], Masks]:
    """Find the photographs that several raters drew on."""
    found: list[CaseFiles] = []
    by_rater: dict[str, dict[str, Path]] = defaultdict(dict)
    for part, name in RATED.items():
        folders = sorted(path for path in (root / name).glob("*") if (path / f"{path.name}.jpg").is_file())
        found += [CaseFiles(folder.name, (folder / f"{folder.name}.jpg",), part) for folder in folders]
        for folder in folders:
            for number in _raters(folder):
                by_rater[f"rater{number}"][folder.name] = folder / f"{folder.name}_seg_#{number}"
    raters = {rater: by_rater[rater] for rater in sorted(by_rater, key=lambda name: (len(name), name))}
    coding = MaskCoding("regions", CLASSES, ((1, 3), (2, 3)))
    return found, Masks(raters, kind="raters", where=root, declared=coding, reader=RaterReader())


def _raters(folder: Path) -> list[int]:
    """List who drew on a photograph, each both the disc and the cup."""
    drawn: dict[str, set[int]] = {structure: set() for structure in CLASSES}
    for path in folder.glob(f"{folder.name}_seg_*_*.png"):
        if match := RATER.fullmatch(path.stem.removeprefix(folder.name)):
            drawn[match["structure"]].add(int(match["number"]))
    disc, cup = drawn["disc"], drawn["cup"]
    if disc != cup:
        raise DataError(
            f"{folder}: expected the disc and the cup of each rater; found only one of the two by "
            f"{some([f'rater{number}' for number in sorted(disc ^ cup)])}. Unpack the whole release."
        )
    return sorted(disc)


def _two_files(path: Path) -> tuple[Path, Path]:
    """Name the files that a path stands for: the disc and the cup."""
    stem, _, number = path.name.rpartition("#")
    return path.with_name(f"{stem}disc_{number}.png"), path.with_name(f"{stem}cup_{number}.png")


def _drawn(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Read one structure as 0 and 1; where edges are grey, at their half."""
    stored = read_mask(path)
    above = 0 if set(np.unique(stored).tolist()) in TWO_VALUES else 127
    return (stored > above).astype(np.uint8)


DATASETS.register(
    "refuge2",
    kind="benchmark",
    task="regions",
    classes=CLASSES,
    licence="research use, on registration with the challenge",
    home="https://refuge.grand-challenge.org",
    paper="table 1, columns REFUGE2-Disc and REFUGE2-Cup",
    layout=f"{CHALLENGE_FILES}; or {RATED_FILES}",
)(Layout(looks_like_refuge2, list_refuge2))
