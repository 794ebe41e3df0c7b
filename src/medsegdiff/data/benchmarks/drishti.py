"""Drishti-GS: optic disc and cup in fundus photographs, as maps of how many of four experts drew each pixel.

The experts' own masks were never published. The region that at least k of them drew stands for the k-th: the share of
experts at each pixel is then theirs, but the four regions are nested, as the masks of persons need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.run import DataConfig
from medsegdiff.data.coding import MaskCoding
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.masks import MaskReader, Masks
from medsegdiff.data.split import assign
from medsegdiff.errors import DataError, GeometryError, size
from medsegdiff.io.image import images_in, read_mask
from medsegdiff.types import Geometry

CLASSES = ("disc", "cup")
"""The cup lies in the disc."""
NUM_EXPERTS = 4
RELEASE = {"train": ("Training", "GT"), "test": ("Test", "Test_GT")}
"""Folders of the release by part: of the photographs, and of the maps in it."""
ENDINGS = {"disc": "_ODsegSoftmap.png", "cup": "_cupsegSoftmap.png"}
FILES = (
    "images/drishtiGS_001.png, softmaps/{disc,cup}/drishtiGS_001.png, split.csv; or the release: "
    "Training/Images/…/drishtiGS_002.png, Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_{ODseg,cupseg}Softmap.png, "
    "Test/Images, Test/Test_GT"
)


class AgreementReader(MaskReader):
    """Reads the maps of a case at the level of one expert. ``NAME#2`` stands for what at least two drew."""

    def __init__(self, maps: dict[str, dict[str, Path]]) -> None:
        """Remember the maps."""
        self.maps = maps

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Read disc and cup."""
        name, _, level = path.name.rpartition("#")
        disc, cup = (_drawn(self.maps[structure][name], int(level)) for structure in CLASSES)
        if disc.shape != cup.shape:
            raise GeometryError(
                f"'{name}': the map of the disc is {size(disc.shape)}, that of the cup {size(cup.shape)}. "
                "They must be of one photograph."
            )
        return disc + 2 * cup

    def geometry(self, path: Path) -> Geometry:
        """Give the grid of the map of the disc."""
        return super().geometry(self.maps["disc"][path.name.rpartition("#")[0]])


def looks_like_drishti(root: Path) -> bool:
    """Tell whether a folder holds Drishti-GS."""
    plain = all((root / "softmaps" / structure).is_dir() for structure in CLASSES) and (root / "images").is_dir()
    return plain or any(
        (root / part / "Images").is_dir() and (root / part / maps).is_dir() for part, maps in RELEASE.values()
    )


def list_drishti(root: Path, config: DataConfig) -> Listing:
    """List the photographs with what at least one, two, three and four experts drew."""
    plain = (root / "softmaps").is_dir()
    found = list(_plain(root / "images", "") if plain else _release(root))
    maps = {structure: _maps(root, structure, plain=plain) for structure in CLASSES}
    if not found or not any(maps.values()):
        raise expected(FILES, root)
    if odd := sorted(maps["disc"].keys() ^ maps["cup"].keys()):
        raise DataError(f"{root}: '{odd[0]}' has a map of the disc or of the cup alone. Give both.")
    cases = assign(indexed(found, root), root / "split.csv")
    levels = {
        f"expert{level}": {name: path.with_name(f"{name}#{level}") for name, path in maps["disc"].items()}
        for level in range(1, NUM_EXPERTS + 1)
    }
    coding = MaskCoding("regions", CLASSES, ((1, 3), (2, 3)))
    return Listing(
        root,
        "drishti",
        cases,
        Masks(levels, kind="raters", where=root, declared=coding, reader=AgreementReader(maps)),
        unlisted=tuple(case.name for case in found if case.name not in cases),
        remarks=("expert1 … expert4 are what at least 1 … 4 experts drew, not persons",),
    )


def _plain(folder: Path, part: str) -> Iterator[CaseFiles]:
    return (CaseFiles(path.stem, (path,), part) for path in images_in(folder))


def _release(root: Path) -> Iterator[CaseFiles]:
    for part, (folder, _) in RELEASE.items():
        for path in sorted((root / folder / "Images").rglob("drishtiGS_*.png")):
            yield CaseFiles(path.stem, (path,), part)


def _maps(root: Path, structure: str, *, plain: bool) -> dict[str, Path]:
    """Find the maps of a structure by case."""
    if plain:
        return {path.stem: path for path in images_in(root / "softmaps" / structure)}
    ending = ENDINGS[structure]
    return {
        path.name.removesuffix(ending): path
        for part, folder in RELEASE.values()
        for path in sorted((root / part / folder).glob(f"*/SoftMap/*{ending}"))
    }


def _drawn(path: Path, level: int) -> UInt8[np.ndarray, "h w"]:
    """Find the pixels that at least ``level`` experts drew; 255 stands for all of them."""
    return (np.rint(read_mask(path) * (NUM_EXPERTS / 255)) >= level).astype(np.uint8)


DATASETS.register(
    "drishti",
    kind="benchmark",
    task="regions",
    classes=CLASSES,
    raters=NUM_EXPERTS,
    licence="research use",
    home="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
    paper="",
    layout=FILES,
)(Layout(looks_like_drishti, list_drishti))
