"""Drishti-GS: optic disc and cup in fundus photographs, as maps of how many of four experts drew each pixel.

The experts' own masks were never published. The region that at least k of them drew stands for the k-th: the share of
experts at each pixel is then theirs, but the four regions are nested, as the masks of persons need not be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.refuge2 import CLASSES, cup_in_disc
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, in_parts, register
from medsegdiff.data.masks import MaskFile, MaskReader, MaskRef, part_of, whole
from medsegdiff.errors import DataError
from medsegdiff.io.image import read_mask
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

NUM_EXPERTS = 4
ENDINGS = {"disc": "_ODsegSoftmap", "cup": "_cupsegSoftmap"}
"""Of the names of maps in the release."""


class AgreementReader(MaskReader):
    """Reads the maps of a case at the level of one expert. Item 2 of the map of a disc is what at least two drew."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Read disc and cup."""
        disc, level = part_of(path)
        return cup_in_disc(_drawn(disc, int(level)), _drawn(_cup(disc), int(level)), path)

    def geometry(self, path: MaskFile) -> Geometry:
        """Give the grid of the map of the disc."""
        return super().geometry(part_of(path)[0])


def _cup(disc: Path) -> Path:
    """Name the map of the cup that belongs to a map of the disc."""
    in_release = disc.with_name(disc.name.replace(ENDINGS["disc"], ENDINGS["cup"]))
    return disc.parent.with_name("cup") / disc.name if disc.parent.name == "disc" else in_release


def _drawn(path: Path, level: int) -> UInt8[np.ndarray, "h w"]:
    """Find the pixels that at least ``level`` experts drew; 255 stands for all of them."""
    return (np.rint(read_mask(path) * (NUM_EXPERTS / 255)) >= level).astype(np.uint8)


def _match(root: Path) -> bool:
    plain = ("images", "softmaps/disc", "softmaps/cup")
    places = (plain, ("Training/Images", "Training/GT"), ("Test/Images", "Test/Test_GT"))
    return any(all((root / folder).is_dir() for folder in folders) for folders in places)


def _name(path: Path) -> str:
    """Name a photograph, or the map of a structure with the structure behind."""
    for structure, ending in ENDINGS.items():
        if path.stem.endswith(ending) or path.parent.name == structure:
            return f"{path.stem.removesuffix(ending)}_{structure}"
    return path.stem


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the photographs with what at least one, two, three and four experts drew."""
    found = in_parts(spec, root, config)
    disc, cup = (found.masks[structure] for structure in CLASSES)
    if odd := sorted(disc.keys() ^ cup.keys()):
        raise DataError(f"{root}: '{odd[0]}' has a map of the disc or of the cup alone. Give both.")
    levels = {
        f"expert{level}": {name: MaskRef(whole(path), str(level)) for name, path in disc.items()}
        for level in range(1, NUM_EXPERTS + 1)
    }
    return Found(found.cases if disc else (), levels)


register(
    Benchmark(
        name="drishti",
        labels=Labels("regions", CLASSES, ((1, 3), (2, 3))),
        files=(
            "images/drishtiGS_001.png, softmaps/{disc,cup}/drishtiGS_001.png, split.csv; or the release: "
            "Training/Images/…/drishtiGS_002.png, "
            "Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_{ODseg,cupseg}Softmap.png, Test/Images, Test/Test_GT"
        ),
        parts=(
            Part("", "images/*", "softmaps/disc/*.png|softmaps/cup/*.png"),
            Part("train", "Training/Images/**/drishtiGS_*.png", "Training/GT/*/SoftMap/*Softmap.png"),
            Part("test", "Test/Images/**/drishtiGS_*.png", "Test/Test_GT/*/SoftMap/*Softmap.png"),
        ),
        name_of=_name,
        mask_endings={structure: f"_{structure}" for structure in CLASSES},
        unlabelled=("", "train", "test"),
        reader=AgreementReader(),
        find=_find,
        match=_match,
        raters=NUM_EXPERTS,
        remarks=("expert1 … expert4 are what at least 1 … 4 experts drew, not persons",),
        licence="research use",
        home="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
    )
)
